#include "native/processors.hpp"

#include <algorithm>
#include <thread>

#if defined(__linux__)
#include <sched.h>

#include <memory>
#endif

namespace tiedexport::internal::native {

int processors_allowed() {
#if defined(__linux__)
  struct Release {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
  };
  // A mask of one size does not fit every kernel: it refuses one that is too short.
  for (int processors = CPU_SETSIZE; processors <= (CPU_SETSIZE << 8); processors *= 4) {
    const std::unique_ptr<cpu_set_t, Release> set(CPU_ALLOC(static_cast<std::size_t>(processors)));
    const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(processors));
    if (set == nullptr) break;
    if (sched_getaffinity(0, size, set.get()) == 0) {
      return std::max(1, CPU_COUNT_S(size, set.get()));
    }
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace tiedexport::internal::native
