// A double of libnvinfer.so: a plan is text, and its kernels are loops on the host.
//
//   tensor NAME in|out fp32|fp16 DIM...     an input or output; -1 is the batch
//   hidden NAME COLUMNS                     what one layer hands to the next
//   profile INDEX NAME MIN MAX              the batches of an input
//   dense FROM TO WEIGHT plain|transposed   TO = FROM WEIGHTᵀ or FROM WEIGHT, all fp32
//   scale FROM TO FACTOR                    TO = FACTOR · FROM repeated: a baked weight
#pragma once

#include <string>

namespace tiedexport::doubles {

struct NvinferDouble {
  // What tests set.
  int major = 0, minor = 1, patch = 0, build = 106;  // 0: that of the headers
  int cuda = 13000;
  bool makes_runtimes = true, makes_contexts = true, captures = true, runs = true;

  // What tests look at.
  int runtimes = 0, engines = 0, contexts = 0;  // alive
  int executions = 0, deserialised = 0, host_code_allowed = 0;
  int asked_for_cuda = 0;
  std::string misuse;  // the first thing that TensorRT forbids
};

}  // namespace tiedexport::doubles

extern "C" tiedexport::doubles::NvinferDouble* nvinfer_double();
