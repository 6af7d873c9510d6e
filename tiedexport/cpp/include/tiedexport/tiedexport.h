/* tiedexport: runs bundles of weight-tied networks with one copy of every weight.
 *
 * A C interface, for C, C++ (see tiedexport.hpp), Rust, ctypes and whatever else calls C.
 *
 *   tiedexport_bundle* bundle;
 *   tiedexport_session* session;
 *   if (tiedexport_open("digits.tied", TIEDEXPORT_CHECK_HASH, &bundle) ||
 *       tiedexport_session_create(bundle, NULL, &session))
 *     return fail(tiedexport_last_error());
 *   tiedexport_reconstruct(session, x, batch, y);
 *
 * Every function that can fail returns a status, 0 for success; tiedexport_last_error() then has
 * the words, for the calling thread. No function prints, aborts or lets an exception through.
 * Bundles and sessions may be used from many threads at once; closing one is the last call, and
 * comes once. A forked process may run `native` sessions that it was born with, on one thread, and
 * close them, if no call was under way when it was forked; those it creates have threads again.
 */
#ifndef TIEDEXPORT_TIEDEXPORT_H_
#define TIEDEXPORT_TIEDEXPORT_H_

#include <stddef.h>
#include <stdint.h>

#if defined(TIEDEXPORT_STATIC) || !defined(__GNUC__)
#define TIEDEXPORT_API
#else
#define TIEDEXPORT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a function, or a field of the options, is added; what was there before keeps its
 * meaning, and the other structs their size. */
#define TIEDEXPORT_ABI_VERSION 1

typedef enum tiedexport_status {
  TIEDEXPORT_OK = 0,
  TIEDEXPORT_INVALID_ARGUMENT = 1, /* NULL, an unknown name, a size that does not fit */
  TIEDEXPORT_NOT_FOUND = 2,        /* no bundle there */
  TIEDEXPORT_IO = 3,               /* the system refused to open, read or map */
  TIEDEXPORT_CORRUPT = 4,          /* damaged, altered, truncated, or contradicts itself */
  TIEDEXPORT_UNSUPPORTED = 5,      /* a newer bundle, or what this backend does not do */
  TIEDEXPORT_UNAVAILABLE = 6,      /* the backend cannot work on this machine */
  TIEDEXPORT_OUT_OF_MEMORY = 7,
  TIEDEXPORT_BACKEND_FAILED = 8, /* the backend's library failed, in its own words */
  TIEDEXPORT_INTERNAL = 9        /* a defect of this library */
} tiedexport_status;

typedef enum tiedexport_type {
  TIEDEXPORT_FP32 = 0,
  TIEDEXPORT_FP16 = 1,
  TIEDEXPORT_BF16 = 2
} tiedexport_type;

typedef enum tiedexport_check {
  TIEDEXPORT_CHECK_HASH = 0, /* every file's SHA-256 */
  TIEDEXPORT_CHECK_SIZE = 1  /* sizes only: for a host that has verified this bundle before */
} tiedexport_check;

/* A bundle on disk, checked. */
typedef struct tiedexport_bundle tiedexport_bundle;
/* A bundle opened in one backend and precision. It keeps what it needs of its bundle. */
typedef struct tiedexport_session tiedexport_session;

#define TIEDEXPORT_MAX_RANK 8

/* A stage's input or output. Arrays are densely packed, row-major, [batch, shape...]. */
typedef struct tiedexport_tensor {
  const char* name; /* lives as long as the bundle or a session of it */
  tiedexport_type type;
  uint32_t rank; /* without the batch axis */
  uint64_t shape[TIEDEXPORT_MAX_RANK];
  uint64_t sample_bytes; /* of one sample */
} tiedexport_tensor;

typedef struct tiedexport_stage {
  const char* name; /* "encoder", "decoder", "autoencoder"; lives as `name` does */
  tiedexport_tensor input, output;
} tiedexport_stage;

/* Start from TIEDEXPORT_SESSION_OPTIONS_INIT; zeros and NULL mean the default. */
typedef struct tiedexport_session_options {
  uint32_t struct_size;  /* sizeof(tiedexport_session_options), set by the macro */
  int32_t threads;       /* CPU threads; 0: one a processor that this process may run on */
  const char* backend;   /* "native", "onnxruntime", "tensorrt"; NULL or "auto": the best here */
  const char* precision; /* "fp32", "fp16", "bf16"; NULL: the first that is stored and runs */
  const char* simd;      /* an instruction set of `native`, for comparing; NULL: the best here */
  int32_t device;        /* of a GPU backend */
} tiedexport_session_options;
#ifdef __cplusplus
#define TIEDEXPORT_SESSION_OPTIONS_INIT \
  {static_cast<uint32_t>(sizeof(tiedexport_session_options)), 0, nullptr, nullptr, nullptr, 0}
