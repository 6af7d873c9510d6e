#include "native/pool.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "error.hpp"

namespace tiedexport::internal::native {
namespace {

/// How long a thread watches a variable before it sleeps: longer than the steps of a small stage,
/// far shorter than anyone would notice.
constexpr std::chrono::microseconds kSpin{50};
constexpr int kPausesPerLook = 32;  // at the clock

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield" ::: "memory");
#endif
}

/// Whether `happened` came true while spinning.
template <class Happened>
bool spin_until(const Happened& happened) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (happened()) return true;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < end);
  return happened();
}

/// Which run took a part last. Each on a cache line of its own, since every thread writes its own.
struct alignas(64) Claim {
  std::atomic<std::uint64_t> run{0};
};

}  // namespace

/// Runs are numbered. A part of run n belongs to whoever moves its claim from n - 1 to n, so a
/// worker that comes late, even by whole runs, finds nothing to take, and the caller never waits
/// for a worker that has not begun: it takes that part too.
struct Pool::State {
  explicit State(int threads) : size(threads), claims(static_cast<std::size_t>(threads)) {}

  struct Worker {
    State* state;
    int index;
    pthread_t thread;
  };

  const int size;
  const pid_t owner = getpid();  // has the workers; a forked process has none
  std::vector<Claim> claims;
  std::vector<Worker> workers;

  std::atomic<bool> taken{false};  // by a call
  Raw part = nullptr;              // of the present run; written before its number
  const void* context = nullptr;
  alignas(64) std::atomic<std::uint64_t> run{0};
  alignas(64) std::atomic<int> unfinished{0};
  std::atomic<bool> stopping{false};

  std::mutex mutex;
  std::condition_variable work_came, work_done;
  std::atomic<int> workers_asleep{0};
  std::atomic<bool> caller_asleep{false};

  void start_workers();
  void stop_workers();
  void announce();
  bool forked() const { return getpid() != owner; }
  bool compute(int index, std::uint64_t number);
  void wait_for_others();
  std::uint64_t wait_for_run_after(std::uint64_t seen);
  static void* work(void* worker);
};

void Pool::State::start_workers() {
  workers.reserve(static_cast<std::size_t>(size) - 1);
  // Signals are the application's: its own threads shall handle them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failure = 0;
  for (int i = 1; i < size && failure == 0; ++i) {
    workers.push_back({this, i, {}});
    failure = pthread_create(&workers.back().thread, nullptr, &State::work, &workers.back());
    if (failure != 0) workers.pop_back();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failure == 0) return;
  const std::string started = std::to_string(workers.size() + 1);
  stop_workers();
  throw Error(TIEDEXPORT_OUT_OF_MEMORY, {"the system refuses to start another thread", "", started,
                                         std::to_string(size), "ask for fewer threads"});
}

void Pool::State::stop_workers() {
  stopping.store(true);
  announce();
  for (const Worker& worker : workers) pthread_join(worker.thread, nullptr);
}

/// Numbers a run and wakes who sleeps. The number is written before the sleepers are counted, and
/// a worker counts itself before it looks at the number again: one of the two sees the other. In a
/// forked process nobody sleeps, whatever the count, and the mutex may be held for ever.
void Pool::State::announce() {
  run.fetch_add(1);
  if (workers_asleep.load() == 0 || forked()) return;
  { const std::lock_guard<std::mutex> lock(mutex); }
  work_came.notify_all();
}

/// Computes a part of run `number` unless somebody has taken it.
bool Pool::State::compute(int index, std::uint64_t number) {
  std::uint64_t last = number - 1;
  if (!claims[static_cast<std::size_t>(index)].run.compare_exchange_strong(last, number)) {
    return false;
  }
  part(context, index);
  return true;
}

void Pool::State::wait_for_others() {
  const auto done = [this] { return unfinished.load() == 0; };
  if (spin_until(done)) return;
  std::unique_lock<std::mutex> lock(mutex);
  caller_asleep.store(true);
  work_done.wait(lock, done);
  caller_asleep.store(false);
}

std::uint64_t Pool::State::wait_for_run_after(std::uint64_t seen) {
  const auto came = [this, seen] { return run.load() != seen; };
  if (!spin_until(came)) {
    std::unique_lock<std::mutex> lock(mutex);
    workers_asleep.fetch_add(1);
    work_came.wait(lock, came);
    workers_asleep.fetch_sub(1);
  }
  return run.load();
}

void* Pool::State::work(void* worker) {
  State& state = *static_cast<Worker*>(worker)->state;
  const int index = static_cast<Worker*>(worker)->index;
  std::uint64_t number = 0;
  for (;;) {
    number = state.wait_for_run_after(number);
    if (state.stopping.load()) return nullptr;
    if (!state.compute(index, number)) continue;
    if (state.unfinished.fetch_sub(1) == 1 && state.caller_asleep.load()) {
      {
        const std::lock_guard<std::mutex> lock(state.mutex);
      }
      state.work_done.notify_one();
    }
  }
}

Pool::Pool(int threads) : state_(std::make_unique<State>(threads)) { state_->start_workers(); }

Pool::~Pool() {
  // Joining threads of another process, or destroying what they waited for, would never return.
  if (state_->forked())
    static_cast<void>(state_.release());
  else
    state_->stop_workers();
}

int Pool::size() const { return state_->size; }

void Pool::run_raw(Raw part, const void* context) {
  State& state = *state_;
  if (state.size == 1 || state.taken.exchange(true)) {
    for (int i = 0; i < state.size; ++i) part(context, i);
    return;
  }
  state.part = part;
  state.context = context;
  state.unfinished.store(state.size);
  const std::uint64_t number = state.run.load() + 1;
  state.announce();
  int computed = 0;
  for (int i = 0; i < state.size; ++i) computed += state.compute(i, number) ? 1 : 0;
  if (state.unfinished.fetch_sub(computed) != computed) state.wait_for_others();
  state.taken.store(false);
}

}  // namespace tiedexport::internal::native
