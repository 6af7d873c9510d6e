// A file's bytes in memory, shared with every process that maps it.
#pragma once

#include <cstddef>
#include <string>

namespace tiedexport::internal {

class Mapping {
 public:
  Mapping() = default;
  /// Maps `size_bytes` (> 0) of `fd`, read-only. Throws Error (IO).
  Mapping(int fd, std::size_t size_bytes, const std::string& where);
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;

  const std::byte* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

}  // namespace tiedexport::internal
