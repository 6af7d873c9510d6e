/* consumer BUNDLE INPUT OUTPUT: the autoencoder on raw floats, and every refusal on the way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiedexport/tiedexport.h>

static int failures = 0;

static void expect(int holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "does not hold: %s\n  last error: %s\n", what, tiedexport_last_error());
  ++failures;
}

#define EXPECT(condition) expect(condition, #condition)
#define EXPECT_REFUSED(call)                                        \
  do {                                                              \
    expect((call) == TIEDEXPORT_INVALID_ARGUMENT, #call);           \
    expect(tiedexport_last_error()[0] != 0, "it says why: " #call); \
  } while (0)

static void check_library(void) {
  char some[8];
  const size_t size = tiedexport_info(NULL, 0);
  char* all = malloc(size);
  EXPECT(tiedexport_abi_version() == TIEDEXPORT_ABI_VERSION);
  EXPECT(strstr(tiedexport_version(), ".") != NULL);
  EXPECT(tiedexport_last_error() != NULL);
  EXPECT(size > sizeof some);
  EXPECT(tiedexport_info(all, size) == size && strlen(all) == size - 1);
  EXPECT(tiedexport_info(some, sizeof some) == size && strlen(some) == sizeof some - 1);
  EXPECT(memcmp(some, all, sizeof some - 1) == 0);
  EXPECT(strstr(all, "native: available") && strstr(all, "tensorrt") && strstr(all, "onnxruntime"));
  free(all);
}

static void check_open(const char* path) {
  tiedexport_bundle* bundle = (tiedexport_bundle*)&failures;
  EXPECT(tiedexport_open("nowhere.tied", TIEDEXPORT_CHECK_HASH, &bundle) == TIEDEXPORT_NOT_FOUND);
  EXPECT(bundle == NULL);
  EXPECT(strstr(tiedexport_last_error(), "nowhere.tied") != NULL);
  EXPECT_REFUSED(tiedexport_open(NULL, TIEDEXPORT_CHECK_HASH, &bundle));
  EXPECT_REFUSED(tiedexport_open(path, TIEDEXPORT_CHECK_HASH, NULL));
  EXPECT_REFUSED(tiedexport_open(path, (tiedexport_check)7, &bundle));
}

static void check_bundle(const tiedexport_bundle* bundle) {
  tiedexport_stage stage;
  EXPECT(tiedexport_stage_count(bundle) == 3 && tiedexport_stage_count(NULL) == 0);
  EXPECT(tiedexport_stage_at(bundle, 0, &stage) == 0 && strcmp(stage.name, "encoder") == 0);
  EXPECT(stage.input.rank == 1 && stage.input.shape[0] == 6 && stage.input.sample_bytes == 24);
  EXPECT(stage.input.type == TIEDEXPORT_FP32 && strcmp(stage.input.name, "input") == 0);
  EXPECT(stage.output.shape[0] == 2 && strcmp(stage.output.name, "code") == 0);
  EXPECT(tiedexport_stage_named(bundle, "decoder", &stage) == 0 && stage.input.shape[0] == 2);
  EXPECT_REFUSED(tiedexport_stage_at(bundle, 3, &stage));
  EXPECT_REFUSED(tiedexport_stage_at(NULL, 0, &stage));
  EXPECT_REFUSED(tiedexport_stage_at(bundle, 0, NULL));
  EXPECT_REFUSED(tiedexport_stage_named(bundle, NULL, &stage));
  EXPECT_REFUSED(tiedexport_stage_named(bundle, "nonsense", &stage));
  EXPECT(strstr(tiedexport_last_error(), "encoder, decoder, autoencoder") != NULL);
  EXPECT(tiedexport_precision_count(bundle) == 3 && tiedexport_precision_count(NULL) == 0);
  EXPECT(strcmp(tiedexport_precision_at(bundle, 2), "bf16") == 0);
  EXPECT(tiedexport_precision_at(bundle, 3) == NULL && tiedexport_precision_at(NULL, 0) == NULL);
}

struct newer_options {
  tiedexport_session_options known;
  int added;
};

static void check_options(const tiedexport_bundle* bundle) {
  tiedexport_session* session = (tiedexport_session*)&failures;
  tiedexport_session_options options = TIEDEXPORT_SESSION_OPTIONS_INIT;
  struct newer_options newer = {TIEDEXPORT_SESSION_OPTIONS_INIT, 0};
  EXPECT_REFUSED(tiedexport_session_create(NULL, NULL, &session));
  EXPECT(session == NULL);
  EXPECT_REFUSED(tiedexport_session_create(bundle, NULL, NULL));
  options.backend = "nonsense";
  EXPECT_REFUSED(tiedexport_session_create(bundle, &options, &session));
  EXPECT(strstr(tiedexport_last_error(), "native") != NULL);
  /* A header that ended before `backend` never named one. */
  options.struct_size = offsetof(tiedexport_session_options, backend);
  EXPECT(tiedexport_session_create(bundle, &options, &session) == 0);
  tiedexport_session_close(session);
  options.struct_size = 0;
  EXPECT_REFUSED(tiedexport_session_create(bundle, &options, &session));
  /* A newer header's fields may be there as long as they ask for nothing. */
  newer.known.struct_size = (uint32_t)sizeof newer;
  EXPECT(tiedexport_session_create(bundle, &newer.known, &session) == 0);
  tiedexport_session_close(session);
  newer.added = 1;
  EXPECT(tiedexport_session_create(bundle, &newer.known, &session) == TIEDEXPORT_UNSUPPORTED);
  options = (tiedexport_session_options)TIEDEXPORT_SESSION_OPTIONS_INIT;
  options.threads = -1;
  EXPECT_REFUSED(tiedexport_session_create(bundle, &options, &session));
  options.threads = 1;
  options.device = -1;
  EXPECT_REFUSED(tiedexport_session_create(bundle, &options, &session));
  options.device = 0;
  options.precision = "int8";
  EXPECT_REFUSED(tiedexport_session_create(bundle, &options, &session));
  options.precision = NULL;
  options.simd = "nonsense";
  EXPECT_REFUSED(tiedexport_session_create(bundle, &options, &session));
}

