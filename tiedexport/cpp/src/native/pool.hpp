// Threads that wait for work instead of being made for it.
#pragma once

#include <cstddef>
#include <memory>

namespace tiedexport::internal::native {

/// `size()` workers, the caller being the first. Work is always split in `size()` parts, whoever
/// computes them: where another call has the workers, the caller computes all parts itself, in
/// order. So results depend on the number of threads and on nothing else. In a forked process,
/// which has no workers, the caller computes all parts too.
class Pool {
 public:
  explicit Pool(int threads);  // throws Error (OUT_OF_MEMORY) if a thread cannot be started
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const;

  /// Calls part(i) for every i in [0, size()) and returns when all have returned. A part must not
  /// throw, and must not wait for another part (they may run one after another).
  template <class Part>
  void run(const Part& part) {
    run_raw([](const void* context, int index) { (*static_cast<const Part*>(context))(index); },
            &part);
  }

 private:
  using Raw = void (*)(const void* context, int index);
  void run_raw(Raw part, const void* context);

  struct State;
  std::unique_ptr<State> state_;
};

/// The part of `count` items, in multiples of `grain`, that worker `index` of `workers` has.
struct Span {
  std::size_t begin, end;
};
constexpr Span share(std::size_t count, std::size_t grain, int index, int workers) {
  const std::size_t grains = (count + grain - 1) / grain;
  const auto at = [&](int i) {
    const std::size_t item =
        grains * static_cast<std::size_t>(i) / static_cast<std::size_t>(workers) * grain;
    return item < count ? item : count;
  };
  return {at(index), at(index + 1)};
}

}  // namespace tiedexport::internal::native
