// One ONNX Runtime session a stage, over weights where they are mapped.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"

namespace tiedexport::internal::onnxruntime {

/// Frees an object of ONNX Runtime.
template <class T>
class Release {
 public:
  using Call = void(ORT_API_CALL*)(T*);

  Release() = default;
  explicit Release(Call call) : call_(call) {}
  void operator()(T* object) const noexcept { call_(object); }

 private:
  Call call_ = nullptr;
};

template <class T>
using Owned = std::unique_ptr<T, Release<T>>;

/// Throws Error (BACKEND_FAILED) in ONNX Runtime's words if `status` is no success; frees it.
void check(const OrtApi& api, OrtStatus* status, const std::string& where);

/// What all sessions of a backend share: ONNX Runtime's environment, and where the weights lie.
class Environment {
 public:
  /// Throws Error: what the bundle throws when its weights are mapped, or BACKEND_FAILED.
  Environment(const OrtApi& api, std::shared_ptr<const Bundle> bundle, Type precision, int threads);

  const OrtApi& api() const { return api_; }
  const Bundle& bundle() const { return *bundle_; }
  const Weights& weights() const { return *weights_; }
  Type precision() const { return precision_; }
  const OrtMemoryInfo* memory() const { return memory_.get(); }
  const OrtEnv* get() const { return environment_.get(); }
  /// Options for one copy of every weight, as in tiedexport/runtimes/onnxruntime.py.
  Owned<OrtSessionOptions> options() const;
  /// A tensor over memory that outlives it; `batch` is the first axis.
  Owned<OrtValue> tensor(void* data, Type type, const std::vector<std::size_t>& shape,
                         const std::string& where) const;

 private:
  const OrtApi& api_;
  std::shared_ptr<const Bundle> bundle_;
  std::shared_ptr<const Weights> weights_;
  Type precision_;
  int threads_;
  Owned<OrtEnv> environment_;
  Owned<OrtMemoryInfo> memory_;
};

/// A stage, ready to run; from many threads at once.
class Session {
 public:
  /// Throws Error: what Bundle::read throws, or BACKEND_FAILED. `environment` outlives it.
  Session(const Environment& environment, const Stage& stage);

  void run(std::size_t batch, const void* input, void* output) const;

 private:
  const Environment& environment_;
  const Stage& stage_;
  std::vector<Owned<OrtValue>> initializers_;  // which the session refers to
  Owned<OrtSession> session_;
};

}  // namespace tiedexport::internal::onnxruntime
