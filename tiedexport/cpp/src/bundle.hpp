// A bundle on disk: checked, its weights mapped once however many sessions use them.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "manifest.hpp"
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
  /// Throws Error (IO, CORRUPT). `expected_bytes` is what the manifest says of its size.
  Weights(int directory_fd, const std::string& name, std::uint64_t expected_bytes,
          const std::string& where);
  ~Weights();
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  /// The tensor of that name; throws Error (CORRUPT) if there is none.
  const Tensor& tensor(const std::string& name) const;
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const void* data() const { return mapping_; }
  std::size_t size_bytes() const { return size_bytes_; }
  /// Throws Error (CORRUPT) if the file was truncated since it was mapped; reading past its end
  /// would kill the process. One fstat: sessions call it before each run.
  void refuse_if_truncated() const;

 private:
  int fd_ = -1;
  void* mapping_ = nullptr;
  std::size_t size_bytes_ = 0;
  std::string where_;
  std::map<std::string, Tensor> tensors_;
};

/// An opened bundle; immutable but for the mappings it makes when first asked for them.
class Bundle {
 public:
  /// Throws Error: NOT_FOUND (no bundle there), IO, CORRUPT, UNSUPPORTED (newer schema).
  Bundle(const std::string& path, tiedexport_check check);
  ~Bundle();
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  /// The weights stored in `precision`, mapped once and shared. Safe from many threads.
  std::shared_ptr<const Weights> weights(Type precision) const;
  /// The bytes of a file that the manifest lists, checked against its size (and digest, if the
  /// bundle was opened so) once more, so that nobody can swap it after the check.
  std::vector<std::byte> read(const std::string& file) const;

 private:
  std::string path_;
  int directory_fd_ = -1;
  tiedexport_check check_;
  Manifest manifest_;
  mutable std::mutex mutex_;
  mutable std::map<Type, std::weak_ptr<const Weights>> weights_;
};

}  // namespace tiedexport::internal
