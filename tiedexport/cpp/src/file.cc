#include "file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>

#include "error.hpp"

namespace tiedexport::internal {
namespace {

std::string words_of(int error) { return std::generic_category().message(error); }

[[noreturn]] void refuse_missing(const std::string& where, int error) {
  throw Error(TIEDEXPORT_CORRUPT,
              {"a file of the bundle is missing", where, words_of(error), "", ""});
}

[[noreturn]] void refuse_special(const std::string& where) {
  throw Error(TIEDEXPORT_CORRUPT,
              {"a link or special file in the bundle", where, "", "a regular file", ""});
}

[[noreturn]] void refuse_unreadable(const std::string& where, int error) {
  throw Error(TIEDEXPORT_IO, {"the system refuses to read a file", where, words_of(error), "",
                              "check who may read it: ls -l"});
}

/// Opens one path component. It is looked at before, since opening a device can already act on it
/// and a link would only show as an error; the flags hold where it is swapped in between.
File open_component(int directory, const std::string& part, bool is_directory,
                    const std::string& where) {
  struct stat status;
  if (fstatat(directory, part.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) refuse_missing(where, errno);
    refuse_unreadable(where, errno);
  }
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) refuse_special(where);
  const int kind = is_directory ? O_DIRECTORY : O_NONBLOCK | O_NOCTTY;
  const int fd = openat(directory, part.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | kind);
  if (fd >= 0) return File(fd);
  if (errno == ELOOP) refuse_special(where);
  if (errno == ENOENT || errno == ENOTDIR) refuse_missing(where, errno);
  refuse_unreadable(where, errno);
}

}  // namespace

File::~File() {
  if (is_open()) close(fd_);
}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

File open_directory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (fd < 0 && errno != ENOENT && errno != ENOTDIR) refuse_unreadable(path, errno);
  return File(fd);
}

File open_regular(const File& directory, const std::string& name, const std::string& root) {
  File parent;
  std::size_t begin = 0;
  for (std::size_t end; (end = name.find('/', begin)) != std::string::npos; begin = end + 1) {
    const int from = parent.is_open() ? parent.fd() : directory.fd();
    const std::string where = joined(root, std::string_view(name).substr(0, end));
    parent = open_component(from, name.substr(begin, end - begin), true, where);
  }
  const int from = parent.is_open() ? parent.fd() : directory.fd();
  const std::string where = joined(root, name);
  File file = open_component(from, name.substr(begin), false, where);
  size_of_regular(file.fd(), where);
  return file;
}

bool has_entry(const File& directory, const char* name) {
  struct stat status;
  return fstatat(directory.fd(), name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

File duplicate(int fd, const std::string& where) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) refuse_unreadable(where, errno);
  return File(copy);
}

std::uint64_t size_of_regular(int fd, const std::string& where) {
  struct stat status;
  if (fstat(fd, &status) != 0) refuse_unreadable(where, errno);
  if (S_ISDIR(status.st_mode))
    throw Error(TIEDEXPORT_CORRUPT, {"a directory where a file should be", where, "", "", ""});
  if (!S_ISREG(status.st_mode)) refuse_special(where);
  return static_cast<std::uint64_t>(status.st_size);
}

void refuse_wrong_size(std::uint64_t got, std::uint64_t expected, const std::string& where) {
  if (got == expected) return;
  throw Error(TIEDEXPORT_CORRUPT,
              {"a file of the bundle has the wrong size", where, std::to_string(got) + " bytes",
               std::to_string(expected) + " bytes",
               "copy the bundle again, or rebuild it: tiedexport build model.pt"});
}

void read_at(int fd, std::uint64_t offset, void* bytes, std::size_t count,
             const std::string& where) {
  auto* next = static_cast<std::byte*>(bytes);
  while (count > 0) {
    const std::size_t block = std::min<std::size_t>(count, std::size_t{1} << 30);
    const ssize_t got = pread(fd, next, block, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse_unreadable(where, errno);
    if (got == 0)
      throw Error(TIEDEXPORT_CORRUPT, {"a file of the bundle became shorter", where,
                                       "its end at " + std::to_string(offset), "", ""});
    next += got;
    offset += static_cast<std::uint64_t>(got);
    count -= static_cast<std::size_t>(got);
  }
}

std::string joined(const std::string& root, std::string_view name) {
  const bool separated = !root.empty() && root.back() == '/';
  return root + (separated ? "" : "/") + std::string(name);
}

}  // namespace tiedexport::internal
