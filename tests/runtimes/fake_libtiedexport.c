/* A double of libtiedexport that writes down what a run is given, and fails as it is told to. */
#include "tiedexport/tiedexport.h"

#include <stdatomic.h>
#include <time.h>

#ifndef FAKE_ABI_VERSION
#define FAKE_ABI_VERSION TIEDEXPORT_ABI_VERSION
#endif

static tiedexport_status fails_to_open, fails_to_create, fails_to_run;
static const char* words = "";
static uint64_t arguments[3];
static int32_t threads;
static int open_bundles, open_sessions;
static atomic_int waits, inside;

void fake_failures(int to_open, int to_create, int to_run, const char* in_words) {
  fails_to_open = to_open, fails_to_create = to_create, fails_to_run = to_run, words = in_words;
}
const uint64_t* fake_arguments(void) { return arguments; }
int fake_threads(void) { return threads; }
int fake_open_bundles(void) { return open_bundles; }
int fake_open_sessions(void) { return open_sessions; }
void fake_wait(int whether) { waits = whether; }
int fake_inside(void) { return inside; }

uint32_t tiedexport_abi_version(void) { return FAKE_ABI_VERSION; }
const char* tiedexport_version(void) { return "9.9.9"; }
const char* tiedexport_last_error(void) { return words; }

tiedexport_status tiedexport_open(const char* path, tiedexport_check check,
                                  tiedexport_bundle** bundle) {
  (void)path;
  if (check != TIEDEXPORT_CHECK_SIZE) return TIEDEXPORT_INVALID_ARGUMENT;
  if (fails_to_open) return fails_to_open;
  open_bundles++;
  *bundle = (tiedexport_bundle*)&open_bundles;
  return TIEDEXPORT_OK;
}
void tiedexport_close(tiedexport_bundle* bundle) { open_bundles -= bundle != 0; }

tiedexport_status tiedexport_session_create(const tiedexport_bundle* bundle,
                                            const tiedexport_session_options* options,
                                            tiedexport_session** session) {
  if (bundle != (tiedexport_bundle*)&open_bundles || options->struct_size != sizeof *options)
    return TIEDEXPORT_INVALID_ARGUMENT;
  if (fails_to_create) return fails_to_create;
  threads = options->threads;
  open_sessions++;
  *session = (tiedexport_session*)&open_sessions;
  return TIEDEXPORT_OK;
}
void tiedexport_session_close(tiedexport_session* session) { open_sessions -= session != 0; }

tiedexport_status tiedexport_run(tiedexport_session* session, const char* stage, const void* input,
                                 size_t batch, void* output) {
  const struct timespec pause = {0, 1000000};
  if (session != (tiedexport_session*)&open_sessions || !stage) return TIEDEXPORT_INVALID_ARGUMENT;
  arguments[0] = (uint64_t)(uintptr_t)input;
  arguments[1] = batch;
  arguments[2] = (uint64_t)(uintptr_t)output;
  inside = 1;
  for (int left = 20000; waits && left; left--) nanosleep(&pause, 0);
  inside = 0;
  return waits ? TIEDEXPORT_INTERNAL : fails_to_run;
}
