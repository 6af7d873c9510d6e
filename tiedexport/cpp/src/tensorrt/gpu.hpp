// One GPU: its memory, its streams and its graphs, each freed by its owner's destructor.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "tensorrt/driver.hpp"

namespace tiedexport::internal::tensorrt {

/// A device's primary context, which TensorRT and everybody else in the process shares.
class Gpu {
 public:
  /// Throws Error (BACKEND_FAILED).
  Gpu(std::shared_ptr<const DriverCalls> driver, Device device);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const DriverCalls& driver() const { return *driver_; }
  const Device& device() const { return device_; }
  Handle context() const { return context_; }
  /// Throws Error (BACKEND_FAILED, OUT_OF_MEMORY) in the driver's words unless `code` is 0.
  void check(int code, const std::string& what) const;
  /// Free and total bytes in words, or "" if the driver does not say.
  std::string memory_words() const;

 private:
  std::shared_ptr<const DriverCalls> driver_;
  Device device_;
  int handle_ = 0;
  Handle context_ = nullptr;
};

/// Makes a device current in this thread, and after that whatever was before.
class Current {
 public:
  explicit Current(const Gpu& gpu);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Gpu& gpu_;
};

/// Runs `release` with the device current; for destructors, which have nobody to tell.
template <class Release>
void release_on(const Gpu& gpu, const Release& release) noexcept {
  Handle popped = nullptr;
  const bool pushed = gpu.driver().context_push(gpu.context()) == 0;
  release(gpu.driver());
  if (pushed) gpu.driver().context_pop(&popped);
}

/// Device memory, aligned to at least 256 bytes as every allocation of the driver is.
class DeviceMemory {
 public:
  /// `what` it is for, in words. Throws Error (OUT_OF_MEMORY).
  DeviceMemory(std::shared_ptr<const Gpu> gpu, std::size_t size_bytes, const std::string& what);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  Address address() const { return address_; }
  std::size_t size_bytes() const { return size_bytes_; }

 private:
  std::shared_ptr<const Gpu> gpu_;
  std::size_t size_bytes_;
  Address address_ = 0;
};

/// Host memory that copies need not go around; zeros at first.
class PinnedMemory {
 public:
  PinnedMemory(std::shared_ptr<const Gpu> gpu, std::size_t size_bytes, const std::string& what);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  void* data() const { return data_; }

 private:
  std::shared_ptr<const Gpu> gpu_;
  void* data_ = nullptr;
};

/// A stream that does not wait for the default stream.
class Stream {
 public:
  explicit Stream(std::shared_ptr<const Gpu> gpu);
  ~Stream();  // waits for what it still has to do
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Handle handle() const { return handle_; }
  void copy_in(Address to, const void* from, std::size_t size_bytes) const;
  void copy_out(void* to, Address from, std::size_t size_bytes) const;
  void wait() const;

 private:
  std::shared_ptr<const Gpu> gpu_;
  Handle handle_ = nullptr;
};

/// A point in some stream's work that other streams, and the destructor, wait for.
class Event {
 public:
  explicit Event(std::shared_ptr<const Gpu> gpu);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(Handle stream);
  void try_record(Handle stream) noexcept;
  /// Does nothing before the first record.
  void let_wait(Handle stream) const;

 private:
  std::shared_ptr<const Gpu> gpu_;
  Handle handle_ = nullptr;
  bool recorded_ = false;
};

/// Work that was captured once, launched as often as wanted.
class Graph {
 public:
  /// Captures what `enqueue` puts on the stream. Throws Error (BACKEND_FAILED) if that cannot be
  /// captured; the stream works as before then.
  template <class Enqueue>
  Graph(std::shared_ptr<const Gpu> gpu, const Stream& stream, const Enqueue& enqueue)
      : gpu_(std::move(gpu)) {
    begin(stream);
    try {
      enqueue();
    } catch (...) {
      abandon(stream);
      throw;
    }
    end(stream);
  }
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(const Stream& stream) const;

 private:
  void begin(const Stream& stream) const;
  void abandon(const Stream& stream) const noexcept;
  void end(const Stream& stream);

  std::shared_ptr<const Gpu> gpu_;
  Handle executable_ = nullptr;
};

}  // namespace tiedexport::internal::tensorrt
