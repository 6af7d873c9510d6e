#include "tensorrt/engine.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

// The decoder half's input in a plan that holds both halves; other tensors keep their names.
constexpr const char* kCodeIn = "code_in";
constexpr const char* kRebuild = "tiedexport build NAME.tied --force";

nvinfer1::DataType data_type(Type type) {
  if (type == Type::fp32) return nvinfer1::DataType::kFLOAT;
  return type == Type::fp16 ? nvinfer1::DataType::kHALF : nvinfer1::DataType::kBF16;
}

std::string words(const TensorSpec& spec) {
  return spec.name + ": " + name_of(spec.type) + ", " + std::to_string(spec.element_count()) +
         " elements a row";
}

Error not_of(const std::string& file, const Stage& stage, const std::string& found) {
  return Error(TIEDEXPORT_CORRUPT, {"the plan does not compute the " + stage.name, file, found,
                                    words(stage.input) + " to " + words(stage.output), kRebuild});
}

}  // namespace

Engine::Engine(std::shared_ptr<const Gpu> gpu, const Plan& plan,
               std::shared_ptr<const DeviceWeights> weights)
    : gpu_(std::move(gpu)), plan_(plan), weights_(std::move(weights)) {}

// Once the other constructor is done, the destructor runs even where this one throws.
Engine::Engine(std::shared_ptr<const Gpu> gpu, const Library& library, const Plan& plan,
               const std::vector<std::byte>& serialised,
               std::shared_ptr<const DeviceWeights> weights)
    : Engine(std::move(gpu), plan, std::move(weights)) {
  for (const Binding& binding : plan_.bindings) {
    if (binding.role == "weight" && weights_ != nullptr) {
      addresses_[binding.name] = weights_->address(binding);
    }
  }
  const Current current(*gpu_);
  const Messages messages;
  runtime_ = create_runtime(library);
  // Such a plan brings the code that runs it; its digest was checked with the bundle's.
  if (plan_.version_compatible) runtime_->setEngineHostCodeAllowed(true);
  engine_.reset(runtime_->deserializeCudaEngine(serialised.data(), serialised.size()));
  if (engine_ == nullptr) {
    throw messages.error("TensorRT does not load the plan" + gpu_->memory_words(), plan_.file,
                         kRebuild);
  }
  check_names(messages);
  find_batches(messages);
}

Engine::~Engine() {
  release_on(*gpu_, [this](const DriverCalls&) {
    engine_.reset();
    runtime_.reset();
  });
}

std::vector<std::string> Engine::inputs() const {
  std::vector<std::string> names;
  for (const Binding& binding : plan_.bindings) {
    if (binding.role == "input") names.push_back(binding.name);
  }
  return names;
}

nvinfer1::Dims Engine::shape(const std::string& tensor) const {
  return engine_->getTensorShape(tensor.c_str());
}

std::size_t Engine::largest() const {
  std::size_t most = 0;
  for (const Batches& batches : profiles_) most = std::max(most, batches.largest);
  return most;
}

Chosen Engine::profile_for(std::size_t rows) const {
  using Waste = std::tuple<std::size_t, std::size_t, std::size_t>;
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  Waste best{most, most, most};
  for (std::size_t index = 0; index < profiles_.size(); ++index) {
    const Batches& batches = profiles_[index];
    if (rows > batches.largest) continue;
    best = std::min(
        best, Waste{std::max(rows, batches.smallest), batches.largest - batches.smallest, index});
  }
  return {std::get<2>(best), std::get<0>(best)};
}

Route Engine::route(const Stage& stage) const {
  const bool halves = plan_.weights == "one-plan", decodes = stage.name == "decoder";
  Route route;
  route.source = halves && decodes ? kCodeIn : stage.input.name;
  route.target = stage.output.name;
  route.steps = {route.source};
  if (halves && stage.name == "autoencoder") route.steps.push_back(kCodeIn);
  for (const auto& [name, spec] :
       {std::pair{route.source, &stage.input}, std::pair{route.target, &stage.output}}) {
    const Binding* binding = data(name);
    if (binding == nullptr) throw not_of(plan_.file, stage, "no " + name);
    if (binding->type != spec->type || elements(name) != spec->element_count()) {
      throw not_of(plan_.file, stage,
                   name + ": " + name_of(binding->type) + ", " + std::to_string(elements(name)) +
                       " elements a row");
    }
  }
  std::set<std::size_t> sizes;
  for (const Binding& binding : plan_.bindings) {
    if (binding.role == "weight" || binding.name == route.source || binding.name == route.target) {
      continue;
    }
    route.between.push_back(binding.name);
    route.code_bytes = elements(binding.name) * size_of(binding.type);
    sizes.insert(route.code_bytes);
  }
  if (route.steps.size() > 1 && sizes.size() != 1) {
    throw not_of(plan_.file, stage, "halves whose codes differ in size");
  }
  return route;
}

