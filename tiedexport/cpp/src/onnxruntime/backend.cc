// ONNX Runtime on a CPU, with one copy of every weight: mapped, never packed.
#include "backend.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "error.hpp"
#include "onnxruntime/library.hpp"
#include "onnxruntime/session.hpp"

namespace tiedexport::internal {
namespace {

using onnxruntime::Environment;
using onnxruntime::Library;
using onnxruntime::load_library;
using onnxruntime::Session;

class OnnxRuntimeBackend final : public Backend {
 public:
  OnnxRuntimeBackend(const Library& library, std::shared_ptr<const Bundle> bundle,
                     const Options& options)
      : threads_(options.threads > 0 ? options.threads : processors()),
        description_("ONNX Runtime " + library.version + ", CPU, threads: " +
                     std::to_string(threads_) + ", " + name_of(options.precision)),
        environment_(*library.api, std::move(bundle), options.precision, threads_) {
    // The first stage at once, so that what cannot run does not open.
    session(environment_.bundle().manifest().stages.front());
  }

  void run(const Stage& stage, std::size_t batch, const void* input, void* output) override {
    environment_.weights().refuse_if_truncated();
    session(stage).run(batch, input, output);
  }

  std::string description() const override { return description_; }

 private:
  static int processors() {
    const unsigned count = std::thread::hardware_concurrency();
    return count == 0 ? 1 : static_cast<int>(count);
  }

  const Session& session(const Stage& stage) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Session>& made = sessions_[stage.name];
    if (made == nullptr) made = std::make_unique<Session>(environment_, stage);
    return *made;
  }

  int threads_;
  std::string description_;
  Environment environment_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Session>> sessions_;  // by stage
};

Availability availability() {
  const Library library = load_library();
  return {library.api != nullptr, library.version, library.reason, library.remedy};
}

std::string refusal(const Bundle& bundle, Type precision) {
  const char* none = "ONNX Runtime has no bf16 kernels for a CPU";
  if (precision == Type::bf16) return none;
  const auto kept = bundle.manifest().kept.find(precision);
  if (kept == bundle.manifest().kept.end()) return "";
  for (const auto& [weight, type] : kept->second) {
    if (type == Type::bf16) return std::string(none) + ", and " + weight + " is in bf16";
  }
  return "";
}

std::unique_ptr<Backend> open(std::shared_ptr<const Bundle> bundle, const Options& options) {
  const Library library = load_library();
  if (library.api == nullptr)
    throw Error(TIEDEXPORT_UNAVAILABLE,
                {"onnxruntime cannot run", "", library.reason, "", library.remedy});
  return std::make_unique<OnnxRuntimeBackend>(library, std::move(bundle), options);
}

}  // namespace

BackendRow onnxruntime_backend() { return {"onnxruntime", 20, availability, refusal, open}; }

}  // namespace tiedexport::internal
