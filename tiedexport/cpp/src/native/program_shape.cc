#include "native/program_shape.hpp"

#include "error.hpp"

namespace tiedexport::internal::native {
namespace {

/// Numbers of one value of one sample: 4 TiB of fp32. With it, no size that follows overflows.
constexpr std::size_t kLargestCount = std::size_t{1} << 40;
constexpr std::size_t kLargestStep = std::size_t{1} << 20;  // stride or padding

/// "[3, 28, 28]"
std::string text_of(const Shape& shape) {
  std::string text;
  for (const std::size_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

}  // namespace

void LayerPlace::refuse(const std::string& what, const Shape& got, const Shape& expected,
                        const std::string& expected_words) const {
  throw Error(
      TIEDEXPORT_CORRUPT,
      {what, name_, text_of(got), expected_words.empty() ? text_of(expected) : expected_words, ""});
}

std::size_t LayerPlace::count_of(const Shape& shape) const {
  std::size_t count = 1;
  for (const std::size_t size : shape) {
    if (size == 0 || size > kLargestCount / count)
      refuse("an impossible shape", shape, {}, "1 to 2^40 elements");
    count *= size;
  }
  return count;
}

Window LayerPlace::window_over(std::size_t image, const Taken& taken) const {
  check(taken);
  const std::size_t padded = image + 2 * taken.pad;
  if (padded < taken.kernel)
    refuse("a kernel is larger than its padded image", {taken.kernel}, {}, std::to_string(padded));
  return {image, (padded - taken.kernel) / taken.stride + 1, taken.kernel, taken.stride, taken.pad};
}

Window LayerPlace::window_onto(std::size_t grid, const Taken& taken) const {
  check(taken);
  const std::size_t padded = (grid - 1) * taken.stride + taken.kernel + taken.output_padding;
  if (padded <= 2 * taken.pad)
    refuse("padding leaves nothing of the output", {taken.pad}, {},
           "less than half of " + std::to_string(padded));
  return {padded - 2 * taken.pad, grid, taken.kernel, taken.stride, taken.pad};
}

void LayerPlace::check(const Taken& taken) const {
  for (const std::size_t size : {taken.stride, taken.pad, taken.output_padding})
    if (size > kLargestStep) refuse("an impossible stride or padding", {size}, {}, "up to 2^20");
  if (taken.stride == 0) refuse("an impossible stride", {0}, {}, "1 to 2^20");
}

}  // namespace tiedexport::internal::native
