#include "native/amx.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "native/cpuid.hpp"
#include "native/products.hpp"
#include "native/tile.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tiedexport::internal::native {
namespace {

#if defined(__x86_64__) && defined(__linux__)

/// CPUID leaf 0x1D describes palette 1, the only one that kernels use.
bool has_tiles_of_a_kilobyte() {
  const cpuid::Leaf palette(0x1D, 1);
  const unsigned bytes_per_tile = palette.eax >> 16, bytes_per_row = palette.ebx & 0xFFFF;
  const unsigned tiles = palette.ebx >> 16, rows = palette.ecx & 0xFFFF;
  return cpuid::Leaf(0x1D, 0).eax >= 1 && bytes_per_tile == 1024 && bytes_per_row == 64 &&
         tiles >= 8 && rows == 16;
}

/// Tiles are 8 KiB that Linux saves for those processes only that have asked for it, since signal
/// handlers' stacks must hold them: it refuses where such a stack is too small.
bool linux_permits() {
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

/// What a CPU or a system lacks.
const char* missing() {
  using cpuid::bit;
  if (!cpuid::all(cpuid::Leaf(7, 0).edx, bit(22) | bit(24))) return "this CPU has no AMX";
  if (!simd_runs_here(Simd::avx512_bf16)) return "this CPU or build has no AVX-512 with bfloat16";
  if (!has_tiles_of_a_kilobyte()) return "this CPU has AMX, but no tiles of 16 rows of 64 bytes";
  if (!cpuid::all(cpuid::saved_states(), bit(17) | bit(18))) return "the system does not save AMX";
  if (!linux_permits()) return "Linux does not permit AMX to this process (arch_prctl)";
  return nullptr;
}

#else
const char* missing() { return nullptr; }
#endif

/// Small whole numbers, of which every product and sum is exact, in whatever order.
std::vector<float> whole_numbers(std::size_t count, std::size_t factor) {
  std::vector<float> numbers(count);
  for (std::size_t i = 0; i < count; ++i) {
    numbers[i] = static_cast<float>(i * factor % 31) - 15.0F;
  }
  return numbers;
}

/// Both products of a small matrix whose edges leave tiles half empty.
std::vector<float> small_products(Simd simd, const tile::Kernels& kernels) {
  constexpr std::size_t rows = 41, columns = 75, batch = 19;
  const std::vector<float> weights = whole_numbers(rows * columns, 5);
  const std::vector<float> x = whole_numbers(batch * columns, 7),
                           z = whole_numbers(batch * rows, 9);
  std::vector<std::uint16_t> w(weights.size());
  narrow(Type::bf16, weights.data(), w.size(), w.data(), simd);
  const Matrix matrix{w.data(), Type::bf16, rows, columns};
  Pool pool(1);
  Scratch scratch;
  Context context{simd, pool, scratch};
  std::vector<float> results(batch * (rows + columns));
  float* encoded = results.data();
  float* decoded = encoded + batch * rows;
  tile::encode({matrix, batch, x.data(), nullptr, Activation::none, encoded}, context, kernels);
  scratch.rewind();
  tile::decode({matrix, batch, z.data(), nullptr, Activation::none, decoded}, context, kernels);
  return results;
}

const char* find_out() {
  const tile::Kernels* kernels = tile::amx_kernels();
  if (kernels == nullptr)
    return "this build has no AMX: it needs Linux on x86-64, and a newer compiler";
  if (const char* reason = missing()) return reason;
  const bool right = small_products(Simd::avx512, *kernels) ==
                     small_products(Simd::scalar, tile::kernels(Simd::scalar, Type::bf16, 1));
  return right ? nullptr : "AMX of this CPU gives other results than the portable kernels";
}

}  // namespace

const char* why_no_amx() {
  static const char* const reason = find_out();
  return reason;
}

}  // namespace tiedexport::internal::native
