#include "mapping.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal {

Mapping::Mapping(int fd, std::size_t size_bytes, const std::string& where) {
  void* const data = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED)
    throw Error(TIEDEXPORT_IO, {"the system refuses to map a file", where,
                                std::generic_category().message(errno), "", "see ulimit -v"});
  data_ = static_cast<std::byte*>(data);
  size_bytes_ = size_bytes;
}

Mapping::~Mapping() {
  if (data_ != nullptr) munmap(data_, size_bytes_);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

}  // namespace tiedexport::internal
