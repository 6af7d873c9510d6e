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
/// How long the caller waits for a worker before it looks whether the worker has begun at all: one
/// that is awake has, and would then have to fetch its claim back from the caller's core.
constexpr std::chrono::microseconds kPatience{2};
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
bool spin_until(const Happened& happened, std::chrono::microseconds limit) {
  if (happened()) return true;
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (happened()) return true;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < end);
  return happened();
}

// A line of cache that one core writes and another reads takes 0.1 to 2 µs on its way, so what is
// used together lies together, and apart from what others write.

/// What a worker needs to begin, in one line.
struct alignas(64) Order {
  std::atomic<std::uint64_t> run{0};
  // Of the present run, written before its number.
  void (*part)(const void* context, int index) = nullptr;
  const void* context = nullptr;
  std::atomic<bool> stopping{false};
};

/// Which run took a part last, and which one finished it. The claim stays with the worker as long
/// as that comes in time; the caller reads only the other.
struct Slot {
  alignas(64) std::atomic<std::uint64_t> claimed{0};
  alignas(64) std::atomic<std::uint64_t> finished{0};
};

}  // namespace

/// Runs are numbered. A part of run n belongs to whoever moves its claim from n - 1 to n, so a
/// worker that comes late, even by whole runs, finds nothing to take, and the caller never waits
/// for a worker that has not begun: it takes that part too. Part 0 is always the caller's.
struct Pool::State {
  explicit State(int threads) : size(threads), slots(static_cast<std::size_t>(threads)) {}

  struct Worker {
    State* state;
    int index;
    pthread_t thread;
  };

  const int size;
  const pid_t owner = getpid();  // has the workers; a forked process has none
  std::vector<Slot> slots;       // of parts; that of part 0 is not used
  std::vector<Worker> workers;

  alignas(64) std::atomic<bool> taken{false};  // by a call
  bool late = false;                           // a worker, in the run before
  Order order;

  std::mutex mutex;
  std::condition_variable work_came, work_done;
  std::atomic<int> workers_asleep{0};
  std::atomic<bool> caller_asleep{false};

  void start_workers();
  void stop_workers();
  void announce();
  bool forked() const { return getpid() != owner; }
  bool claim(Slot& slot, std::uint64_t number);
  void finish(std::uint64_t number);
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
  order.stopping.store(true);
  announce();
  for (const Worker& worker : workers) pthread_join(worker.thread, nullptr);
}

/// Numbers a run and wakes who sleeps. The number is written before the sleepers are counted, and
/// a worker counts itself before it looks at the number again: one of the two sees the other. In a
/// forked process nobody sleeps, whatever the count, and the mutex may be held for ever.
void Pool::State::announce() {
  order.run.fetch_add(1);
  if (workers_asleep.load() == 0 || forked()) return;
  { const std::lock_guard<std::mutex> lock(mutex); }
  work_came.notify_all();
}

bool Pool::State::claim(Slot& slot, std::uint64_t number) {
  std::uint64_t last = number - 1;
  return slot.claimed.compare_exchange_strong(last, number);
}

/// Takes the parts that nobody has begun, and waits for the others.
void Pool::State::finish(std::uint64_t number) {
  const auto done = [this, number] {
    for (std::size_t i = 1; i < slots.size(); ++i)
      if (slots[i].finished.load() != number) return false;
    return true;
  };
  if (!late && spin_until(done, kPatience)) return;
  late = false;
  for (int i = 1; i < size; ++i) {
    Slot& slot = slots[static_cast<std::size_t>(i)];
    if (!claim(slot, number)) continue;
    late = true;
    order.part(order.context, i);
    slot.finished.store(number);
  }
  if (spin_until(done, kSpin)) return;
  std::unique_lock<std::mutex> lock(mutex);
  caller_asleep.store(true);
  work_done.wait(lock, done);
  caller_asleep.store(false);
}

std::uint64_t Pool::State::wait_for_run_after(std::uint64_t seen) {
  const auto came = [this, seen] { return order.run.load() != seen; };
  if (!spin_until(came, kSpin)) {
    std::unique_lock<std::mutex> lock(mutex);
    workers_asleep.fetch_add(1);
    work_came.wait(lock, came);
    workers_asleep.fetch_sub(1);
  }
  return order.run.load();
}

void* Pool::State::work(void* worker) {
  State& state = *static_cast<Worker*>(worker)->state;
  const int index = static_cast<Worker*>(worker)->index;
  Slot& slot = state.slots[static_cast<std::size_t>(index)];
  std::uint64_t number = 0;
  for (;;) {
    number = state.wait_for_run_after(number);
    if (state.order.stopping.load()) return nullptr;
    if (!state.claim(slot, number)) continue;
    state.order.part(state.order.context, index);
    slot.finished.store(number);
    if (state.caller_asleep.load()) {
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
  state.order.part = part;
  state.order.context = context;
  const std::uint64_t number = state.order.run.load() + 1;
  state.announce();
  part(context, 0);
  state.finish(number);
  state.taken.store(false);
}

}  // namespace tiedexport::internal::native
