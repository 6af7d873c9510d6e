// What a stage gives, layer by layer in float64, and how far off fp32 may be in the worst case.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "stored_model.hpp"

namespace tiedexport::internal {

/// One value of one sample: exact numbers, and a bound on the error of each.
struct Numbers {
  std::vector<std::size_t> shape;
  std::vector<double> exact, bound;
};

/// A sum of products in fp32 in any order: of n terms t it errs by at most γ_n Σ|t|, and its
/// factors by what they err, or are rounded by, before.
struct Sum {
  double value = 0.0, magnitude = 0.0, carried = 0.0;
  std::size_t terms = 0;

  void add(double weight, double x, double x_bound, double factor_rounding) {
    const double reach = std::abs(x) + x_bound;
    value += weight * x;
    magnitude += std::abs(weight) * reach;
    carried += std::abs(weight) * (x_bound + factor_rounding * reach);
    ++terms;
  }
  double bound() const {
    const double nu = static_cast<double>(terms + 2) * std::ldexp(1.0, -24);
    return carried + nu / (1.0 - nu) * (magnitude + carried) + std::ldexp(1.0, -140);
  }
};

/// `factor_rounding` is that of activations where products take them in a narrower type, or 0.
class NaiveStage {
 public:
  NaiveStage(const Stage& stage, const StoredTensors& tensors, double factor_rounding)
      : stage_(stage), tensors_(tensors), factor_rounding_(factor_rounding) {}

  Numbers of_sample(const double* sample) const {
    std::size_t count = 1;
    for (const std::size_t size : stage_.input.element_shape) count *= size;
    Numbers x{stage_.input.element_shape, {sample, sample + count}, std::vector<double>(count)};
    for (const Layer& layer : stage_.layers) x = after(layer, x);
    return x;
  }

 private:
  Numbers after(const Layer& layer, const Numbers& x) const {
    switch (layer.op) {
      case Op::dense:
        return dense(layer, x);
      case Op::conv:
        return conv(layer, x);
      case Op::conv_transpose:
        return conv_transpose(layer, x);
      case Op::reshape:
        return {layer.shape, x.exact, x.bound};
      default:
        return activated(layer.op, x);
    }
  }

  double bias_of(const Layer& layer, std::size_t i) const {
    return layer.bias.empty() ? 0.0 : tensors_.at(layer.bias).values[i];
  }

  static Numbers summed(const std::vector<std::size_t>& shape, std::vector<Sum>& sums) {
    Numbers y{shape, {}, {}};
    for (const Sum& sum : sums) {
      y.exact.push_back(sum.value);
      y.bound.push_back(sum.bound());
    }
    return y;
  }

  Numbers dense(const Layer& layer, const Numbers& x) const {
    const StoredTensor& w = tensors_.at(layer.weight);
    const std::size_t in = w.shape[layer.transposed ? 0 : 1],
                      out = w.shape[layer.transposed ? 1 : 0];
    std::vector<Sum> sums(out);
    for (std::size_t o = 0; o < out; ++o) {
      sums[o].add(bias_of(layer, o), 1.0, 0.0, 0.0);
      for (std::size_t i = 0; i < in; ++i) {
        const double weight = layer.transposed ? w.values[i * out + o] : w.values[o * in + i];
        sums[o].add(weight, x.exact[i], x.bound[i], factor_rounding_);
      }
    }
    return summed({out}, sums);
  }

