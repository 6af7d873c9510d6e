// From a stage's layers and its weights to steps; nothing in either is believed before it is
// checked against the other.
#include <array>
#include <utility>

#include "error.hpp"
#include "native/program.hpp"
#include "native/program_shape.hpp"
#include "words.hpp"

namespace tiedexport::internal::native {
namespace {

/// The value between layers has this shape, without the batch axis.
class Compiler {
 public:
  Compiler(const Stage& stage, const Weights& weights, Simd simd, std::string where)
      : stage_(stage),
        weights_(weights),
        simd_(simd),
        where_(std::move(where)),
        place_(where_ + ", input of stage " + quoted(stage.name)) {}

  Program compile() {
    shape_ = stage_.input.element_shape;
    program_.input_type = stage_.input.type;
    program_.input_count = place_.count_of(shape_);
    for (std::size_t i = 0; i < stage_.layers.size(); ++i) {
      const Layer& layer = stage_.layers[i];
      place_ =
          LayerPlace(where_ + ", layer " + std::to_string(i) + " of stage " + quoted(stage_.name) +
                     (layer.weight.empty() ? "" : ", weight " + quoted(layer.weight)));
      add(layer);
    }
    place_ = LayerPlace(where_ + ", output of stage " + quoted(stage_.name));
    if (shape_ != stage_.output.element_shape)
      place_.refuse("the layers do not give the output's shape", shape_,
                    stage_.output.element_shape);
    program_.output_type = stage_.output.type;
    program_.output_count = place_.count_of(shape_);
    return std::move(program_);
  }

 private:
  void add(const Layer& layer) {
    switch (layer.op) {
      case Op::dense:
        return add_dense(layer);
      case Op::conv:
      case Op::conv_transpose:
        return add_convolution(layer);
      case Op::relu:
        return add_activation(Activation::relu);
      case Op::gelu:
        return add_activation(Activation::gelu);
      case Op::tanh:
        return add_activation(Activation::tanh);
      case Op::sigmoid:
        return add_activation(Activation::sigmoid);
      case Op::reshape:
        if (place_.count_of(layer.shape) != place_.count_of(shape_))
          place_.refuse("a reshape does not keep the number of elements", layer.shape, shape_);
        shape_ = layer.shape;
        return;
    }
  }

  void add_dense(const Layer& layer) {
    const Tensor& weight = weight_of(layer, 2);
    const std::size_t in = weight.shape[layer.transposed ? 0 : 1];
    const std::size_t out = weight.shape[layer.transposed ? 1 : 0];
    if (shape_ != Shape{in}) place_.refuse("a weight does not fit its input", shape_, Shape{in});
    shape_ = {out};
    const Matrix w{weight.data, weight.type, weight.shape[0], weight.shape[1]};
    const float* bias = bias_of(layer, out);
    // Back through the weight that the value just came through: one sweep serves both.
    if (layer.transposed && !program_.steps.empty()) {
      Step& before = program_.steps.back();
      if (before.kind == Step::Kind::encode && before.w.data == w.data) {
        before.kind = Step::Kind::pair;
        before.out_bias = bias;
        before.out_count = out;
        return;
      }
    }
    append(layer.transposed ? Step::Kind::decode : Step::Kind::encode, w, bias);
  }

  void add_convolution(const Layer& layer) {
    const Tensor& weight = weight_of(layer, 4);
    const bool transposed = layer.op == Op::conv_transpose;
    const std::size_t in = weight.shape[transposed ? 0 : 1];
    const std::size_t out = weight.shape[transposed ? 1 : 0];
    if (shape_.size() != 3 || shape_[0] != in) {
      place_.refuse("a weight does not fit its input", shape_, {in, 0, 0},
                    "[channels, height, width], of any height and width");
    }
    std::array<Window, 2> axes{};
    for (std::size_t i = 0; i < 2; ++i) {
      const Taken taken{weight.shape[i + 2], layer.strides[i], layer.pads[i],
                        transposed ? layer.output_padding[i] : 0};
      axes[i] = transposed ? place_.window_onto(shape_[i + 1], taken)
                           : place_.window_over(shape_[i + 1], taken);
    }
    shape_ = transposed ? Shape{out, axes[0].image, axes[1].image}
                        : Shape{out, axes[0].grid, axes[1].grid};
    const Matrix w{weight.data, weight.type, weight.shape[0], weight.count / weight.shape[0]};
    const auto kind = transposed ? Step::Kind::conv_transpose : Step::Kind::conv;
    Step& step = append(kind, w, bias_of(layer, out));
    step.convolution = {weight.shape[1], weight.shape[0], axes[0], axes[1]};
  }

  void add_activation(Activation activation) {
    if (!program_.steps.empty()) {
      Step& before = program_.steps.back();
      Activation& free =
          before.kind == Step::Kind::pair ? before.out_activation : before.activation;
      if (free == Activation::none) {
        free = activation;
        return;
      }
    }
    append(Step::Kind::activate, {}, nullptr).activation = activation;
  }

  Step& append(Step::Kind kind, const Matrix& w, const float* bias) {
    Step step{};
    step.kind = kind;
    step.w = w;
    step.bias = bias;
    step.out_count = place_.count_of(shape_);
    program_.steps.push_back(step);
    return program_.steps.back();
  }

  const Tensor& weight_of(const Layer& layer, std::size_t rank) {
    const Tensor& weight = weights_.tensor(layer.weight);
    if (weight.shape.size() != rank)
      place_.refuse("a weight has another number of axes than its layer", weight.shape, {},
                    std::to_string(rank) + " axes");
    if (place_.count_of(weight.shape) != weight.count)
      place_.refuse("a weight does not hold what its shape says", weight.shape, {},
                    std::to_string(weight.count) + " elements");
    return weight;
  }

  const float* bias_of(const Layer& layer, std::size_t count) {
    if (layer.bias.empty()) return nullptr;
    const Tensor& bias = weights_.tensor(layer.bias);
    if (bias.shape != Shape{count})
      place_.refuse("bias " + quoted(layer.bias) + " does not fit its layer", bias.shape,
                    Shape{count});
    auto widened = std::make_unique<float[]>(count);
    widen(bias.type, bias.data, count, widened.get(), simd_);
    program_.biases.push_back(std::move(widened));
    return program_.biases.back().get();
  }

  const Stage& stage_;
  const Weights& weights_;
  const Simd simd_;
  const std::string where_;
  LayerPlace place_;
  Shape shape_;
  Program program_;
};

}  // namespace

Program compile(const Stage& stage, const Weights& weights, Simd simd, const std::string& where) {
  return Compiler(stage, weights, simd, where).compile();
}

}  // namespace tiedexport::internal::native
