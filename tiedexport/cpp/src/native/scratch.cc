#include "native/scratch.hpp"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal::native {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector
constexpr std::size_t kSmallestBlock = std::size_t{1} << 16;

Error out_of_memory(std::size_t bytes) {
  return Error(TIEDEXPORT_OUT_OF_MEMORY,
               {"no memory for intermediate results", "", std::to_string(bytes) + " bytes", "",
                "run fewer samples at a time, or use fewer threads"});
}

std::size_t rounded_up(std::size_t bytes) {
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded < bytes) throw out_of_memory(bytes);
  return rounded;
}

}  // namespace

void* Scratch::take(std::size_t bytes) {
  const std::size_t size = rounded_up(bytes);
  if (blocks_.empty() || blocks_.back().size - blocks_.back().used < size) {
    const std::size_t wanted = std::max({size, wanted_, kSmallestBlock});
    void* memory = ::operator new(wanted, std::align_val_t{kAlignment}, std::nothrow);
    if (memory == nullptr) throw out_of_memory(wanted);
    Block block;
    block.memory.reset(static_cast<std::byte*>(memory));
    block.size = wanted;
    blocks_.push_back(std::move(block));
    wanted_ = 0;
  }
  Block& block = blocks_.back();
  void* taken = block.memory.get() + block.used;
  block.used += size;
  return taken;
}

void Scratch::rewind() {
  if (blocks_.size() > 1) {
    wanted_ = 0;
    for (const Block& block : blocks_) wanted_ += block.used;
    blocks_.clear();
  } else if (!blocks_.empty()) {
    blocks_.front().used = 0;
  }
}

void Scratch::Release::operator()(std::byte* memory) const {
  ::operator delete(memory, std::align_val_t{kAlignment});
}

}  // namespace tiedexport::internal::native
