#include "info.hpp"

#include "backends.hpp"
#include "native/amx.hpp"
#include "native/products.hpp"

namespace tiedexport::internal {
namespace {

using native::Simd;

std::string line(const BackendRow& row) {
  const Availability availability = row.availability();
  const std::string name = "  " + std::string(row.name) + ": ";
  if (!availability.available) return name + "not available: " + words(availability) + "\n";
  return name + "available" + (availability.version.empty() ? "" : ", " + availability.version) +
         "\n";
}

std::string instruction_sets(bool here) {
  std::string text;
  for (const Simd simd : native::kEverySimd) {
    if (native::simd_runs_here(simd) == here)
      text += (text.empty() ? "" : ", ") + std::string(native::name_of(simd));
  }
  return text.empty() ? "none" : text;
}

}  // namespace

std::string info() {
  std::string text = "tiedexport " TIEDEXPORT_VERSION ", ABI " +
                     std::to_string(tiedexport_abi_version()) +
                     "\nbackends, as \"auto\" tries them:\n";
  for (const BackendRow& row : backends()) text += line(row);
  text += "instruction sets of native: " + instruction_sets(true) + "; best here: ";
  text += native::name_of(native::best_simd(Type::bf16));
  text += "\n  not compiled, or not on this CPU: " + instruction_sets(false) + "\n";
  if (const char* reason = native::why_no_amx())
    text += "  no amx_bf16: " + std::string(reason) + "\n";
  return text;
}

}  // namespace tiedexport::internal
