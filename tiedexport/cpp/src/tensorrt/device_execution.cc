#include "tensorrt/device_execution.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

constexpr std::size_t kAlignment = 256;  // what IExecutionContext::setTensorAddress asks for

std::size_t row_bytes(const TensorSpec& spec) { return spec.element_count() * size_of(spec.type); }

/// The fewest rows after which an address is aligned again.
std::size_t aligned_rows(std::size_t bytes) { return kAlignment / std::gcd(kAlignment, bytes); }

}  // namespace

DeviceExecution::Turn::Turn(const Engine& engine, const Route& route, std::size_t profile,
                            const Stream& stream)
    : lane(engine, route, profile, stream), done(engine.gpu()) {}

DeviceExecution::DeviceExecution(std::shared_ptr<const Engine> engine, const Stage& stage)
    : engine_(std::move(engine)),
      route_(engine_->route(stage)),
      input_bytes_(row_bytes(stage.input)),
      output_bytes_(row_bytes(stage.output)) {}

void DeviceExecution::enqueue(std::size_t rows, Address input, Address output, Handle stream) {
  refuse_unaligned(input, "input");
  refuse_unaligned(output, "output");
  const std::lock_guard<std::mutex> lock(mutex_);
  const Current current(*engine_->gpu());
  const std::size_t most = rows <= engine_->largest() ? rows : rows_at_once();
  while (rows > 0) {
    const std::size_t some = std::min(rows, most);
    enqueue_at_once(some, input, output, stream);
    input += some * input_bytes_;
    output += some * output_bytes_;
    rows -= some;
  }
}

void DeviceExecution::enqueue_at_once(std::size_t rows, Address input, Address output,
                                      Handle stream) {
  const Chosen chosen = engine_->profile_for(rows);
  if (chosen.rows != rows) {
    throw Error(TIEDEXPORT_UNSUPPORTED,
                {"the plan's smallest batch is larger, and only host memory is filled up",
                 engine_->file(), std::to_string(rows) + " rows",
                 std::to_string(chosen.rows) + " rows or more", "tiedexport build --minShapes"});
  }
  const Gpu& gpu = *engine_->gpu();
  int capturing = 0;
  gpu.check(gpu.driver().stream_capturing(stream, &capturing), "the stream cannot be used");
  if (capturing != 0) {
    hand_to_capture(chosen.profile, rows);
    captured_.back()->lane.set_addresses(input, output);
    captured_.back()->lane.enqueue(stream);
    return;
  }
  if (stream_ == nullptr) stream_ = std::make_unique<Stream>(engine_->gpu());
  std::unique_ptr<Turn>& turn = turns_[chosen.profile];
  if (turn == nullptr) {
    turn = std::make_unique<Turn>(*engine_, route_, chosen.profile, *stream_);
  }
  turn->done.let_wait(stream);
  turn->lane.set_rows(rows);
  turn->lane.set_addresses(input, output);
  try {
    turn->lane.enqueue(stream);
  } catch (...) {
    turn->done.try_record(stream);  // of two steps, the first may be under way
    throw;
  }
  turn->done.record(stream);
}

void DeviceExecution::hand_to_capture(std::size_t profile, std::size_t rows) {
  const auto warm = turns_.find(profile);
  if (warm == turns_.end() || warm->second == nullptr || warm->second->lane.rows() != rows) {
    throw Error(TIEDEXPORT_UNSUPPORTED,
                {"a first execution loads kernels, which no capture can hold", engine_->file(),
                 std::to_string(rows) + " rows on a stream that is being captured",
                 "the same batch enqueued just before the capture, and waited for",
                 "enqueue once, synchronize, then begin the capture"});
  }
  captured_.push_back(std::move(warm->second));
  turns_.erase(warm);
}

std::size_t DeviceExecution::rows_at_once() const {
  // Both counts are powers of two, so the larger one serves both.
  const std::size_t step = std::max(aligned_rows(input_bytes_), aligned_rows(output_bytes_));
  const std::size_t most = engine_->largest() / step * step;
  if (most > 0) return most;
  throw Error(TIEDEXPORT_UNSUPPORTED,
              {"a batch larger than the plan's largest can only be cut where rows are aligned",
               engine_->file(), "at most " + std::to_string(engine_->largest()) + " rows at once",
               std::to_string(step) + " rows or more", "tiedexport build --maxShapes"});
}

void DeviceExecution::refuse_unaligned(Address address, const char* what) const {
  if (address != 0 && address % kAlignment == 0) return;
  throw Error(TIEDEXPORT_INVALID_ARGUMENT,
              {"TensorRT does not take this device address", what, std::to_string(address),
               "a multiple of 256", "cudaMalloc gives such addresses"});
}

}  // namespace tiedexport::internal::tensorrt
