#include "tensorrt/gpu.hpp"

#include <cstring>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

constexpr int kOutOfMemory = 2;
constexpr unsigned kNonBlocking = 1;    // CU_STREAM_NON_BLOCKING
constexpr unsigned kWithoutTiming = 2;  // CU_EVENT_DISABLE_TIMING
// CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile.
constexpr int kThreadLocal = 1;

}  // namespace

Gpu::Gpu(std::shared_ptr<const DriverCalls> driver, Device device)
    : driver_(std::move(driver)), device_(std::move(device)) {
  check(driver_->device(&handle_, device_.ordinal), "the device is not there any more");
  check(driver_->context_retain(&context_, handle_), "the device gives no context");
}

Gpu::~Gpu() { driver_->context_release(handle_); }

void Gpu::check(int code, const std::string& what) const {
  if (code == 0) return;
  const bool memory = code == kOutOfMemory;
  Trouble trouble{what, device_.name, words_of(*driver_, code), "", "nvidia-smi must work"};
  if (memory) {
    trouble.got += memory_words();
    trouble.hint =
        "nvidia-smi shows who holds the GPU's memory: close what is not needed, or build for "
        "smaller batches (--maxShapes)";
  }
  throw Error(memory ? TIEDEXPORT_OUT_OF_MEMORY : TIEDEXPORT_BACKEND_FAILED, trouble);
}

std::string Gpu::memory_words() const {
  std::size_t free_bytes = 0, total_bytes = 0;
  // Asked for while something else fails: no answer must not hide that.
  if (driver_->memory_info(&free_bytes, &total_bytes) != 0) return "";
  return "; of the device's " + std::to_string(total_bytes) + " bytes, " +
         std::to_string(free_bytes) + " are free";
}

Current::Current(const Gpu& gpu) : gpu_(gpu) {
  gpu.check(gpu.driver().context_push(gpu.context()), "the device cannot be made current");
}

Current::~Current() {
  Handle popped = nullptr;
  gpu_.driver().context_pop(&popped);
}

DeviceMemory::DeviceMemory(std::shared_ptr<const Gpu> gpu, std::size_t size_bytes,
                           const std::string& what)
    : gpu_(std::move(gpu)), size_bytes_(size_bytes) {
  const Current current(*gpu_);
  gpu_->check(gpu_->driver().allocate(&address_, size_bytes),
              "no device memory for " + what + ", " + std::to_string(size_bytes) + " bytes");
}

DeviceMemory::~DeviceMemory() {
  release_on(*gpu_, [&](const DriverCalls& driver) { driver.free(address_); });
}

PinnedMemory::PinnedMemory(std::shared_ptr<const Gpu> gpu, std::size_t size_bytes,
                           const std::string& what)
    : gpu_(std::move(gpu)) {
  const Current current(*gpu_);
  gpu_->check(gpu_->driver().allocate_pinned(&data_, size_bytes),
              "no pinned host memory for " + what + ", " + std::to_string(size_bytes) + " bytes");
  std::memset(data_, 0, size_bytes);
}

PinnedMemory::~PinnedMemory() {
  release_on(*gpu_, [&](const DriverCalls& driver) { driver.free_pinned(data_); });
}

Stream::Stream(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {
  const Current current(*gpu_);
  gpu_->check(gpu_->driver().stream_create(&handle_, kNonBlocking), "no stream could be made");
}

Stream::~Stream() {
  release_on(*gpu_, [&](const DriverCalls& driver) {
    driver.stream_synchronize(handle_);
    driver.stream_destroy(handle_);
  });
}

void Stream::copy_in(Address to, const void* from, std::size_t size_bytes) const {
  gpu_->check(gpu_->driver().copy_in(to, from, size_bytes, handle_), "a copy to the device failed");
}

void Stream::copy_out(void* to, Address from, std::size_t size_bytes) const {
  gpu_->check(gpu_->driver().copy_out(to, from, size_bytes, handle_),
              "a copy from the device failed");
}

void Stream::wait() const {
  gpu_->check(gpu_->driver().stream_synchronize(handle_), "the device failed");
}

Event::Event(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {
  const Current current(*gpu_);
  gpu_->check(gpu_->driver().event_create(&handle_, kWithoutTiming), "no event could be made");
}

Event::~Event() {
  release_on(*gpu_, [&](const DriverCalls& driver) {
    if (recorded_) driver.event_synchronize(handle_);
    driver.event_destroy(handle_);
  });
}

void Event::record(Handle stream) {
  gpu_->check(gpu_->driver().event_record(handle_, stream), "an event could not be recorded");
  recorded_ = true;
}

void Event::try_record(Handle stream) noexcept {
  if (gpu_->driver().event_record(handle_, stream) == 0) recorded_ = true;
}

void Event::let_wait(Handle stream) const {
  if (!recorded_) return;
  gpu_->check(gpu_->driver().stream_wait(stream, handle_, 0), "the stream cannot wait");
}

Graph::~Graph() {
  release_on(*gpu_,
             [&](const DriverCalls& driver) { driver.graph_executable_destroy(executable_); });
}

void Graph::launch(const Stream& stream) const {
  gpu_->check(gpu_->driver().graph_launch(executable_, stream.handle()),
              "the CUDA graph could not be launched");
}

void Graph::begin(const Stream& stream) const {
  gpu_->check(gpu_->driver().capture_begin(stream.handle(), kThreadLocal),
              "the stream cannot be captured");
}

void Graph::abandon(const Stream& stream) const noexcept {
  Handle graph = nullptr;
  // Ending a capture that went wrong reports that once more.
  gpu_->driver().capture_end(stream.handle(), &graph);
  if (graph != nullptr) gpu_->driver().graph_destroy(graph);
}

void Graph::end(const Stream& stream) {
  Handle graph = nullptr;
  gpu_->check(gpu_->driver().capture_end(stream.handle(), &graph), "the capture failed");
  const int code = gpu_->driver().graph_instantiate(&executable_, graph, 0);
  gpu_->driver().graph_destroy(graph);
  gpu_->check(code, "the captured work makes no CUDA graph");
}

}  // namespace tiedexport::internal::tensorrt
