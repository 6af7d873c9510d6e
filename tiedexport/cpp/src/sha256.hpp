// SHA-256 (FIPS 180-4), of our own since a library of cryptography would bring printf and abort.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tiedexport::internal {

class Sha256 {
 public:
  /// `accelerated`: by the CPU's own instructions where it has them.
  explicit Sha256(bool accelerated = true);

  void update(const void* bytes, std::size_t count);
  /// The digest of all bytes so far, as lower-case hex. The last call.
  std::string hex();

  using State = std::array<std::uint32_t, 8>;
  static constexpr std::size_t block_bytes = 64;

 private:
  using Compress = void (*)(State& state, const unsigned char* blocks, std::size_t count);

  Compress compress_;
  State state_;
  std::array<unsigned char, block_bytes> partial_{};
  std::size_t partial_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

std::string sha256_hex(std::string_view bytes);

namespace sha256 {

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
extern const std::array<std::uint32_t, 64> round_constants;

/// Whether this CPU has instructions for SHA-256 that we use; if so, `compress_accelerated` runs.
bool accelerated_here();
void compress_accelerated(Sha256::State& state, const unsigned char* blocks, std::size_t count);

}  // namespace sha256
}  // namespace tiedexport::internal