std::unique_ptr<nvinfer1::IExecutionContext> Engine::context(std::size_t profile,
                                                             const Stream& stream) const {
  const Messages messages;
#ifdef TRT_MAJOR_RTX
  // RTX runs general kernels while it compiles those for a new shape; a context whose work will
  // be captured waits for the final ones instead.
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
  if (config == nullptr) throw messages.error("TensorRT makes no configuration", plan_.file);
  config->setDynamicShapesKernelSpecializationStrategy(
      nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
  std::unique_ptr<nvinfer1::IExecutionContext> made(engine_->createExecutionContext(config.get()));
#else
  std::unique_ptr<nvinfer1::IExecutionContext> made(engine_->createExecutionContext());
#endif
  if (made == nullptr) {
    throw messages.error("TensorRT makes no context, which takes " +
                             std::to_string(engine_->getDeviceMemorySizeV2()) + " bytes" +
                             gpu_->memory_words(),
                         plan_.file, "nvidia-smi shows who holds the GPU's memory");
  }
  if (!made->setOptimizationProfileAsync(static_cast<std::int32_t>(profile),
                                         static_cast<cudaStream_t>(stream.handle()))) {
    throw messages.error("TensorRT refused profile " + std::to_string(profile), plan_.file);
  }
  stream.wait();
  return made;
}

void Engine::find_batches(const Messages& messages) {
  const auto profiles = static_cast<std::size_t>(engine_->getNbOptimizationProfiles());
  const std::vector<std::string> names = inputs();
  for (std::size_t index = 0; index < profiles; ++index) {
    std::int64_t smallest = 0, largest = std::numeric_limits<std::int32_t>::max();
    for (const std::string& name : names) {
      const auto batch = [&](nvinfer1::OptProfileSelector which) {
        const nvinfer1::Dims dims =
            engine_->getProfileShape(name.c_str(), static_cast<std::int32_t>(index), which);
        return dims.nbDims < 1 ? std::int64_t{-1} : static_cast<std::int64_t>(dims.d[0]);
      };
      smallest = std::max(smallest, batch(nvinfer1::OptProfileSelector::kMIN));
      largest = std::min(largest, batch(nvinfer1::OptProfileSelector::kMAX));
    }
    // Where a plan has two inputs, one idles, with no rows.
    if (largest < 1 || smallest > largest || (names.size() > 1 && smallest > 0)) {
      throw messages.error("profile " + std::to_string(index) + " takes " +
                               std::to_string(smallest) + " to " + std::to_string(largest) +
                               " rows, which no stage runs in",
                           plan_.file, kRebuild);
    }
    profiles_.push_back({static_cast<std::size_t>(smallest), static_cast<std::size_t>(largest)});
  }
  if (profiles_.empty()) throw messages.error("the plan has no profile", plan_.file, kRebuild);
}

void Engine::check_names(const Messages& messages) const {
  std::set<std::string> ours, theirs;
  for (const Binding& binding : plan_.bindings) ours.insert(binding.name);
  for (std::int32_t index = 0; index < engine_->getNbIOTensors(); ++index) {
    theirs.insert(engine_->getIOTensorName(index));
  }
  if (ours != theirs) throw messages.error("plan and manifest differ in their tensors", plan_.file);
  for (const Binding& binding : plan_.bindings) {
    if (engine_->getTensorDataType(binding.name.c_str()) != data_type(binding.type)) {
      throw messages.error("plan and manifest differ in the type of " + binding.name, plan_.file);
    }
  }
}

const Binding* Engine::data(const std::string& name) const {
  for (const Binding& binding : plan_.bindings) {
    if (binding.name == name && binding.role != "weight") return &binding;
  }
  return nullptr;
}

std::size_t Engine::elements(const std::string& tensor) const {
  const nvinfer1::Dims dims = shape(tensor);
  std::size_t count = dims.nbDims < 1 ? 0 : 1;
  for (int axis = 1; axis < dims.nbDims; ++axis) {
    const auto n = static_cast<std::size_t>(std::max<std::int64_t>(dims.d[axis], 0));
    if (n != 0 && count > std::numeric_limits<std::size_t>::max() / 8 / n) return 0;
    count *= n;
  }
  return count;
}

}  // namespace tiedexport::internal::tensorrt
