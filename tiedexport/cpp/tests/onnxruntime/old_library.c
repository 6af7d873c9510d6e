/* A library that says it is ONNX Runtime 1.21.9, and is not to be asked for more. */
#include <stdint.h>
#include <stdlib.h>

struct Base {
  const void* (*get_api)(uint32_t version);
  const char* (*version)(void);
};

static const void* get_api(uint32_t version) {
  (void)version;
  abort();
}

static const char* version(void) { return "1.21.9"; }

const struct Base* OrtGetApiBase(void) {
  static const struct Base base = {get_api, version};
  return &base;
}
