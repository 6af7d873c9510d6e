// SHA-256 against the vectors of NIST (FIPS 180-4, SHAVS) and digests that hashlib computed.
#include "sha256.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tiedexport::internal {
namespace {

std::string digest(std::string_view bytes, bool accelerated) {
  Sha256 hash(accelerated);
  hash.update(bytes.data(), bytes.size());
  return hash.hex();
}

/// Bytes that hashlib was given too: (7 i² + i / 3) mod 251.
std::string pattern(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>((7 * i * i + i / 3) % 251);
  return bytes;
}

class Sha256Test : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !sha256::accelerated_here())
      GTEST_SKIP() << "this CPU has no instructions for SHA-256";
  }
};

TEST_P(Sha256Test, KnowsTheVectorsOfTheStandard) {
  const std::vector<std::pair<std::string, std::string>> vectors{
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {"\xbd", "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b"},
      {std::string(1000000, 'a'),
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
  for (const auto& [bytes, expected] : vectors) EXPECT_EQ(digest(bytes, GetParam()), expected);
}

TEST_P(Sha256Test, AgreesWithHashlibAroundEveryEdgeOfABlock) {
  const std::vector<std::pair<std::size_t, std::string>> digests{
      {1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
      {55, "8fe9de7dfeca0d62f84c0b0812cfa99decad5350e0db65e28d8f8f992649ae7e"},
      {56, "0055d0f38b2def2cfdab2bd1723222872d3430519b008d0855f3d81dfc25f213"},
      {63, "ebdd754490f8b4b36d3ea54c7bb9fa6c43166c05b25ba139038369029df8fe0f"},
      {64, "bdbb7f418f1917028511dd96c5e78a95998d674086d11ccd3db2a182c9baa32d"},
      {65, "fc39e020cb46d82daa943c875972655e26f30f9910cd1fd724bcf9ced9c2a9c8"},
      {119, "5d30b975891b703d78b96c7d7bb60736fd7c775eca986cadff3be6fd57241a4c"},
      {120, "277a69b26c041ce6a285c03947fc0bbf5e1a27603d3a60f67e6b327e9e3f5fa7"},
      {127, "bd2bb80db9d8d66f7f755e3bc2048d0d68c5cf98cf5d0ac6f9171dcdcdc68f9b"},
      {128, "668ee615587b36ba0908814610dbeaaa19131a7b33d9a81dfece8704ea7a1e05"},
      {129, "130dfda2c311f9dd06f35157676af5cfe684738d1f721ade69a683292138bf4e"},
      {4095, "b8d6b75794ac7013fb27b2ac5189d75925ad912bfd526b1ee7722ad08bb592aa"},
      {4096, "a65a9b1afe50f093044337fb038f780949909e9717895aa4141c5efba9c234a2"},
      {100003, "d610be5c424751f7dc940fede384280912ce6aa822a0af61781dda61bcfa743c"}};
  for (const auto& [count, expected] : digests)
    EXPECT_EQ(digest(pattern(count), GetParam()), expected) << count << " bytes";
}

TEST_P(Sha256Test, DoesNotDependOnHowTheBytesArrive) {
  const std::string bytes = pattern(1000);
  const std::string expected = digest(bytes, GetParam());
  for (std::size_t piece = 1; piece < 200; ++piece) {
    Sha256 hash(GetParam());
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      hash.update(bytes.data() + at, std::min(piece, bytes.size() - at));
    EXPECT_EQ(hash.hex(), expected) << "in pieces of " << piece;
  }
}

TEST_P(Sha256Test, HashesTheSameByEitherWay) {
  for (std::size_t count = 0; count < 300; ++count)
    EXPECT_EQ(digest(pattern(count), GetParam()), digest(pattern(count), false)) << count;
}

INSTANTIATE_TEST_SUITE_P(Ways, Sha256Test, ::testing::Bool(),
                         [](const auto& way) { return way.param ? "Accelerated" : "Portable"; });

}  // namespace
}  // namespace tiedexport::internal
