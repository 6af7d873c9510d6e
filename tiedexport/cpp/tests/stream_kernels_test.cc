// Kernels of a few samples compute the same whatever they call ahead: stream_test.cc holds those
// for W in cache to float64, these hold the others to them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "native/stream.hpp"

namespace tiedexport::internal::native::stream {
namespace {

constexpr std::size_t kRows = 29, kColumns = 531, kPadded = 544, kMostSamples = 8;
constexpr Simd kSimds[] = {Simd::scalar, Simd::sse4, Simd::avx2, Simd::avx512, Simd::neon};

struct alignas(64) Line {
  float values[16];
};

/// fp32 that begin at a line of cache.
std::vector<Line> lines(std::size_t floats, float value) {
  Line line;
  for (float& each : line.values) each = value;
  return std::vector<Line>((floats + 15) / 16, line);
}

std::vector<std::byte> stored(Type type, Simd simd) {
  std::mt19937 random{3};
  std::uniform_real_distribution<float> number(-1.0F, 1.0F);
  std::vector<float> values(kRows * kColumns);
  for (float& value : values) value = number(random);
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  if (type == Type::fp32)
    std::memcpy(bytes.data(), values.data(), bytes.size());
  else
    narrow(type, values.data(), values.size(), bytes.data(), simd);
  return bytes;
}

class StreamKernels : public testing::TestWithParam<Type> {};

TEST_P(StreamKernels, ComputeTheSameWhateverTheyCallAhead) {
  for (const Simd simd : kSimds) {
    if (!simd_runs_here(simd)) continue;
    const Kernels kernel = kernels(simd);
    const std::vector<std::byte> w = stored(GetParam(), simd);
    for (std::size_t n = 1; n <= kernel.block(kMostSamples); ++n) {
      if (kernel.block(n) != n) continue;
      std::vector<Line> x = lines(kPadded * n, 0.25F);
      const auto run = [&](Ahead ahead) {
        const Rows rows{w.data(), GetParam(), kRows, kColumns, kColumns, ahead};
        std::vector<float> z(kRows * n, NAN);
        kernel.dots(rows, {x.front().values, n, 256}, z.data());
        std::vector<Line> out = lines(kPadded * n, 1.0F);
        kernel.add_rows(rows, z.data(), {out.front().values, n, 256});
        for (std::size_t k = 0; k + kernel.lanes <= kColumns; k += kernel.lanes)
          z.push_back(out[k * n / 16].values[k * n % 16]);
        return z;
      };
      const std::vector<float> expected = run(Ahead::cached);
      for (const Ahead ahead : {Ahead::nothing, Ahead::next, Ahead::behind}) {
        const std::vector<float> found = run(ahead);
        for (std::size_t i = 0; i < expected.size(); ++i)
          ASSERT_NEAR(found[i], expected[i], 1e-3F)
              << name_of(simd) << ", samples " << n << ", " << static_cast<int>(ahead) << ", " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Type, StreamKernels, testing::Values(Type::fp32, Type::fp16, Type::bf16));

}  // namespace
}  // namespace tiedexport::internal::native::stream
