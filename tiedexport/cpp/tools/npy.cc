#include "npy.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "npy_header.hpp"

namespace run_tool {
namespace {

struct Named {
  tiedexport_type type;
  const char *descr, *name;
};
constexpr Named types[] = {{TIEDEXPORT_FP32, "<f4", "fp32"},
                           {TIEDEXPORT_FP16, "<f2", "fp16"},
                           {TIEDEXPORT_BF16, "<V2", "bf16"}};

const Named& named(tiedexport_type type) {
  return *std::find_if(std::begin(types), std::end(types),
                       [&](const Named& one) { return one.type == type; });
}

std::size_t size_of(tiedexport_type type) { return type == TIEDEXPORT_FP32 ? 4 : 2; }

tiedexport_type type_of(const std::string& descr) {
  if (descr == "|V2" || descr == "V2") return TIEDEXPORT_BF16;
  const auto* found = std::find_if(std::begin(types), std::end(types),
                                   [&](const Named& one) { return descr == one.descr; });
  if (found == std::end(types))
    throw std::runtime_error("its type is " + descr +
                             "\n  expected: <f4 (fp32), <f2 (fp16) or <V2 (bf16)");
  return found->type;
}

std::string file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::strerror(errno));
  if (std::filesystem::is_directory(path)) throw std::runtime_error("it is a folder");
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw std::runtime_error("it could not be read to its end");
  return bytes;
}

/// Cuts the header off `bytes`.
Header take_header(std::string_view& bytes) {
  constexpr std::size_t magic_size = 6, version_size = 2;
  if (bytes.substr(0, magic_size) != "\x93NUMPY" || bytes.size() < magic_size + version_size)
    throw std::runtime_error("it is no .npy file");
  const auto version = static_cast<unsigned char>(bytes[magic_size]);
  if (version < 1 || version > 3)
    throw std::runtime_error("its version is " + std::to_string(version) + "\n  expected: 1 to 3");
  bytes.remove_prefix(magic_size + version_size);
  const std::size_t length_size = version == 1 ? 2 : 4;
  std::size_t length = 0;
  for (std::size_t i = std::min(length_size, bytes.size()); i-- > 0;)
    length = length << 8 | static_cast<unsigned char>(bytes[i]);
  if (bytes.size() < length_size || bytes.size() - length_size < length)
    throw std::runtime_error("it ends in its header");
  const Header header = parse_header(bytes.substr(length_size, length));
  bytes.remove_prefix(length_size + length);
  return header;
}

Array parse(std::string_view bytes) {
  const Header header = take_header(bytes);
  Array array{type_of(header.descr), header.shape, {}};
  if (header.fortran_order)
    throw std::runtime_error("it is in Fortran order\n  try: numpy.ascontiguousarray");
  std::size_t expected = size_of(array.type);
  for (const std::size_t size : array.shape) {
    if (size != 0 && expected > SIZE_MAX / size) throw std::runtime_error("its shape is too large");
    expected *= size;
  }
  if (bytes.size() != expected)
    throw std::runtime_error(
        "it does not end where its shape does\n  got: " + std::to_string(bytes.size()) +
        " bytes of data\n  expected: " + std::to_string(expected) + " for " + text_of(array.shape));
  array.bytes.assign(bytes.begin(), bytes.end());
  return array;
}

/// Whether `path` is a device, a pipe or a socket: to be written to, never replaced.
bool is_special(const std::string& path) {
  struct stat found {};
  return stat(path.c_str(), &found) == 0 && !S_ISREG(found.st_mode) && !S_ISDIR(found.st_mode);
}

/// What `path` leads to, so that a link stays a link.
std::string resolved(const std::string& path) {
  std::error_code failed;
  const std::filesystem::path target = std::filesystem::canonical(path, failed);
  return failed ? path : target.string();
}

/// A file that is being written; gone unless it got its name.
class Unfinished {
 public:
  explicit Unfinished(const std::string& path) : path_(path), target_(resolved(path)) {
    if (is_special(path)) {
      descriptor_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    } else {
      temporary_ = target_ + ".XXXXXX";
      descriptor_ = mkstemp(temporary_.data());
    }
    if (descriptor_ < 0) fail();
  }
  ~Unfinished() {
    if (descriptor_ >= 0) close(descriptor_);
    if (!temporary_.empty()) unlink(temporary_.c_str());
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail();
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  void finish() {
    if (temporary_.empty()) return;
    const mode_t mask = umask(0);
    umask(mask);
    if (fchmod(descriptor_, 0666 & ~mask) != 0 || fsync(descriptor_) != 0) fail();
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) fail();
    temporary_.clear();
  }

 private:
  [[noreturn]] void fail() const {
    throw std::runtime_error("cannot write " + path_ + ": " + std::strerror(errno));
  }

  std::string path_, target_, temporary_;
  int descriptor_ = -1;
};

}  // namespace

const char* name_of(tiedexport_type type) { return named(type).name; }

std::string text_of(const std::vector<std::size_t>& shape) {
  std::string text;
  for (const std::size_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

Array read_npy(const std::string& path) {
  try {
    return parse(file_bytes(path));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("cannot read " + path + ": " + error.what());
  }
}

void write_npy(const std::string& path, const Array& array) {
  Unfinished file(path);
  file.write(header_bytes({named(array.type).descr, false, array.shape}));
  file.write({array.bytes.data(), array.bytes.size()});
  file.finish();
}

}  // namespace run_tool
