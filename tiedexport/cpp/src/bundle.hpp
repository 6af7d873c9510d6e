// A bundle on disk: checked, its weights mapped once however many sessions use them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "file.hpp"
#include "manifest.hpp"
#include "mapping.hpp"
#include "tiedexport/tiedexport.h"

namespace tiedexport::internal {

/// A tensor that lies in a mapped weights file, row-major.
struct Tensor {
  Type type = Type::fp32;
  std::vector<std::size_t> shape;
  const void* data = nullptr;
  std::size_t count = 0;  // elements
};

/// One weights file, mapped read-only; every entry was checked to lie inside it, aligned for its
/// type, without overlap.
class Weights {
 public:
  /// Maps the regular file that is open as `fd`, which stays the caller's. `expected_bytes` is
  /// what the manifest says of its size. Throws Error (IO, CORRUPT).
  Weights(int fd, std::uint64_t expected_bytes, const std::string& where);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  /// The tensor of that name; throws Error (CORRUPT) if there is none.
  const Tensor& tensor(const std::string& name) const;
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const void* data() const { return mapping_.data(); }
  std::size_t size_bytes() const { return mapping_.size_bytes(); }
  /// Throws Error (CORRUPT) if the file was truncated since it was mapped; reading past its end
  /// would kill the process. One fstat: sessions call it before each run. A file that is cut
  /// between this call and the last read of the run still kills the process (SIGBUS), and one that
  /// is written to in place changes the results: whoever may write to a bundle is trusted.
  void refuse_if_truncated() const;

 private:
  File file_;  // a file that was replaced in the bundle lives on, unchanged, while it is open
  std::string where_;
  Mapping mapping_;
  std::map<std::string, Tensor> tensors_;
};

/// An opened bundle; immutable but for the mappings it makes when first asked for them.
class Bundle {
 public:
  /// Throws Error: NOT_FOUND (no bundle there), IO, CORRUPT, UNSUPPORTED (newer schema).
  Bundle(const std::string& path, tiedexport_check check);
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  /// The weights stored in `precision`, mapped once and shared. Safe from many threads.
  std::shared_ptr<const Weights> weights(Type precision) const;
  /// The bytes of a file that the manifest lists, checked against its size (and digest, if the
  /// bundle was opened so) once more, so that nobody can swap it after the check.
  std::vector<std::byte> read(const std::string& file) const;
  /// What a backend keeps once for all sessions of this bundle, such as weights on a device: made
  /// by the first who asks for `key`, gone with the last who holds it. Safe from many threads.
  std::shared_ptr<void> once(const std::string& key,
                             const std::function<std::shared_ptr<void>()>& make) const {
    const std::lock_guard<std::mutex> lock(once_mutex_);
    std::shared_ptr<void> held = once_[key].lock();
    if (held == nullptr) once_[key] = held = make();
    return held;
  }

 private:
  std::string path_;
  File directory_;
  tiedexport_check check_;
  Manifest manifest_;
  std::map<Type, File> weights_files_;  // as they were checked
  mutable std::mutex mutex_;
  mutable std::map<Type, std::weak_ptr<const Weights>> weights_;
  mutable std::mutex once_mutex_;
  mutable std::map<std::string, std::weak_ptr<void>> once_;
};

}  // namespace tiedexport::internal
