// The one interface behind every session, and the table of what implements it.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"

namespace tiedexport::internal {

/// What a session was asked for; see tiedexport_session_options.
struct Options {
  Type precision = Type::fp32;
  int threads = 0;   // 0: one for each processor that this process may run on
  int device = 0;    // of a GPU backend
  std::string simd;  // "": the best here; else an instruction set that Highway names
};

/// A bundle opened in one library. Calls may come from many threads at once.
class Backend {
 public:
  virtual ~Backend() = default;
  /// Runs `stage` on host memory: `input` and `output` hold `batch` (> 0) samples, densely packed.
  virtual void run(const Stage& stage, std::size_t batch, const void* input, void* output) = 0;
  /// Enqueues `stage` on the caller's CUDA stream; device memory; returns at once.
  virtual void enqueue(const Stage& stage, std::size_t batch, const void* device_input,
                       void* device_output, void* stream);  // throws UNSUPPORTED by default
  /// One line on how it runs: instruction set, threads, device, library version.
  virtual std::string description() const = 0;
};

/// Whether a backend works on this machine, and if not, why and what to do.
struct Availability {
  bool available = false;
  std::string version, reason, remedy;
};

/// One row of the table. Functions, not objects: nothing runs before it is asked for.
struct BackendRow {
  const char* name;
  int rank;  // "auto" takes the lowest that is available and does not refuse
  Availability (*availability)();
  /// Why it cannot run this bundle in this precision, or "".
  std::string (*refusal)(const Bundle&, Type precision);
  std::unique_ptr<Backend> (*open)(std::shared_ptr<const Bundle>, const Options&);
  /// Best first, of which a session without a wish takes the first that is stored and not refused.
  /// What nobody asked for does not round, but on a GPU, whose users expect half precision.
  std::array<Type, 3> precisions = {Type::fp32, Type::fp16, Type::bf16};
};

/// Every backend this library knows, compiled in or not, lowest rank first.
const std::vector<BackendRow>& backends();

// One function a backend; those without headers at build time are rows that say so.
BackendRow native_backend();
BackendRow tensorrt_backend();
BackendRow onnxruntime_backend();

}  // namespace tiedexport::internal
