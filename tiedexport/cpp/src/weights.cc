#include <array>
#include <string>
#include <utility>

#include "bundle.hpp"
#include "error.hpp"
#include "safetensors.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

/// Read, not mapped: a file that is cut meanwhile makes an error, not a signal.
std::string header_of(int fd, std::uint64_t file_bytes, const std::string& where) {
  std::array<unsigned char, 8> length{};
  if (file_bytes < length.size())
    throw Error(TIEDEXPORT_CORRUPT,
                {"unreadable weights", where, "a file without a header", "", ""});
  read_at(fd, 0, length.data(), length.size(), where);
  std::uint64_t header_bytes = 0;
  for (std::size_t i = length.size(); i-- > 0;) header_bytes = header_bytes << 8 | length[i];
  if (header_bytes > safetensors_header_limit_bytes || header_bytes > file_bytes - length.size())
    throw Error(TIEDEXPORT_CORRUPT, {"unreadable weights", where,
                                     "a header of " + std::to_string(header_bytes) + " bytes",
                                     "one inside the file", ""});
  std::string header(static_cast<std::size_t>(header_bytes), '\0');
  read_at(fd, length.size(), header.data(), header.size(), where);
  return header;
}

}  // namespace

Weights::Weights(int fd, std::uint64_t expected_bytes, const std::string& where)
    : file_(duplicate(fd, where)), where_(where) {
  const std::uint64_t file_bytes = size_of_regular(fd, where);
  refuse_wrong_size(file_bytes, expected_bytes, where);
  const std::string header = header_of(fd, file_bytes, where);
  auto entries = safetensors_entries(header, file_bytes, where);
  mapping_ = Mapping(fd, static_cast<std::size_t>(file_bytes), where);
  for (auto& [name, entry] : entries)
    tensors_.emplace(name, Tensor{entry.type, std::move(entry.shape),
                                  mapping_.data() + entry.offset, entry.count});
}

const Tensor& Weights::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    throw Error(TIEDEXPORT_CORRUPT, {"a weight that is not stored", where_, quoted(name), "", ""});
  return found->second;
}

void Weights::refuse_if_truncated() const {
  const std::uint64_t now = size_of_regular(file_.fd(), where_);
  if (now < size_bytes()) refuse_wrong_size(now, size_bytes(), where_);
}

}  // namespace tiedexport::internal
