// Files opened so that nothing in a bundle can lead out of it, hang the reader or be swapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tiedexport::internal {

/// An open descriptor, closed at the end.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  ~File();
  File(File&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  File& operator=(File&& other) noexcept;

  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// The directory at `path`, which the user chose: links on the way to it are followed. Not open if
/// there is none; throws Error (IO) if the system refuses.
File open_directory(const std::string& path);

/// The regular file `name` below `directory`, reached through real directories only. Throws Error:
/// CORRUPT for a missing file, a link, a special file or a directory in its place; IO if the
/// system refuses. `root` is the directory's path, for messages.
File open_regular(const File& directory, const std::string& name, const std::string& root);

bool has_entry(const File& directory, const char* name);

/// Another descriptor of the same open file.
File duplicate(int fd, const std::string& where);

/// Throws Error (CORRUPT) unless `fd` is a regular file.
std::uint64_t size_of_regular(int fd, const std::string& where);

/// Throws Error (CORRUPT) unless a file has as many bytes as the manifest says.
void refuse_wrong_size(std::uint64_t got, std::uint64_t expected, const std::string& where);

/// Reads `count` bytes at `offset`; throws Error (CORRUPT) where the file ends before, IO where
/// the system fails.
void read_at(int fd, std::uint64_t offset, void* bytes, std::size_t count,
             const std::string& where);

/// "digits.tied/manifest.json"
std::string joined(const std::string& root, std::string_view name);

}  // namespace tiedexport::internal
