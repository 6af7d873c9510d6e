// A stage as a few products, computed with the weights where they lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "native/convolution.hpp"
#include "native/products.hpp"

namespace tiedexport::internal::native {

/// A product with the activation behind it.
struct Step {
  enum class Kind : std::uint8_t { encode, decode, pair, conv, conv_transpose, activate };

  Kind kind;
  Matrix w{};
  const float* bias = nullptr;  // of the first product
  Activation activation = Activation::none;
  const float* out_bias = nullptr;  // of a pair's second product
  Activation out_activation = Activation::none;
  Convolution convolution{};
  std::size_t out_count = 0;  // numbers of a sample
};

/// What a stage computes. Weights belong to their mapping, which must live as long.
struct Program {
  Type input_type = Type::fp32, output_type = Type::fp32;
  std::size_t input_count = 0, output_count = 0;
  std::vector<Step> steps;
  std::vector<std::unique_ptr<float[]>> biases;  // widened, for the steps
};

/// Fuses what can be fused. Throws Error (CORRUPT) where layers, weights and the stage's input and
/// output contradict each other; `where` is for messages.
Program compile(const Stage& stage, const Weights& weights, Simd simd, const std::string& where);

/// The memory of one call: values between steps, and what products need meanwhile.
struct Workspace {
  Scratch values, products;
  Pool alone{1};                                  // for what is not worth a second thread
  std::vector<std::unique_ptr<Workspace>> parts;  // of threads that have samples of their own
};

/// Computes `batch` samples; `input` and `output` are densely packed in the program's types.
void run(const Program& program, std::size_t batch, const void* input, void* output, Simd simd,
         Pool& pool, Workspace& workspace);

}  // namespace tiedexport::internal::native