#else
#define TIEDEXPORT_SESSION_OPTIONS_INIT \
  {(uint32_t)sizeof(tiedexport_session_options), 0, 0, 0, 0, 0}
#endif

/* The ABI version of the library that was loaded; compare with TIEDEXPORT_ABI_VERSION. */
TIEDEXPORT_API uint32_t tiedexport_abi_version(void);
/* "0.1.0" */
TIEDEXPORT_API const char* tiedexport_version(void);
/* What the last failed call of this thread said: what, where, got, expected, what to try.
 * Never NULL; valid until this thread's next failing call. */
TIEDEXPORT_API const char* tiedexport_last_error(void);

/* Backends and instruction sets, which are in, which work here, and why the others do not, as
 * text of several lines. Writes at most `size` bytes with the final 0; returns the bytes that all
 * of it takes, so call it with (NULL, 0) first. */
TIEDEXPORT_API size_t tiedexport_info(char* text, size_t size);

/* Opens the bundle in the directory `path`: checks its manifest, names, sizes and (with
 * TIEDEXPORT_CHECK_HASH) every hash. Weights are mapped, not read: replace the files of an open
 * bundle, never write to them, which alters results, or cut them, which may end the process. */
TIEDEXPORT_API tiedexport_status tiedexport_open(const char* path, tiedexport_check check,
                                                 tiedexport_bundle** bundle);
/* NULL is allowed. Sessions of it stay valid. */
TIEDEXPORT_API void tiedexport_close(tiedexport_bundle* bundle);

TIEDEXPORT_API size_t tiedexport_stage_count(const tiedexport_bundle* bundle);
/* The stage at `index`, from 0. */
TIEDEXPORT_API tiedexport_status tiedexport_stage_at(const tiedexport_bundle* bundle, size_t index,
                                                     tiedexport_stage* stage);
TIEDEXPORT_API tiedexport_status tiedexport_stage_named(const tiedexport_bundle* bundle,
                                                        const char* name, tiedexport_stage* stage);
TIEDEXPORT_API size_t tiedexport_precision_count(const tiedexport_bundle* bundle);
/* "fp32", "fp16" or "bf16"; NULL if there is no such index. */
TIEDEXPORT_API const char* tiedexport_precision_at(const tiedexport_bundle* bundle, size_t index);

/* `options` may be NULL. */
TIEDEXPORT_API tiedexport_status
tiedexport_session_create(const tiedexport_bundle* bundle,
                          const tiedexport_session_options* options, tiedexport_session** session);
/* NULL is allowed. */
TIEDEXPORT_API void tiedexport_session_close(tiedexport_session* session);
/* "native", ... */
TIEDEXPORT_API const char* tiedexport_session_backend(const tiedexport_session* session);
/* "fp32", ... */
TIEDEXPORT_API const char* tiedexport_session_precision(const tiedexport_session* session);
/* One line: instruction set, threads, device, versions. */
TIEDEXPORT_API const char* tiedexport_session_description(const tiedexport_session* session);

/* Runs a stage on `batch` samples in host memory. `input` and `output` must not overlap, and hold
 * batch * sample_bytes of the stage's tensors. A batch of 0 does nothing. */
TIEDEXPORT_API tiedexport_status tiedexport_run(tiedexport_session* session, const char* stage,
                                                const void* input, size_t batch, void* output);
TIEDEXPORT_API tiedexport_status tiedexport_encode(tiedexport_session* session, const void* input,
                                                   size_t batch, void* code);
TIEDEXPORT_API tiedexport_status tiedexport_decode(tiedexport_session* session, const void* code,
                                                   size_t batch, void* output);
TIEDEXPORT_API tiedexport_status tiedexport_reconstruct(tiedexport_session* session,
                                                        const void* input, size_t batch,
                                                        void* output);
/* Enqueues a stage on the caller's CUDA stream (a cudaStream_t), on device memory, and returns at
 * once. Only for GPU backends; others return TIEDEXPORT_UNSUPPORTED. */
TIEDEXPORT_API tiedexport_status tiedexport_enqueue(tiedexport_session* session, const char* stage,
                                                    const void* device_input, size_t batch,
                                                    void* device_output, void* stream);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* TIEDEXPORT_TIEDEXPORT_H_ */
