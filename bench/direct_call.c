/* What a call of the native runtime takes where no Python is near.
 *
 *   direct_call BUNDLE PRECISION THREADS
 *
 * Each line of its input is a number of calls, which it answers with the nanoseconds of each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tiedexport/tiedexport.h"

static int fail(void) {
  fprintf(stderr, "%s\n", tiedexport_last_error());
  return 1;
}

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char** arguments) {
  if (count != 4) return 2;
  tiedexport_bundle* bundle;
  tiedexport_session* session;
  tiedexport_stage stage;
  tiedexport_session_options options = TIEDEXPORT_SESSION_OPTIONS_INIT;
  options.backend = "native";
  options.precision = arguments[2];
  options.threads = atoi(arguments[3]);
  if (tiedexport_open(arguments[1], TIEDEXPORT_CHECK_SIZE, &bundle) ||
      tiedexport_stage_named(bundle, "autoencoder", &stage) ||
      tiedexport_session_create(bundle, &options, &session))
    return fail();
  const size_t values = stage.input.sample_bytes / sizeof(float);
  float* x = malloc(stage.input.sample_bytes);
  float* y = malloc(stage.output.sample_bytes);
  if (!x || !y) return 1;
  for (size_t i = 0; i < values; ++i) x[i] = (float)rand() / (float)RAND_MAX;
  for (int calls; scanf("%d", &calls) == 1;) {
    long long began = now();
    for (int i = 0; i < calls; ++i) {
      if (tiedexport_reconstruct(session, x, 1, y)) return fail();
      const long long ended = now();
      printf("%lld ", ended - began);
      began = now();
    }
    printf("\n");
    fflush(stdout);
  }
  tiedexport_session_close(session);
  tiedexport_close(bundle);
  free(x);
  free(y);
  return 0;
}
