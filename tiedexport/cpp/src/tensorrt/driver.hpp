// The CUDA driver, loaded when it is first asked for. NVIDIA's headers are not needed here: these
// calls have kept their names and signatures since CUDA 11.4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tiedexport::internal::tensorrt {

using Address = std::uint64_t;  // CUdeviceptr
using Handle = void*;           // CUcontext, CUstream, CUevent, CUgraph, CUgraphExec

/// The driver's entry points; each returns a CUresult, 0 for success.
struct DriverCalls {
  int (*init)(unsigned flags) = nullptr;
  int (*version)(int* version) = nullptr;
  int (*error_name)(int code, const char** words) = nullptr;
  int (*error_string)(int code, const char** words) = nullptr;
  int (*device_count)(int* count) = nullptr;
  int (*device)(int* device, int index) = nullptr;
  int (*device_name)(char* name, int size, int device) = nullptr;
  int (*device_attribute)(int* value, int attribute, int device) = nullptr;
  int (*context_retain)(Handle* context, int device) = nullptr;
  int (*context_release)(int device) = nullptr;
  int (*context_push)(Handle context) = nullptr;
  int (*context_pop)(Handle* context) = nullptr;
  int (*memory_info)(std::size_t* free_bytes, std::size_t* total_bytes) = nullptr;
  int (*allocate)(Address* address, std::size_t size_bytes) = nullptr;
  int (*free)(Address address) = nullptr;
  int (*allocate_pinned)(void** address, std::size_t size_bytes) = nullptr;
  int (*free_pinned)(void* address) = nullptr;
  int (*copy_in)(Address to, const void* from, std::size_t size_bytes, Handle stream) = nullptr;
  int (*copy_out)(void* to, Address from, std::size_t size_bytes, Handle stream) = nullptr;
  int (*stream_create)(Handle* stream, unsigned flags) = nullptr;
  int (*stream_destroy)(Handle stream) = nullptr;
  int (*stream_synchronize)(Handle stream) = nullptr;
  int (*stream_wait)(Handle stream, Handle event, unsigned flags) = nullptr;
  int (*stream_capturing)(Handle stream, int* status) = nullptr;
  int (*capture_begin)(Handle stream, int mode) = nullptr;
  int (*capture_end)(Handle stream, Handle* graph) = nullptr;
  int (*event_create)(Handle* event, unsigned flags) = nullptr;
  int (*event_destroy)(Handle event) = nullptr;
  int (*event_record)(Handle event, Handle stream) = nullptr;
  int (*event_synchronize)(Handle event) = nullptr;
  int (*graph_instantiate)(Handle* executable, Handle graph, unsigned long long flags) = nullptr;
  int (*graph_destroy)(Handle graph) = nullptr;
  int (*graph_launch)(Handle executable, Handle stream) = nullptr;
  int (*graph_executable_destroy)(Handle executable) = nullptr;
};

/// A GPU as the driver shows it; compute capability 8.9 is 89.
struct Device {
  int ordinal = 0;
  std::string name;
  int compute_capability = 0;
};

/// A driver that works and its devices, or why there is none and what to do.
struct Probe {
  std::shared_ptr<const DriverCalls> driver;
  int cuda = 0;  // the newest CUDA whose programs it runs: 13020 is 13.2
  std::vector<Device> devices;
  std::string reason, remedy;
};

/// Asks the driver: it must load, start, be new enough and show a device. The library stays loaded.
Probe probe_driver();

/// "CUDA_ERROR_OUT_OF_MEMORY: out of memory (2)"
std::string words_of(const DriverCalls& driver, int code);

/// 13020 → "13.2"
std::string cuda_version(int number);

}  // namespace tiedexport::internal::tensorrt
