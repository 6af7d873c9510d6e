#include "nvinfer_double.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <vector>

#include "cuda_double.hpp"
#include "no_nvinfer.hpp"
#include "plan_text.hpp"

namespace tiedexport::doubles {
namespace {

constexpr std::int64_t kMostRows = 1024;

NvinferDouble state;
std::mutex mutex;
ILogger* logged_to = nullptr;

void log(const std::string& words) {
  logged_to->log(ILogger::Severity::kINFO, "words that no error has");
  logged_to->log(ILogger::Severity::kERROR, words.c_str());
}

void count(int* counter, int change) {
  const std::lock_guard<std::mutex> lock(mutex);
  *counter += change;
}

/// What TensorRT leaves undefined, the double remembers.
void require(bool kept, const char* rule) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!kept && state.misuse.empty()) state.misuse = rule;
}

/// What a context holds, as an execution that is enqueued takes it with it.
struct Bound {
  std::map<std::string, float*> addresses;
  std::map<std::string, std::int64_t> rows;  // of each input
};

void dense(const Bound& bound, const PlanText& plan, const Step& step) {
  std::istringstream detail(step.detail);
  std::string weight, orientation;
  detail >> weight >> orientation;
  const bool transposed = orientation == "transposed";
  const float *from = bound.addresses.at(step.from), *matrix = bound.addresses.at(weight);
  float* to = bound.addresses.at(step.to);
  const std::int64_t inner = plan.columns(step.from), outer = plan.columns(step.to);
  for (std::int64_t row = 0; row < bound.rows.at(step.from); ++row) {
    for (std::int64_t i = 0; i < outer; ++i) {
      float sum = 0;
      for (std::int64_t k = 0; k < inner; ++k) {
        sum += from[row * inner + k] * (transposed ? matrix[k * outer + i] : matrix[i * inner + k]);
      }
      to[row * outer + i] = sum;
    }
  }
}

void scale(const Bound& bound, const PlanText& plan, const Step& step) {
  const float factor = std::stof(step.detail), *from = bound.addresses.at(step.from);
  float* to = bound.addresses.at(step.to);
  const std::int64_t inner = plan.columns(step.from), outer = plan.columns(step.to);
  for (std::int64_t row = 0; row < bound.rows.at(step.from); ++row) {
    for (std::int64_t i = 0; i < outer; ++i) {
      to[row * outer + i] = factor * from[row * inner + i % inner];
    }
  }
}

class Context final : public IExecutionContext {
 public:
  explicit Context(std::shared_ptr<const PlanText> plan) : entries_(std::move(plan)) {
    mImpl = &entries_;
    count(&state.contexts, 1);
  }
  ~Context() noexcept override {
    require(cuda_double_is_current(), "a context destroyed without a current device");
    count(&state.contexts, -1);
  }

 private:
  class Entries final : public NoContext {
   public:
    explicit Entries(std::shared_ptr<const PlanText> plan) : plan_(std::move(plan)) {}

    bool setOptimizationProfileAsync(int32_t index, cudaStream_t) noexcept final {
      profile_ = index;
      return plan_->profiles.count(index) == 1;
    }
    bool setInputShape(char const* name, Dims const& dims) noexcept final {
      const auto [least, most] = plan_->profiles.at(profile_).at(name);
      if (dims.d[0] < least || dims.d[0] > most) {
        log("a batch outside of the profile");
        return false;
      }
      bound_.rows[name] = dims.d[0];
      return true;
    }
    bool setTensorAddress(char const* name, void* address) noexcept final {
      if (reinterpret_cast<std::uintptr_t>(address) % 256 != 0) {
        log("an address that is not aligned");
        return false;
      }
      bound_.addresses[name] = static_cast<float*>(address);
      return true;
    }
    bool enqueueV3(cudaStream_t stream) noexcept final {
      require(cuda_double_is_current(), "an execution without a current device");
      const bool capturing = cuda_double_is_capturing(stream);
      require(!capturing || warm_, "an execution was captured before any had run");
      if (!state.runs || (capturing && !state.captures)) {
        log("the double was told not to run");
        return false;
      }
      for (const TensorText& tensor : plan_->tensors) {
        require(bound_.addresses[tensor.name] != nullptr, "a tensor without an address");
      }
      warm_ = true;
      cuda_double_enqueue(stream, [plan = plan_, bound = bound_] { execute(*plan, bound); });
      return true;
    }

