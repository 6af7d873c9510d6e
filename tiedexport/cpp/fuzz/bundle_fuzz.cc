// Feeds hostile bytes to everything that reads a bundle. The first byte says which part reads the
// rest, since mutations alone neither sign a manifest nor count the bytes of a header:
//   m  a manifest, as it is              s  a manifest's body, signed
//   w  a weights file, as it is          h  two bytes, the number of bytes behind a header; the
//   header p  a body, NUL, then as after h: both together are compiled to programs, and these run
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.hpp"
#include "error.hpp"
#include "native/program.hpp"
#include "sha256.hpp"

namespace tiedexport::internal {
namespace {

std::string signed_body(std::string_view body) {
  const std::string text(body);
  return text + ",\n  \"digest\": \"" + sha256_hex(text) + "\"\n}\n";
}

std::string weights_file(std::string_view header_behind_count) {
  if (header_behind_count.size() < 2) return "";
  const auto low = static_cast<unsigned char>(header_behind_count[0]);
  const auto high = static_cast<unsigned char>(header_behind_count[1]);
  std::string header(header_behind_count.substr(2));
  while (header.size() % 8 != 0) header += ' ';
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i));
  bytes += header;
  for (int i = 0; i < low + 256 * high; ++i) bytes += static_cast<char>(i % 61);
  return bytes;
}

File memory_file(std::string_view bytes) {
  File file(memfd_create("weights", MFD_CLOEXEC));
  while (!bytes.empty()) {
    const ssize_t written = write(file.fd(), bytes.data(), bytes.size());
    if (written <= 0) break;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return file;
}

Weights weights_from(std::string_view bytes) {
  return Weights(memory_file(bytes).fd(), bytes.size(), "weights");
}

/// Every byte that a tensor claims is read, so that the sanitizers see one that is not there.
void touch(const Weights& weights) {
  for (const auto& [name, tensor] : weights.tensors()) {
    const auto* const bytes = static_cast<const volatile unsigned char*>(tensor.data);
    for (std::size_t i = 0; i < tensor.count * size_of(tensor.type); ++i) (void)bytes[i];
  }
}

/// Whether a run takes little enough time and memory for fuzzing.
bool is_small(const native::Program& program) {
  constexpr std::size_t most = 4096;
  return std::all_of(program.steps.begin(), program.steps.end(),
                     [](const native::Step& step) {
                       return step.out_count <= most && step.w.rows <= most &&
                              step.w.columns <= most;
                     }) &&
         program.input_count <= most && program.output_count <= most && program.steps.size() <= 64;
}

void compile_and_run(const Manifest& manifest, const Weights& weights) {
  native::Pool pool(1);
  native::Workspace workspace;
  const native::Simd simd = native::best_simd(Type::bf16);
  for (const Stage& stage : manifest.stages) {
    const native::Program program = native::compile(stage, weights, simd, "bundle");
    if (!is_small(program)) continue;
    for (const std::size_t batch : {std::size_t{1}, std::size_t{3}}) {
      const std::vector<char> input(batch * program.input_count * size_of(program.input_type), 1);
      std::vector<char> output(batch * program.output_count * size_of(program.output_type));
      native::run(program, batch, input.data(), output.data(), simd, pool, workspace);
    }
  }
}

void read_as(char kind, std::string_view bytes) {
  if (kind == 'm') {
    parse_manifest(bytes, "manifest");
  } else if (kind == 's') {
    parse_manifest(signed_body(bytes), "manifest");
  } else if (kind == 'w') {
    touch(weights_from(bytes));
  } else if (kind == 'h') {
    touch(weights_from(weights_file(bytes)));
  } else if (kind == 'p') {
    const std::size_t end = std::min(bytes.find('\0'), bytes.size());
    const Manifest manifest = parse_manifest(signed_body(bytes.substr(0, end)), "manifest");
    const std::string file = weights_file(bytes.substr(std::min(end + 1, bytes.size())));
    compile_and_run(manifest, weights_from(file));
  }
}

}  // namespace
}  // namespace tiedexport::internal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    tiedexport::internal::read_as(bytes.front(), bytes.substr(1));
  } catch (const tiedexport::internal::Error&) {
    return 0;  // a refusal, which is what hostile bytes deserve; any other exception is a defect
  }
  return 0;
}
