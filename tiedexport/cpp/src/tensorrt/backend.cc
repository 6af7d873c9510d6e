// TensorRT on an NVIDIA GPU: the bundle's plans, which share one copy of the weights. No library of
// NVIDIA's is linked: they are loaded when they are first asked for.
//
// All of it has run on doubles of those libraries only, never yet on a GPU (and what is inside
// TRT_MAJOR_RTX was never compiled with TensorRT-RTX's own headers): tiedexport bench --acceptance
// is what proves it there.
#include "backend.hpp"

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "error.hpp"
#include "tensorrt/choice.hpp"
#include "tensorrt/device_execution.hpp"
#include "tensorrt/host_execution.hpp"

namespace tiedexport::internal {
namespace tensorrt {
namespace {

struct Found {
  Probe probe;
  Library loaded;  // asked for with a driver only

  const std::string& reason() const { return probe.driver ? loaded.reason : probe.reason; }
  const std::string& remedy() const { return probe.driver ? loaded.remedy : probe.remedy; }
};

Found find() {
  Found found{probe_driver(), {}};
  // Without a driver, TensorRT's runtime is an invalid pointer: ask before it is loaded.
  if (found.probe.driver != nullptr) found.loaded = load_library(found.probe.cuda);
  return found;
}

Target target(const Library& library, const Device& device) {
  return {library.package, library.version, device.name, device.compute_capability};
}

class Session final : public Backend {
 public:
  Session(std::shared_ptr<const Bundle> bundle, Type precision, const Found& found,
          const Device& device, const Choice& choice)
      : bundle_(std::move(bundle)),
        gpu_(std::make_shared<Gpu>(found.probe.driver, device)),
        description_("TensorRT " + found.loaded.version + " on " + device.name + " (sm" +
                     std::to_string(device.compute_capability) + ")") {
    std::map<std::string, std::shared_ptr<const Engine>> loaded;  // one plan may serve all stages
    for (const Stage& stage : bundle_->manifest().stages) {
      const Plan& plan = *choice.plans.at(stage.name);
      std::shared_ptr<const Engine>& engine = loaded[plan.file];
      if (engine == nullptr) engine = load(plan, precision, found.loaded);
      stages_.emplace(std::piecewise_construct, std::forward_as_tuple(stage.name),
                      std::forward_as_tuple(engine, stage));
    }
  }

  void run(const Stage& stage, std::size_t batch, const void* input, void* output) override {
    stages_.at(stage.name).on_host.run(batch, input, output);
  }

  void enqueue(const Stage& stage, std::size_t batch, const void* device_input, void* device_output,
               void* stream) override {
    stages_.at(stage.name)
        .on_device.enqueue(batch, reinterpret_cast<Address>(device_input),
                           reinterpret_cast<Address>(device_output), stream);
  }

  std::string description() const override {
    std::string text = description_;
    for (const auto& [name, stage] : stages_) {
      const std::string failure = stage.on_host.capture_failure();
      if (!failure.empty()) text += "; " + name + " without a CUDA graph: " + failure;
    }
    return text;
  }

 private:
  struct Running {
    Running(const std::shared_ptr<const Engine>& engine, const Stage& stage)
        : on_host(engine, stage), on_device(engine, stage) {}
    HostExecution on_host;
    DeviceExecution on_device;
  };

  std::shared_ptr<const Engine> load(const Plan& plan, Type precision, const Library& library) {
    if (plan.weights == "shared" && weights_ == nullptr) {
      weights_ = DeviceWeights::of(*bundle_, precision, gpu_);
    }
    return std::make_shared<Engine>(gpu_, library, plan, bundle_->read(plan.file),
                                    plan.weights == "shared" ? weights_ : nullptr);
  }

  std::shared_ptr<const Bundle> bundle_;
  std::shared_ptr<const Gpu> gpu_;
  std::string description_;
  std::shared_ptr<const DeviceWeights> weights_;
  std::map<std::string, Running> stages_;
};

Availability availability() {
  const Found found = find();
  if (!found.reason().empty()) return {false, "", found.reason(), found.remedy()};
  std::string devices;
  for (const Device& device : found.probe.devices) {
    devices += (devices.empty() ? "" : ", ") + device.name;
  }
  return {true, found.loaded.version + ", " + devices, "", ""};
}

/// Why no device here runs the bundle, or "".
std::string refusal(const Bundle& bundle, Type precision) {
  const Found found = find();
  if (!found.reason().empty()) return found.reason();
  std::string first;
  for (const Device& device : found.probe.devices) {
    const Choice choice =
        choose_plans(bundle.manifest(), bundle.path(), precision, target(found.loaded, device));
    if (choice.refusal.empty()) return "";
    if (first.empty()) first = choice.refusal;
  }
  return first;
}

std::unique_ptr<Backend> open(std::shared_ptr<const Bundle> bundle, const Options& options) {
  const Found found = find();
  if (!found.reason().empty()) {
    throw Error(TIEDEXPORT_UNAVAILABLE,
                {"tensorrt cannot run", "", found.reason(), "", found.remedy()});
  }
  const auto& devices = found.probe.devices;
  if (options.device < 0 || static_cast<std::size_t>(options.device) >= devices.size()) {
    throw Error(TIEDEXPORT_INVALID_ARGUMENT,
                {"no such device", "", std::to_string(options.device),
                 "0 to " + std::to_string(devices.size() - 1), "nvidia-smi -L"});
  }
  const Device& device = devices[static_cast<std::size_t>(options.device)];
  const Choice choice = choose_plans(bundle->manifest(), bundle->path(), options.precision,
                                     target(found.loaded, device));
  if (!choice.refusal.empty()) {
    throw Error(TIEDEXPORT_UNSUPPORTED,
                {"tensorrt cannot run this bundle", bundle->path(), choice.refusal, "", ""});
  }
  return std::make_unique<Session>(std::move(bundle), options.precision, found, device, choice);
}

}  // namespace
}  // namespace tensorrt

BackendRow tensorrt_backend() {
  return {"tensorrt",
          5,
          tensorrt::availability,
          tensorrt::refusal,
          tensorrt::open,
          {Type::fp16, Type::bf16, Type::fp32}};
}

}  // namespace tiedexport::internal
