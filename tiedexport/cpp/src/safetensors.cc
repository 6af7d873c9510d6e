#include "safetensors.hpp"

#include <algorithm>
#include <utility>

#include "error.hpp"
#include "json_fields.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

/// An entry as it is written; offsets from the end of the header.
struct Extent {
  std::string_view name;
  TensorEntry entry;
  std::uint64_t begin = 0, end = 0;
};

Type dtype_from(const Json& json, const Place& place) {
  const std::string& name = text_of(json, place);
  if (name == "F32") return Type::fp32;
  if (name == "F16") return Type::fp16;
  if (name == "BF16") return Type::bf16;
  refuse_value("a weight of an unknown type: expected F32, F16 or BF16, got " + quoted(name),
               place);
}

std::uint64_t size_from(const Json& json, const Place& place) {
  const std::int64_t size = integer_of(json, place);
  if (size < 0) refuse_value("expected a size, got a negative number", place);
  return static_cast<std::uint64_t>(size);
}

std::vector<std::uint64_t> sizes_from(const Json& json, const Place& place) {
  return list_of(json, place, size_from);
}

/// Elements of a shape. Where one axis is 0 there are none, but the others are bounded too, since
/// whoever multiplies some of them must not overflow.
std::uint64_t count_of(const std::vector<std::uint64_t>& shape, const Place& place) {
  constexpr std::uint64_t largest = std::uint64_t{1} << 48;
  std::uint64_t product = 1;
  bool is_empty = false;
  for (const std::uint64_t size : shape) {
    is_empty = is_empty || size == 0;
    if (size > largest / product) refuse_value("a shape that no file holds", place);
    if (size > 0) product *= size;
  }
  return is_empty ? 0 : product;
}

Extent extent_from(const JsonMember& member, const Place& place, std::uint64_t data_bytes) {
  Fields fields(member.value, place);
  Extent extent;
  extent.name = member.name;
  extent.entry.type = fields.need("dtype", dtype_from);
  const std::vector<std::uint64_t> shape = fields.need("shape", sizes_from);
  const std::vector<std::uint64_t> offsets = fields.need("data_offsets", sizes_from);
  fields.refuse_unknown();
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes)
    refuse_value("offsets outside of the file", place);
  extent.begin = offsets[0];
  extent.end = offsets[1];
  const std::uint64_t item_bytes = size_of(extent.entry.type);
  const std::uint64_t count = count_of(shape, place);
  if (count * item_bytes != extent.end - extent.begin)
    refuse_value("offsets that do not fit the shape", place);
  extent.entry.count = static_cast<std::size_t>(count);
  extent.entry.shape.assign(shape.begin(), shape.end());
  return extent;
}

void check_metadata(const Json& json, const Place& place) {
  for (const JsonMember& member : members_of(json, place))
    text_of(member.value, Place{&place, member.name});
}

std::vector<Extent> extents_from(const Json& json, std::uint64_t data_bytes) {
  const Place place;
  std::vector<Extent> extents;
  for (const JsonMember& member : members_of(json, place)) {
    const Place at{&place, member.name};
    if (member.name == "__metadata__")
      check_metadata(member.value, at);
    else
      extents.push_back(extent_from(member, at, data_bytes));
  }
  return extents;
}

/// Neither overlap nor hole: two tensors cannot share bytes, and no byte escapes the description.
void refuse_gaps(std::vector<Extent>& extents, std::uint64_t data_bytes) {
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t end = 0;
  for (const Extent& extent : extents) {
    const Place root, place{&root, extent.name};
    if (extent.begin != end)
      refuse_value(extent.begin < end ? "overlaps the tensor before it" : "a hole before it",
                   place);
    end = extent.end;
  }
  if (end != data_bytes) throw JsonFault("bytes behind the last tensor");
}

std::map<std::string, TensorEntry> entries_from(std::string_view header, std::uint64_t file_bytes) {
  if (header.empty() || header.front() != '{') throw JsonFault("a header that is no JSON object");
  const std::uint64_t data_offset = 8 + header.size();
  const std::uint64_t data_bytes = file_bytes - data_offset;
  const Json json = parse_json(header);
  std::vector<Extent> extents = extents_from(json, data_bytes);
  refuse_gaps(extents, data_bytes);
  std::map<std::string, TensorEntry> entries;
  for (Extent& extent : extents) {
    const Place root, place{&root, extent.name};
    extent.entry.offset = static_cast<std::size_t>(data_offset + extent.begin);
    if (extent.entry.offset % size_of(extent.entry.type) != 0)
      refuse_value("a tensor that is not aligned for its type", place);
    entries.emplace(extent.name, std::move(extent.entry));
  }
  return entries;
}

}  // namespace

std::map<std::string, TensorEntry> safetensors_entries(std::string_view header,
                                                       std::uint64_t file_bytes,
                                                       const std::string& where) {
  try {
    return entries_from(header, file_bytes);
  } catch (const JsonFault& fault) {
    throw Error(TIEDEXPORT_CORRUPT, {"unreadable weights", where, fault.what(), "", ""});
  }
}

}  // namespace tiedexport::internal
