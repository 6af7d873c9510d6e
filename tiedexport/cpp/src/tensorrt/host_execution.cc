#include "tensorrt/host_execution.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

std::size_t row_bytes(const TensorSpec& spec) { return spec.element_count() * size_of(spec.type); }

}  // namespace

HostExecution::HostExecution(std::shared_ptr<const Engine> engine, const Stage& stage)
    : engine_(std::move(engine)),
      route_(engine_->route(stage)),
      input_bytes_(row_bytes(stage.input)),
      output_bytes_(row_bytes(stage.output)) {}

HostExecution::Port::Port(const Engine& engine, const std::string& name, std::size_t bytes)
    : device(engine.gpu(), bytes, name + " of " + engine.file()),
      pinned(engine.gpu(), bytes, name + " of " + engine.file()) {}

void HostExecution::run(std::size_t rows, const void* input, void* output) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Current current(*engine_->gpu());
  allocate();
  const auto* from = static_cast<const std::byte*>(input);
  auto* to = static_cast<std::byte*>(output);
  try {
    while (rows > 0) {
      const std::size_t some = std::min(rows, engine_->largest());
      run_at_once(some, from, to);
      from += some * input_bytes_;
      to += some * output_bytes_;
      rows -= some;
    }
  } catch (...) {
    abandon();
    throw;
  }
}

std::string HostExecution::capture_failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return capture_failure_;
}

void HostExecution::allocate() {
  if (target_ != nullptr) return;
  const std::size_t rows = engine_->largest();
  if (stream_ == nullptr) stream_ = std::make_unique<Stream>(engine_->gpu());
  source_ = std::make_unique<Port>(*engine_, route_.source, rows * input_bytes_);
  target_ = std::make_unique<Port>(*engine_, route_.target, rows * output_bytes_);
}

void HostExecution::run_at_once(std::size_t rows, const void* input, void* output) {
  prepare(rows);
  std::memcpy(source_->pinned.data(), input, rows * input_bytes_);
  if (graph_ == nullptr && calls_ == 1 && capture_failure_.empty()) try_capture();
  if (graph_ != nullptr) {
    graph_->launch(*stream_);
  } else {
    enqueue();
  }
  stream_->wait();
  std::memcpy(output, target_->pinned.data(), rows * output_bytes_);
  ++calls_;
}

void HostExecution::prepare(std::size_t rows) {
  const Chosen chosen = engine_->profile_for(rows);
  if (ready_ && ready_->profile == chosen.profile && ready_->rows == chosen.rows) return;
  ready_.reset();
  graph_.reset();
  calls_ = 0;
  std::unique_ptr<Lane>& lane = lanes_[chosen.profile];
  if (lane == nullptr) {
    auto made = std::make_unique<Lane>(*engine_, route_, chosen.profile, *stream_);
    made->set_addresses(source_->device.address(), target_->device.address());
    lane = std::move(made);
  }
  lane->set_rows(chosen.rows);
  ready_ = chosen;
}

void HostExecution::enqueue() {
  stream_->copy_in(source_->device.address(), source_->pinned.data(), ready_->rows * input_bytes_);
  lanes_.at(ready_->profile)->enqueue(stream_->handle());
  stream_->copy_out(target_->pinned.data(), target_->device.address(),
                    ready_->rows * output_bytes_);
}

void HostExecution::try_capture() {
  try {
    graph_ = std::make_unique<Graph>(engine_->gpu(), *stream_, [this] { enqueue(); });
  } catch (const Error& error) {
    capture_failure_ = error.what();
  }
}

void HostExecution::abandon() noexcept {
  // A call that failed half-way may have left copies behind; whatever they say was said already.
  engine_->gpu()->driver().stream_synchronize(stream_->handle());
  graph_.reset();
  ready_.reset();
}

}  // namespace tiedexport::internal::tensorrt
