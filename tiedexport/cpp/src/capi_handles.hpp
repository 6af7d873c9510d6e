// What the opaque pointers of the C interface point to.
#pragma once

#include <memory>
#include <string>

#include "backend.hpp"

struct tiedexport_bundle {
  std::shared_ptr<const tiedexport::internal::Bundle> bundle;
};

struct tiedexport_session {
  std::shared_ptr<const tiedexport::internal::Bundle> bundle;
  std::unique_ptr<tiedexport::internal::Backend> backend;
  const char* backend_name;
  const char* precision;
  std::string description;
};

namespace tiedexport::internal {

/// Bytes of one sample; throws Error (INVALID_ARGUMENT) where they do not fit into memory.
std::size_t sample_bytes(const TensorSpec& tensor);

/// The stage of that name; throws Error (INVALID_ARGUMENT) that lists those there are.
const Stage& stage_named(const Bundle& bundle, const char* name);

}  // namespace tiedexport::internal
