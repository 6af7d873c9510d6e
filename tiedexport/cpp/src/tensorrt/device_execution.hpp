// A stage on device memory, on the caller's stream.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tensorrt/lane.hpp"

namespace tiedexport::internal::tensorrt {

/// Enqueues one stage and never waits on the host. Its executions take turns on the device, on
/// whichever streams they are.
///
/// On a stream that is being captured, the batch must have been enqueued just before the capture:
/// the contexts that were warmed up so belong to the caller's graph from then on, and live until
/// this is destroyed, which must be after the graph's last launch.
class DeviceExecution {
 public:
  /// Throws Error (CORRUPT). Device memory is taken at the first call.
  DeviceExecution(std::shared_ptr<const Engine> engine, const Stage& stage);

  /// Throws Error: INVALID_ARGUMENT (addresses that TensorRT does not take), UNSUPPORTED (fewer
  /// rows than any profile, or a capture without a call before it), BACKEND_FAILED.
  void enqueue(std::size_t rows, Address input, Address output, Handle stream);

 private:
  struct Turn {  // contexts, and when the device is done with them
    Turn(const Engine& engine, const Route& route, std::size_t profile, const Stream& stream);
    Lane lane;
    Event done;  // destroyed first: it waits
  };

  void enqueue_at_once(std::size_t rows, Address input, Address output, Handle stream);
  void hand_to_capture(std::size_t profile, std::size_t rows);
  std::size_t rows_at_once() const;
  void refuse_unaligned(Address address, const char* what) const;

  std::shared_ptr<const Engine> engine_;
  Route route_;
  std::size_t input_bytes_, output_bytes_;  // of a row
  std::mutex mutex_;
  std::unique_ptr<Stream> stream_;                      // where contexts are made
  std::map<std::size_t, std::unique_ptr<Turn>> turns_;  // by profile
  std::vector<std::unique_ptr<Turn>> captured_;
};

}  // namespace tiedexport::internal::tensorrt
