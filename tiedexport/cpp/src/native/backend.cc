// The CPU backend that is always there.
#include "backend.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "error.hpp"
#include "native/pool.hpp"
#include "native/processors.hpp"
#include "native/program.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

using native::Simd;

constexpr int kMostThreads = 1024;

int threads_of(int wanted) {
  if (wanted < 0 || wanted > kMostThreads) {
    throw Error(TIEDEXPORT_INVALID_ARGUMENT,
                {"an impossible number of threads", "", std::to_string(wanted),
                 "1 to " + std::to_string(kMostThreads) + ", or 0 for one a processor", ""});
  }
  return wanted != 0 ? wanted : std::min(native::processors_allowed(), kMostThreads);
}

Simd simd_of(const std::string& wanted, Type weights) {
  if (wanted.empty()) return native::best_simd(weights);
  std::vector<std::string> here;
  for (const Simd simd : native::kEverySimd) {
    if (!native::simd_runs_here(simd)) continue;
    if (wanted == native::name_of(simd)) return simd;
    here.emplace_back(native::name_of(simd));
  }
  throw Error(TIEDEXPORT_INVALID_ARGUMENT,
              {"no such instruction set here", "", quoted(wanted), joined_with_commas(here), ""});
}

/// Workspaces of calls: one each, however many threads call, kept for the calls that follow. A
/// call that fails lets its own go.
class Workspaces {
 public:
  std::unique_ptr<native::Workspace> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::make_unique<native::Workspace>();
    std::unique_ptr<native::Workspace> workspace = std::move(free_.back());
    free_.pop_back();
    return workspace;
  }

  void give_back(std::unique_ptr<native::Workspace> workspace) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(workspace));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<native::Workspace>> free_;
};

class NativeBackend : public Backend {
 public:
  NativeBackend(std::shared_ptr<const Bundle> bundle, const Options& options)
      : weights_(bundle->weights(options.precision)),
        simd_(simd_of(options.simd, options.precision)),
        pool_(threads_of(options.threads)) {
    weights_->refuse_if_truncated();
    for (const Stage& stage : bundle->manifest().stages)
      programs_.emplace(stage.name, native::compile(stage, *weights_, simd_, bundle->path()));
  }

  void run(const Stage& stage, std::size_t batch, const void* input, void* output) override {
    weights_->refuse_if_truncated();
    std::unique_ptr<native::Workspace> workspace = workspaces_.take();
    native::run(programs_.at(stage.name), batch, input, output, simd_, pool_, *workspace);
    workspaces_.give_back(std::move(workspace));
  }

  std::string description() const override {
    const int threads = pool_.size();
    return std::string(native::name_of(simd_)) + ", " + std::to_string(threads) +
           (threads == 1 ? " thread" : " threads");
  }

 private:
  const std::shared_ptr<const Weights> weights_;
  const Simd simd_;
  native::Pool pool_;
  Workspaces workspaces_;
  std::map<std::string, native::Program> programs_;
};

Availability availability() { return {true, TIEDEXPORT_VERSION, "", ""}; }

std::string refusal(const Bundle& bundle, Type) {
  for (const Stage& stage : bundle.manifest().stages)
    if (stage.layers.empty()) return "the manifest lists no layers of stage " + quoted(stage.name);
  return "";
}

std::unique_ptr<Backend> open(std::shared_ptr<const Bundle> bundle, const Options& options) {
  return std::make_unique<NativeBackend>(std::move(bundle), options);
}

}  // namespace

BackendRow native_backend() { return {"native", 10, availability, refusal, open}; }

}  // namespace tiedexport::internal
