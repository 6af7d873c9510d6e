// A double of libcuda.so.1 on host memory. Work waits on its stream until somebody waits for it, so
// a caller that forgets to wait sees nothing done.
#pragma once

#include <cstddef>
#include <functional>
#include <map>

namespace tiedexport::doubles {

struct CudaDouble {
  // What tests set.
  int init_code = 0, devices = 1, cuda = 13000, capability = 89;
  int capture_end_code = 0;
  std::size_t memory_bytes = std::size_t{1} << 30;

  // What tests look at.
  std::map<void*, std::size_t> device_memory;                         // alive
  std::size_t uploaded_bytes = 0;                                     // by every copy in
  int pinned = 0, streams = 0, events = 0, graphs = 0, contexts = 0;  // alive
  int launches = 0, captures = 0, waits = 0;
  int without_context = 0;  // calls that need a current context and had none
};

}  // namespace tiedexport::doubles

extern "C" {
/// The one state of the double.
tiedexport::doubles::CudaDouble* cuda_double();
/// Puts work on a stream, or into the graph that is being captured there.
void cuda_double_enqueue(void* stream, const std::function<void()>& work);
/// Whether this thread has a current context; counts where it has not.
bool cuda_double_is_current();
bool cuda_double_is_capturing(void* stream);

// Of the driver, what callers with streams of their own use.
int cuStreamCreate(void** stream, unsigned flags);
int cuStreamDestroy_v2(void* stream);
int cuStreamSynchronize(void* stream);
int cuStreamBeginCapture_v2(void* stream, int mode);
int cuStreamEndCapture(void* stream, void** graph);
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags);
int cuGraphDestroy(void* graph);
int cuGraphLaunch(void* executable, void* stream);
int cuGraphExecDestroy(void* executable);
}
