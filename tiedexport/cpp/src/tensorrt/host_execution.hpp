// A stage on host memory: copies in, kernels, copies out, as one CUDA graph where that can be.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "tensorrt/lane.hpp"

namespace tiedexport::internal::tensorrt {

/// One stage with a stream, contexts and staging of its own: calls take turns.
///
/// A batch smaller than the profile's smallest is filled up with whatever the staging holds: rows
/// do not depend on each other, and those outputs are not handed out. The second call in a row with
/// the same batch is captured, and launched as a graph from then on; the first one compiles and
/// loads kernels, which no capture could contain.
class HostExecution {
 public:
  /// Throws Error (CORRUPT). Device memory is taken at the first call.
  HostExecution(std::shared_ptr<const Engine> engine, const Stage& stage);

  /// Runs any number of rows and waits for them.
  void run(std::size_t rows, const void* input, void* output);
  /// Why no graph is launched, in the words of what failed; "" as long as nothing did.
  std::string capture_failure() const;

 private:
  struct Port {  // the input or the output
    Port(const Engine& engine, const std::string& name, std::size_t bytes);
    DeviceMemory device;
    PinnedMemory pinned;
  };

  void allocate();
  void run_at_once(std::size_t rows, const void* input, void* output);
  void prepare(std::size_t rows);
  void enqueue();
  void try_capture();
  void abandon() noexcept;

  std::shared_ptr<const Engine> engine_;
  Route route_;
  std::size_t input_bytes_, output_bytes_;  // of a row
  mutable std::mutex mutex_;
  std::string capture_failure_;
  // In the order of making; destroyed in the reverse one: the stream last, after its work is done.
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Port> source_, target_;
  std::map<std::size_t, std::unique_ptr<Lane>> lanes_;  // by profile
  std::unique_ptr<Graph> graph_;
  std::optional<Chosen> ready_;
  std::size_t calls_ = 0;  // since ready_ changed
};

}  // namespace tiedexport::internal::tensorrt