  Numbers conv(const Layer& layer, const Numbers& x) const {
    const StoredTensor& w = tensors_.at(layer.weight);
    const auto& [out, in, ky, kx] = sizes(w.shape);
    const std::size_t h = x.shape[1], wd = x.shape[2];
    const std::size_t oh = (h + 2 * layer.pads[0] - ky) / layer.strides[0] + 1;
    const std::size_t ow = (wd + 2 * layer.pads[1] - kx) / layer.strides[1] + 1;
    std::vector<Sum> sums(out * oh * ow);
    for (std::size_t o = 0; o < out; ++o)
      for (std::size_t py = 0; py < oh; ++py)
        for (std::size_t px = 0; px < ow; ++px) {
          Sum& sum = sums[(o * oh + py) * ow + px];
          sum.add(bias_of(layer, o), 1.0, 0.0, 0.0);
          for (std::size_t c = 0; c < in; ++c)
            for (std::size_t i = 0; i < ky; ++i)
              for (std::size_t j = 0; j < kx; ++j) {
                const std::size_t y = py * layer.strides[0] + i - layer.pads[0];
                const std::size_t xx = px * layer.strides[1] + j - layer.pads[1];
                if (y >= h || xx >= wd) {  // negative ones wrap
                  ++sum.terms;
                  continue;
                }
                const std::size_t at = (c * h + y) * wd + xx;
                sum.add(w.values[((o * in + c) * ky + i) * kx + j], x.exact[at], x.bound[at],
                        factor_rounding_);
              }
        }
    return summed({out, oh, ow}, sums);
  }

  Numbers conv_transpose(const Layer& layer, const Numbers& x) const {
    const StoredTensor& w = tensors_.at(layer.weight);
    const auto& [in, out, ky, kx] = sizes(w.shape);
    const std::size_t h = x.shape[1], wd = x.shape[2];
    const std::size_t oh =
        (h - 1) * layer.strides[0] + ky + layer.output_padding[0] - 2 * layer.pads[0];
    const std::size_t ow =
        (wd - 1) * layer.strides[1] + kx + layer.output_padding[1] - 2 * layer.pads[1];
    std::vector<Sum> sums(out * oh * ow);
    for (std::size_t o = 0; o < sums.size(); ++o)
      sums[o].add(bias_of(layer, o / (oh * ow)), 1.0, 0.0, 0.0);
    for (std::size_t c = 0; c < in; ++c)
      for (std::size_t at = 0; at < h * wd; ++at)
        for (std::size_t tap = 0; tap < out * ky * kx; ++tap) {
          const std::size_t y = at / wd * layer.strides[0] + tap / kx % ky - layer.pads[0];
          const std::size_t xx = at % wd * layer.strides[1] + tap % kx - layer.pads[1];
          if (y >= oh || xx >= ow) continue;
          sums[(tap / (ky * kx) * oh + y) * ow + xx].add(
              w.values[c * out * ky * kx + tap], x.exact[c * h * wd + at], x.bound[c * h * wd + at],
              factor_rounding_);
        }
    return summed({out, oh, ow}, sums);
  }

  struct Four {
    std::size_t a, b, c, d;
  };
  static Four sizes(const std::vector<std::size_t>& shape) {
    return {shape[0], shape[1], shape[2], shape[3]};
  }

  static Numbers activated(Op op, const Numbers& x) {
    Numbers y{x.shape, {}, {}};
    for (std::size_t i = 0; i < x.exact.size(); ++i) {
      const double z = x.exact[i];
      double value = z > 0.0 ? z : 0.0, slope = 1.0, roundings = 0.0;
      if (op != Op::relu) roundings = 6.0;
      if (op == Op::tanh) value = std::tanh(z);
      if (op == Op::sigmoid) value = 1.0 / (1.0 + std::exp(-z));
      if (op == Op::gelu) {
        value = z * 0.5 * std::erfc(-z / std::sqrt(2.0));
        slope = 1.13;  // at √2
      }
      y.exact.push_back(value);
      const double carried = slope * x.bound[i];
      y.bound.push_back(carried + roundings * std::ldexp(1.0, -24) * (std::abs(value) + carried) +
                        std::ldexp(1.0, -140));
    }
    return y;
  }

  const Stage& stage_;
  const StoredTensors& tensors_;
  const double factor_rounding_;
};

}  // namespace tiedexport::internal
