#include "cuda_double.hpp"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

namespace {

using tiedexport::doubles::CudaDouble;
using Work = std::function<void()>;

constexpr int kInvalid = 1, kOutOfMemory = 2, kNoContext = 201;

CudaDouble state;
std::recursive_mutex mutex;
thread_local int depth = 0;  // of this thread's stack of contexts

struct Graph {
  std::vector<Work> works;
};

struct Stream {
  std::deque<Work> works;
  std::unique_ptr<Graph> captured;
};

/// One record of an event; who waits for an event waits for the record that it had then.
struct Mark {
  Stream* stream = nullptr;
  bool done = true;
};

struct Event {
  std::shared_ptr<Mark> last = std::make_shared<Mark>();
};

bool run_one(Stream* stream) {
  if (stream->works.empty()) return false;
  const Work work = stream->works.front();
  stream->works.pop_front();
  work();
  return true;
}

void wait_for(const Mark& mark) {
  while (!mark.done && run_one(mark.stream)) {
  }
}

int needs_context() {
  if (depth > 0) return 0;
  ++state.without_context;
  return kNoContext;
}

}  // namespace

extern "C" {

CudaDouble* cuda_double() { return &state; }

void cuda_double_enqueue(void* stream, const Work& work) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  auto* on = static_cast<Stream*>(stream);
  if (on->captured != nullptr) {
    on->captured->works.push_back(work);
  } else {
    on->works.push_back(work);
  }
}

bool cuda_double_is_current() { return needs_context() == 0; }

bool cuda_double_is_capturing(void* stream) {
  return static_cast<Stream*>(stream)->captured != nullptr;
}

int cuInit(unsigned) { return state.init_code; }

int cuDriverGetVersion(int* version) {
  *version = state.cuda;
  return 0;
}

int cuGetErrorName(int code, const char** words) {
  *words = code == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_THE_DOUBLE";
  return 0;
}

int cuGetErrorString(int, const char** words) {
  *words = "as the test asked for it";
  return 0;
}

int cuDeviceGetCount(int* count) {
  *count = state.devices;
  return 0;
}

int cuDeviceGet(int* device, int index) {
  *device = 40 + index;  // a handle is no index
  return index < state.devices ? 0 : kInvalid;
}

int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "A double of a GPU", static_cast<std::size_t>(size));
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? state.capability / 10 : state.capability % 10;
  return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
  ++state.contexts;
  *context = &state;
  return 0;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  --state.contexts;
  return 0;
}

int cuCtxPushCurrent_v2(void*) {
  ++depth;
  return 0;
}

int cuCtxPopCurrent_v2(void** context) {
  --depth;
  *context = &state;
  return 0;
}

int cuMemGetInfo_v2(std::size_t* free_bytes, std::size_t* total_bytes) {
  *free_bytes = *total_bytes = state.memory_bytes;
  for (const auto& [address, size] : state.device_memory) *free_bytes -= size;
  return 0;
}

int cuMemAlloc_v2(unsigned long long* address, std::size_t size) {
  if (const int code = needs_context()) return code;
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  std::size_t free_bytes = 0, total_bytes = 0;
  cuMemGetInfo_v2(&free_bytes, &total_bytes);
  if (size == 0) return kInvalid;
  if (size > free_bytes) return kOutOfMemory;
  void* memory = std::aligned_alloc(256, (size + 255) / 256 * 256);
  state.device_memory[memory] = size;
  *address = reinterpret_cast<unsigned long long>(memory);
  return 0;
}

int cuMemFree_v2(unsigned long long address) {
  if (const int code = needs_context()) return code;
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  auto* memory = reinterpret_cast<void*>(address);
  if (state.device_memory.erase(memory) == 0) return kInvalid;
  std::free(memory);
  return 0;
}

int cuMemAllocHost_v2(void** memory, std::size_t size) {
  if (const int code = needs_context()) return code;
  *memory = std::malloc(size);
  ++state.pinned;
  return 0;
}

int cuMemFreeHost(void* memory) {
  std::free(memory);
  --state.pinned;
  return needs_context();
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, std::size_t size, void* stream) {
  if (const int code = needs_context()) return code;
  cuda_double_enqueue(stream, [=] {
    std::memcpy(reinterpret_cast<void*>(to), from, size);
    state.uploaded_bytes += size;
  });
  return 0;
}

int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, std::size_t size, void* stream) {
  if (const int code = needs_context()) return code;
  cuda_double_enqueue(stream, [=] { std::memcpy(to, reinterpret_cast<void*>(from), size); });
  return 0;
}

int cuStreamCreate(void** stream, unsigned) {
  ++state.streams;
  *stream = new Stream;
  return 0;
}

int cuStreamDestroy_v2(void* stream) {
  --state.streams;
  delete static_cast<Stream*>(stream);
  return 0;
}

int cuStreamSynchronize(void* stream) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  while (run_one(static_cast<Stream*>(stream))) {
  }
  return 0;
}

int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ++state.waits;
  cuda_double_enqueue(stream, [mark = static_cast<Event*>(event)->last] { wait_for(*mark); });
  return 0;
}

int cuStreamIsCapturing(void* stream, int* status) {
  *status = cuda_double_is_capturing(stream) ? 1 : 0;
  return 0;
}

int cuStreamBeginCapture_v2(void* stream, int) {
  ++state.captures;
  static_cast<Stream*>(stream)->captured = std::make_unique<Graph>();
  return 0;
}

int cuStreamEndCapture(void* stream, void** graph) {
  std::unique_ptr<Graph> captured = std::move(static_cast<Stream*>(stream)->captured);
  *graph = nullptr;
  if (state.capture_end_code != 0) return state.capture_end_code;
  ++state.graphs;
  *graph = captured.release();
  return 0;
}

int cuEventCreate(void** event, unsigned) {
  ++state.events;
  *event = new Event;
  return 0;
}

int cuEventDestroy_v2(void* event) {
  --state.events;
  delete static_cast<Event*>(event);
  return 0;
}

int cuEventRecord(void* event, void* stream) {
  const auto mark = std::make_shared<Mark>(Mark{static_cast<Stream*>(stream), false});
  static_cast<Event*>(event)->last = mark;
  cuda_double_enqueue(stream, [mark] { mark->done = true; });
  return 0;
}

int cuEventSynchronize(void* event) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  wait_for(*static_cast<Event*>(event)->last);
  return 0;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  ++state.graphs;
  *executable = new Graph(*static_cast<Graph*>(graph));
  return 0;
}

int cuGraphDestroy(void* graph) {
  --state.graphs;
  delete static_cast<Graph*>(graph);
  return 0;
}

int cuGraphLaunch(void* executable, void* stream) {
  ++state.launches;
  for (const Work& work : static_cast<Graph*>(executable)->works) cuda_double_enqueue(stream, work);
  return 0;
}

int cuGraphExecDestroy(void* executable) { return cuGraphDestroy(executable); }

}  // extern "C"
