#include "sha256.hpp"

#include <algorithm>
#include <cstring>

namespace tiedexport::internal {
namespace sha256 {

const std::array<std::uint32_t, 64> round_constants{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

}  // namespace sha256

namespace {

// The first 32 bits of the fractional parts of the square roots of the first 8 primes.
constexpr Sha256::State initial_state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

std::uint32_t rotated(std::uint32_t x, int right) { return (x >> right) | (x << (32 - right)); }

std::array<std::uint32_t, 64> schedule(const unsigned char* block) {
  std::array<std::uint32_t, 64> w;
  for (std::size_t i = 0; i < 16; ++i)
    w[i] = std::uint32_t{block[4 * i]} << 24 | std::uint32_t{block[4 * i + 1]} << 16 |
           std::uint32_t{block[4 * i + 2]} << 8 | std::uint32_t{block[4 * i + 3]};
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (rotated(a, 7) ^ rotated(a, 18) ^ (a >> 3)) + w[i - 7] +
           (rotated(b, 17) ^ rotated(b, 19) ^ (b >> 10));
  }
  return w;
}

void compress_block(Sha256::State& state, const unsigned char* block) {
  const std::array<std::uint32_t, 64> w = schedule(block);
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t t1 = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
                             ((e & f) ^ (~e & g)) + sha256::round_constants[i] + w[i];
    const std::uint32_t t2 =
        (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const Sha256::State added{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state.size(); ++i) state[i] += added[i];
}

void compress_portably(Sha256::State& state, const unsigned char* blocks, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) compress_block(state, blocks + i * Sha256::block_bytes);
}

void append_hex(std::string& text, std::uint32_t word) {
  for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[(word >> shift) & 15];
}

}  // namespace

Sha256::Sha256(bool accelerated)
    : compress_(accelerated && sha256::accelerated_here() ? sha256::compress_accelerated
                                                          : compress_portably),
      state_(initial_state) {}

void Sha256::update(const void* bytes, std::size_t count) {
  if (count == 0) return;
  const auto* next = static_cast<const unsigned char*>(bytes);
  total_bytes_ += count;
  if (partial_bytes_ > 0) {
    const std::size_t fitting = std::min(count, block_bytes - partial_bytes_);
    std::memcpy(partial_.data() + partial_bytes_, next, fitting);
    partial_bytes_ += fitting;
    next += fitting;
    count -= fitting;
    if (partial_bytes_ < block_bytes) return;
    compress_(state_, partial_.data(), 1);
    partial_bytes_ = 0;
  }
  compress_(state_, next, count / block_bytes);
  partial_bytes_ = count % block_bytes;
  if (partial_bytes_ > 0)
    std::memcpy(partial_.data(), next + count - partial_bytes_, partial_bytes_);
}

std::string Sha256::hex() {
  const std::uint64_t bits = total_bytes_ * 8;
  std::array<unsigned char, 2 * block_bytes> tail{};
  std::memcpy(tail.data(), partial_.data(), partial_bytes_);
  tail[partial_bytes_] = 0x80;
  const std::size_t blocks = partial_bytes_ + 9 <= block_bytes ? 1 : 2;
  for (std::size_t i = 0; i < 8; ++i)
    tail[blocks * block_bytes - 1 - i] = static_cast<unsigned char>(bits >> (8 * i));
  compress_(state_, tail.data(), blocks);
  std::string text;
  text.reserve(64);
  for (const std::uint32_t word : state_) append_hex(text, word);
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  return hash.hex();
}

}  // namespace tiedexport::internal
