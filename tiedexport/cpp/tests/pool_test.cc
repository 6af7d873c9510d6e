#include "native/pool.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace tiedexport::internal::native {
namespace {

class PoolOf : public testing::TestWithParam<int> {};

TEST_P(PoolOf, RunsEveryPartOnce) {
  Pool pool(GetParam());
  ASSERT_EQ(pool.size(), GetParam());
  // Plain integers: a part that two threads compute, or that the caller does not see, is a race.
  std::vector<int> counts(static_cast<std::size_t>(GetParam()) * 16);
  for (int run = 1; run <= 3000; ++run) {
    pool.run([&](int part) { ++counts[static_cast<std::size_t>(part) * 16]; });
    for (int part = 0; part < GetParam(); ++part) {
      ASSERT_EQ(counts[static_cast<std::size_t>(part) * 16], run) << "part " << part;
    }
  }
}

TEST_P(PoolOf, WakesWhoSleeps) {
  Pool pool(GetParam());
  for (int run = 0; run < 20; ++run) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> parts{0};
    pool.run([&](int) { parts.fetch_add(1); });
    ASSERT_EQ(parts.load(), GetParam());
  }
}

TEST_P(PoolOf, ServesManyCallersAtOnce) {
  Pool pool(GetParam());
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      std::vector<int> counts(static_cast<std::size_t>(GetParam()));
      for (int run = 1; run <= 500; ++run) {
        pool.run([&](int part) { ++counts[static_cast<std::size_t>(part)]; });
        for (const int count : counts) wrong.fetch_add(count == run ? 0 : 1);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_P(PoolOf, RunsInsideItsOwnParts) {
  Pool pool(GetParam());
  std::atomic<int> inner{0};
  pool.run([&](int) { pool.run([&](int) { inner.fetch_add(1); }); });
  EXPECT_EQ(inner.load(), GetParam() * GetParam());
}

TEST_P(PoolOf, ComesAndGoes) {
  for (int i = 0; i < 50; ++i) {
    Pool pool(GetParam());
    if (i % 2 == 0) pool.run([](int) {});
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, PoolOf, testing::Values(1, 2, 3, 8));

TEST(Pool, ComputesPartsOnItsThreads) {
  // Each part waits for the other, up to a second, so that they cannot both be the caller's.
  Pool pool(2);
  std::atomic<int> begun{0};
  pthread_t threads[2];
  pool.run([&](int part) {
    threads[part] = pthread_self();
    begun.fetch_add(1);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (begun.load() < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  });
  EXPECT_TRUE(pthread_equal(threads[0], pthread_self()));
  EXPECT_FALSE(pthread_equal(threads[1], pthread_self()));
}

TEST(Pool, ReturnsWhenTheLastPartHas) {
  Pool pool(2);
  for (int run = 0; run < 5; ++run) {
    std::atomic<bool> begun{false};
    std::atomic<bool> ended{false};
    pool.run([&](int part) {
      if (part == 0) {  // stays until the worker has the other part, if it comes in a second
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
        while (!begun.load() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      } else {
        begun.store(true);
        std::this_thread::sleep_for(std::chrono::milliseconds(2 * run));
        ended.store(true);
      }
    });
    EXPECT_TRUE(ended.load());
  }
}

TEST(Pool, TakesPartsOfWorkersThatAreBusy) {
  Pool pool(3);
  std::atomic<bool> release{false}, held{false};
  std::thread other([&] {
    pool.run([&](int) {
      held.store(true);
      while (!release.load()) std::this_thread::yield();
    });
  });
  while (!held.load()) std::this_thread::yield();
  std::vector<int> order;
  pool.run([&](int part) { order.push_back(part); });
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
  release.store(true);
  other.join();
}

TEST(Pool, GivesAPartOfALateWorkerToTheCallerOnly) {
  Pool pool(2);
  for (int run = 0; run < 10; ++run) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the worker falls asleep
    std::atomic<int> begun{0};
    pool.run([&](int part) {
      if (part == 0) return;
      begun.fetch_add(1);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the worker wakes meanwhile
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_EQ(begun.load(), 1) << "run " << run;
  }
}

TEST(Pool, LeavesSignalsToTheApplication) {
  Pool pool(2);
  std::atomic<int> begun{0};
  sigset_t of_worker;
  sigemptyset(&of_worker);
  pool.run([&](int part) {
    if (part == 1) pthread_sigmask(SIG_SETMASK, nullptr, &of_worker);
    begun.fetch_add(1);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (begun.load() < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  });
  sigset_t of_caller;
  pthread_sigmask(SIG_SETMASK, nullptr, &of_caller);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) {
    EXPECT_EQ(sigismember(&of_worker, signal), 1);
    EXPECT_EQ(sigismember(&of_caller, signal), 0);
  }
}

TEST(Pool, RunsAndClosesInAForkedProcess) {
  for (const int asleep_ms : {0, 5}) {  // workers that watch, and workers that sleep
    auto pool = std::make_unique<Pool>(3);
    pool->run([](int) {});
    std::this_thread::sleep_for(std::chrono::milliseconds(asleep_ms));
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // ends a child that hangs
      int parts = 0;
      for (int run = 0; run < 100; ++run) pool->run([&](int) { ++parts; });
      pool.reset();
      _exit(parts == 300 ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    std::atomic<int> parts{0};
    pool->run([&](int) { parts.fetch_add(1); });
    EXPECT_EQ(parts.load(), 3);
  }
}

TEST(Share, CoversEveryItemOnceInMultiplesOfTheGrain) {
  for (const std::size_t count : {0U, 1U, 7U, 64U, 1000U, 1001U}) {
    for (const std::size_t grain : {1U, 4U, 16U}) {
      for (int workers = 1; workers <= 9; ++workers) {
        std::size_t next = 0;
        for (int i = 0; i < workers; ++i) {
          const Span span = share(count, grain, i, workers);
          EXPECT_EQ(span.begin, next);
          EXPECT_TRUE(span.begin % grain == 0 || span.begin == count);
          next = span.end;
        }
        EXPECT_EQ(next, count);
      }
    }
  }
}

}  // namespace
}  // namespace tiedexport::internal::native
