// Memory that a call takes and the next call takes again.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace tiedexport::internal::native {

/// Belongs to one call at a time. Throws Error (OUT_OF_MEMORY) where memory ends.
class Scratch {
 public:
  /// `bytes` aligned to 64, valid until the next `rewind`; contents are undefined.
  void* take(std::size_t bytes);
  template <class T>
  T* take_array(std::size_t count) {
    return static_cast<T*>(take(count * sizeof(T)));
  }
  /// Takes everything back. Where several blocks were needed, the next call finds one that is as
  /// large as all of them.
  void rewind();

 private:
  struct Release {
    void operator()(std::byte* memory) const;
  };
  struct Block {
    std::unique_ptr<std::byte, Release> memory;
    std::size_t size = 0, used = 0;
  };
  std::vector<Block> blocks_;
  std::size_t wanted_ = 0;  // size of the next block, from what the last call used
};

}  // namespace tiedexport::internal::native
