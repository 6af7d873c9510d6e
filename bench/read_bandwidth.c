/* How fast this machine reads memory, in several ways, with a number of threads.
 *
 *   read_bandwidth THREADS BYTES FILE
 *
 * Maps FILE and as many bytes of memory in huge pages; for each line of its input it reads all of
 * both in every way, and prints a line of NAME=NANOSECONDS. Each thread reads a part of its own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { kMostThreads = 256, kLine = 64, kBlock = 16384 };

typedef unsigned long long Lanes __attribute__((vector_size(kLine)));

static void* checked(void* mapping) {
  if (mapping == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
  return mapping;
}

/* One line of each of `streams` parts that follow one another at `stride` bytes, and so on. */
#define READ(name, streams, ahead)                                                       \
  static Lanes name(const char* data, size_t bytes, size_t stride) {                     \
    Lanes sums[streams];                                                                 \
    memset(sums, 0, sizeof sums);                                                        \
    for (size_t start = 0; start + stride * streams <= bytes; start += stride * streams) \
      for (size_t at = start; at < start + stride; at += kLine)                          \
        for (int s = 0; s < streams; ++s) {                                              \
          const char* line = data + at + (size_t)s * stride;                             \
          if (ahead) __builtin_prefetch(line + ahead, 0, 3);                             \
          sums[s] |= *(const Lanes*)line;                                                \
        }                                                                                \
    for (int s = 1; s < streams; ++s) sums[0] |= sums[s];                                \
    return sums[0];                                                                      \
  }

READ(read_one, 1, 0)
READ(read_two, 2, 0)
READ(read_four, 4, 0)
READ(read_four_ahead, 4, 1024)
READ(read_eight, 8, 0)
READ(read_sixteen, 16, 0)

typedef Lanes (*Read)(const char* data, size_t bytes, size_t stride);

/* A stride of 0 is the thread's whole part, cut into so many streams. */
static const struct Way {
  const char* name;
  Read read;
  int streams;
  size_t stride;
} kWays[] = {
    {"one", read_one, 1, 0},
    {"two", read_two, 2, 0},
    {"four", read_four, 4, 0},
    {"four-ahead", read_four_ahead, 4, 0},
    {"eight", read_eight, 8, 0},
    {"sixteen", read_sixteen, 16, 0},
    {"four-blocks", read_four, 4, kBlock},
    {"eight-blocks", read_eight, 8, kBlock},
};
enum { kWayCount = sizeof kWays / sizeof *kWays };

static struct {
  int threads;
  size_t bytes;
  const char* data;
  const struct Way* way;
  pthread_barrier_t begin, end;
  long long began[kMostThreads], ended[kMostThreads];
  Lanes seen[kMostThreads];
} job;

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void* work(void* argument) {
  const size_t index = (size_t)argument;
  for (;;) {
    pthread_barrier_wait(&job.begin);
    const size_t bytes = job.bytes / (size_t)job.threads;
    const size_t whole = bytes / (size_t)job.way->streams / kLine * kLine;
    job.began[index] = now();
    job.seen[index] |= job.way->read(job.data + index * bytes, bytes,
                                     job.way->stride ? job.way->stride : whole);
    job.ended[index] = now();
    pthread_barrier_wait(&job.end);
    if (index == 0) return NULL;
  }
}

static long long time_of(const struct Way* way, const char* data) {
  job.way = way;
  job.data = data;
  work((void*)0);
  long long first = job.began[0], last = job.ended[0];
  for (int i = 1; i < job.threads; ++i) {
    if (job.began[i] < first) first = job.began[i];
    if (job.ended[i] > last) last = job.ended[i];
  }
  return last - first;
}

int main(int count, char** arguments) {
  if (count != 4) return 2;
  job.threads = atoi(arguments[1]);
  job.bytes = (size_t)atoll(arguments[2]);
  const size_t grain = (size_t)job.threads * kLine;
  job.bytes = job.bytes / grain * grain;
  const int file = open(arguments[3], O_RDONLY);
  if (job.threads < 1 || job.threads > kMostThreads || file < 0 || job.bytes == 0) return 2;
  const char* mapped = checked(mmap(NULL, job.bytes, PROT_READ, MAP_SHARED, file, 0));
  char* huge = checked(
      mmap(NULL, job.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  madvise(huge, job.bytes, MADV_HUGEPAGE);
  memset(huge, 1, job.bytes);
  pthread_barrier_init(&job.begin, NULL, (unsigned)job.threads);
  pthread_barrier_init(&job.end, NULL, (unsigned)job.threads);
  for (int i = 1; i < job.threads; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, (void*)(size_t)i) != 0) return 1;
  }
  for (int c; (c = getchar()) != EOF;) {
    if (c != '\n') continue;
    for (int i = 0; i < kWayCount; ++i)
      printf("file/%s=%lld huge/%s=%lld ", kWays[i].name, time_of(&kWays[i], mapped),
             kWays[i].name, time_of(&kWays[i], huge));
    printf("\n");
    fflush(stdout);
  }
  return job.seen[0][0] == 0; /* which the compiler cannot know */
}