   private:
    static void execute(const PlanText& plan, Bound bound) {
      count(&state.executions, 1);
      std::map<std::string, std::vector<float>> hidden;
      for (const auto& [name, columns] : plan.hidden) {
        hidden[name].resize(static_cast<std::size_t>(columns * kMostRows));
        bound.addresses[name] = hidden[name].data();
      }
      for (const Step& step : plan.steps) {
        step.op == "dense" ? dense(bound, plan, step) : scale(bound, plan, step);
        bound.rows[step.to] = bound.rows.at(step.from);
      }
    }

    std::shared_ptr<const PlanText> plan_;
    Bound bound_;
    int32_t profile_ = 0;
    bool warm_ = false;
  };
  Entries entries_;
};

class EngineDouble final : public ICudaEngine {
 public:
  explicit EngineDouble(const std::string& text) : entries_(text) {
    mImpl = &entries_;
    count(&state.engines, 1);
    count(&state.deserialised, 1);
  }
  ~EngineDouble() noexcept override {
    require(cuda_double_is_current(), "an engine destroyed without a current device");
    require(state.runtimes > 0, "an engine outlived its runtime");
    count(&state.engines, -1);
  }

 private:
  class Entries final : public NoEngine {
   public:
    explicit Entries(const std::string& text) : plan_(std::make_shared<PlanText>(text)) {}

    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept final {
      if (state.makes_contexts) return new Context(plan_);
      log("no memory for a context");
      return nullptr;
    }
    int32_t getNbIOTensors() const noexcept final {
      return static_cast<int32_t>(plan_->tensors.size());
    }
    char const* getIOTensorName(int32_t index) const noexcept final {
      return plan_->tensors[static_cast<std::size_t>(index)].name.c_str();
    }
    DataType getTensorDataType(char const* name) const noexcept final {
      return plan_->tensor(name)->type;
    }
    Dims getTensorShape(char const* name) const noexcept final { return plan_->tensor(name)->dims; }
    int32_t getNbOptimizationProfiles() const noexcept final {
      return static_cast<int32_t>(plan_->profiles.size());
    }
    Dims getProfileShape(char const* name, int32_t index,
                         OptProfileSelector which) const noexcept final {
      Dims dims = plan_->tensor(name)->dims;
      const auto [least, most] = plan_->profiles.at(index).at(name);
      dims.d[0] = which == OptProfileSelector::kMIN ? least : most;
      return dims;
    }

   private:
    std::shared_ptr<const PlanText> plan_;
  };
  Entries entries_;
};

class RuntimeDouble final : public IRuntime {
 public:
  RuntimeDouble() {
    mImpl = &entries_;
    count(&state.runtimes, 1);
  }
  ~RuntimeDouble() noexcept override { count(&state.runtimes, -1); }

 private:
  class Entries final : public NoRuntime {
   public:
    ICudaEngine* deserializeCudaEngine(void const* bytes, std::size_t size) noexcept final {
      require(cuda_double_is_current(), "a plan loaded without a current device");
      const std::string text(static_cast<const char*>(bytes), size);
      if (text.rfind("tensor ", 0) == 0) return new EngineDouble(text);
      log("the plan has no magic tag");
      log("the plan has no magic tag");
      return nullptr;
    }
    void setEngineHostCodeAllowed(bool allowed) noexcept final {
      state.host_code_allowed += allowed ? 1 : 0;
    }
  };
  Entries entries_;
};

}  // namespace
}  // namespace tiedexport::doubles

using tiedexport::doubles::state;

extern "C" {

tiedexport::doubles::NvinferDouble* nvinfer_double() { return &state; }

void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
  // The runtime of TensorRT would be an invalid pointer here.
  tiedexport::doubles::require(cuda_double_is_current(), "a runtime without a current device");
  tiedexport::doubles::logged_to = static_cast<nvinfer1::ILogger*>(logger);
  if (state.makes_runtimes) return new tiedexport::doubles::RuntimeDouble;
  tiedexport::doubles::log("CUDA initialization failure");
  return nullptr;
}

int32_t getInferLibMajorVersion() noexcept {
  return state.major == 0 ? NV_TENSORRT_MAJOR : state.major;
}
int32_t getInferLibMinorVersion() noexcept { return state.minor; }
int32_t getInferLibPatchVersion() noexcept { return state.patch; }
int32_t getInferLibBuildVersion() noexcept { return state.build; }

cudaError_t cudaRuntimeGetVersion(int* version) {
  ++state.asked_for_cuda;
  *version = state.cuda;
  return cudaSuccess;
}

}  // extern "C"