static void check_runs(tiedexport_session* session) {
  float x[12] = {0}, y[12];
  EXPECT_REFUSED(tiedexport_encode(NULL, x, 1, y));
  EXPECT_REFUSED(tiedexport_encode(session, NULL, 1, y));
  EXPECT_REFUSED(tiedexport_encode(session, x, 1, NULL));
  EXPECT_REFUSED(tiedexport_run(session, NULL, x, 1, y));
  EXPECT_REFUSED(tiedexport_run(session, "nonsense", x, 1, y));
  EXPECT_REFUSED(tiedexport_reconstruct(session, x, 2, x));
  EXPECT_REFUSED(tiedexport_reconstruct(session, x, 1, x + 5));
  EXPECT_REFUSED(tiedexport_reconstruct(session, x + 5, 1, x));
  EXPECT(tiedexport_reconstruct(session, x, 1, x + 6) == 0); /* side by side is no overlap */
  EXPECT_REFUSED(tiedexport_encode(session, x, (size_t)-1, y));
  EXPECT_REFUSED(tiedexport_encode(session, x, (size_t)-1 / 24, y)); /* past the end of memory */
  EXPECT(strstr(tiedexport_last_error(), "does not fit into memory") != NULL);
  EXPECT(tiedexport_decode(session, NULL, 0, NULL) == 0);
  EXPECT(tiedexport_enqueue(session, "encoder", x, 1, y, NULL) == TIEDEXPORT_UNSUPPORTED);
  EXPECT(strcmp(tiedexport_session_backend(session), "native") == 0);
  EXPECT(strcmp(tiedexport_session_precision(session), "fp32") == 0);
  EXPECT(tiedexport_session_description(session)[0] != 0);
  EXPECT(tiedexport_session_backend(NULL) == NULL && tiedexport_session_precision(NULL) == NULL);
  EXPECT(tiedexport_session_description(NULL) == NULL);
}

static void reconstruct(tiedexport_session* session, const char* from, const char* to) {
  float x[6], y[6];
  FILE* in = fopen(from, "rb");
  FILE* out = fopen(to, "wb");
  EXPECT(in != NULL && out != NULL);
  while (in && out && fread(x, sizeof x, 1, in) == 1) {
    EXPECT(tiedexport_reconstruct(session, x, 1, y) == 0);
    EXPECT(fwrite(y, sizeof y, 1, out) == 1);
  }
  if (in) fclose(in);
  if (out) EXPECT(fclose(out) == 0);
}

int main(int count, char** words) {
  tiedexport_bundle* bundle = NULL;
  tiedexport_session* session = NULL;
  tiedexport_session_options options = TIEDEXPORT_SESSION_OPTIONS_INIT;
  if (count != 4) return 2;
  check_library();
  check_open(words[1]);
  EXPECT(tiedexport_open(words[1], TIEDEXPORT_CHECK_HASH, &bundle) == 0);
  if (bundle == NULL) return 1;
  check_bundle(bundle);
  check_options(bundle);
  options.backend = "native";
  options.precision = "fp32";
  EXPECT(tiedexport_session_create(bundle, &options, &session) == 0);
  tiedexport_close(bundle); /* sessions stay valid */
  if (session == NULL) return 1;
  check_runs(session);
  reconstruct(session, words[2], words[3]);
  tiedexport_session_close(session);
  tiedexport_close(NULL);
  tiedexport_session_close(NULL);
  return failures != 0;
}
