#include "native/scratch.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "error.hpp"

namespace tiedexport::internal::native {
namespace {

TEST(Scratch, GivesAlignedMemoryThatDoesNotOverlap) {
  Scratch scratch;
  for (int call = 0; call < 3; ++call) {
    std::vector<std::pair<unsigned char*, std::size_t>> taken;
    for (const std::size_t bytes : {1U, 63U, 64U, 65U, 100000U, 7U, 300000U}) {
      auto* memory = scratch.take_array<unsigned char>(bytes);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % 64, 0U);
      std::memset(memory, static_cast<int>(taken.size()), bytes);
      taken.emplace_back(memory, bytes);
    }
    for (std::size_t i = 0; i < taken.size(); ++i) {
      for (std::size_t k = 0; k < taken[i].second; ++k) ASSERT_EQ(taken[i].first[k], i);
    }
    scratch.rewind();
  }
}

TEST(Scratch, FindsOneBlockAsLargeAsAllOfTheLastCall) {
  Scratch scratch;
  scratch.take(100000);
  scratch.take(200000);
  scratch.rewind();
  auto* first = scratch.take_array<unsigned char>(100000);
  auto* second = scratch.take_array<unsigned char>(200000);
  EXPECT_EQ(second - first, (100000 + 63) / 64 * 64);
  scratch.rewind();
  EXPECT_EQ(scratch.take_array<unsigned char>(5), first);
}

TEST(Scratch, SaysWhereMemoryEnds) {
  Scratch scratch;
  std::vector<std::size_t> sizes{std::numeric_limits<std::size_t>::max()};
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which end the process here
  sizes.push_back(std::numeric_limits<std::size_t>::max() / 2);
#endif
  for (const std::size_t bytes : sizes) {
    try {
      scratch.take(bytes);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), TIEDEXPORT_OUT_OF_MEMORY);
    }
  }
  EXPECT_NE(scratch.take(64), nullptr);
}

}  // namespace
}  // namespace tiedexport::internal::native
