// The C interface: sessions.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backends.hpp"
#include "capi_errors.hpp"
#include "capi_handles.hpp"

namespace tiedexport::internal {
namespace {

/// One field of a struct that the caller's header may have known shorter than ours does.
template <class T>
T field(const tiedexport_session_options* options, std::size_t offset) {
  T value{};
  if (options != nullptr && offset + sizeof(T) <= options->struct_size)
    std::memcpy(&value, reinterpret_cast<const char*>(options) + offset, sizeof(T));
  return value;
}

/// Fields that a newer header has must ask for nothing.
void refuse_newer_fields(const tiedexport_session_options& options) {
  if (options.struct_size < sizeof options.struct_size)
    refuse("options.struct_size is not set", "tiedexport_session_create",
           std::to_string(options.struct_size), std::to_string(sizeof options),
           "start from TIEDEXPORT_SESSION_OPTIONS_INIT");
  const char* bytes = reinterpret_cast<const char*>(&options);
  for (std::size_t at = sizeof options; at < options.struct_size; ++at) {
    if (bytes[at] != 0)
      throw Error(TIEDEXPORT_UNSUPPORTED,
                  {"options of a newer tiedexport.h than this library's", "", "",
                   "ABI " + std::to_string(TIEDEXPORT_ABI_VERSION), "install that library"});
  }
}

std::string text_or_empty(const char* text) { return text == nullptr ? "" : text; }

Request request_of(const tiedexport_session_options* options) {
  using Fields = tiedexport_session_options;
  if (options != nullptr) refuse_newer_fields(*options);
  const Request request{
      text_or_empty(field<const char*>(options, offsetof(Fields, backend))),
      text_or_empty(field<const char*>(options, offsetof(Fields, precision))),
      text_or_empty(field<const char*>(options, offsetof(Fields, simd))),
      field<int32_t>(options, offsetof(Fields, threads)),
      field<int32_t>(options, offsetof(Fields, device)),
  };
  if (request.threads < 0)
    refuse("options.threads is negative", "", std::to_string(request.threads),
           "0 for one a processor, or their number");
  if (request.device < 0)
    refuse("options.device is negative", "", std::to_string(request.device), "a device's number");
  return request;
}

struct Extent {
  std::uintptr_t begin, end;
};

/// Where `batch` samples at `data` lie; throws where they would not fit into memory.
Extent extent(const TensorSpec& tensor, const void* data, std::size_t batch) {
  const std::size_t sample = sample_bytes(tensor);
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  if (sample != 0 && batch > (UINTPTR_MAX - begin) / sample)
    refuse("a batch of this size does not fit into memory", tensor.name, std::to_string(batch));
  return {begin, begin + batch * sample};
}

/// Whether there is anything to run, all arguments being right.
bool checked(const Stage& stage, const void* input, std::size_t batch, const void* output) {
  if (batch == 0) return false;
  require(input, stage.input.name.c_str());
  require(output, stage.output.name.c_str());
  const Extent in = extent(stage.input, input, batch), out = extent(stage.output, output, batch);
  if (in.begin < out.end && out.begin < in.end)
    refuse("input and output overlap", stage.name, "", "arrays of their own");
  return true;
}

tiedexport_status run(tiedexport_session* session, const char* name, const void* input,
                      std::size_t batch, void* output) {
  return guarded([&] {
    require(session, "session");
    const Stage& stage = stage_named(*session->bundle, name);
    if (checked(stage, input, batch, output)) session->backend->run(stage, batch, input, output);
  });
}

}  // namespace
}  // namespace tiedexport::internal

using namespace tiedexport::internal;

tiedexport_status tiedexport_session_create(const tiedexport_bundle* bundle,
                                            const tiedexport_session_options* options,
                                            tiedexport_session** session) {
  return guarded([&] {
    require(session, "session");
    *session = nullptr;
    require(bundle, "bundle");
    Opened opened = open_backend(backends(), bundle->bundle, request_of(options));
    const std::string description = opened.session->description();
    *session = new tiedexport_session{bundle->bundle, std::move(opened.session), opened.backend,
                                      name_of(opened.precision), description};
  });
}

void tiedexport_session_close(tiedexport_session* session) { delete session; }

const char* tiedexport_session_backend(const tiedexport_session* session) {
  return session == nullptr ? nullptr : session->backend_name;
}

const char* tiedexport_session_precision(const tiedexport_session* session) {
  return session == nullptr ? nullptr : session->precision;
}

const char* tiedexport_session_description(const tiedexport_session* session) {
  return session == nullptr ? nullptr : session->description.c_str();
}

tiedexport_status tiedexport_run(tiedexport_session* session, const char* stage, const void* input,
                                 size_t batch, void* output) {
  return run(session, stage, input, batch, output);
}

tiedexport_status tiedexport_encode(tiedexport_session* session, const void* input, size_t batch,
                                    void* code) {
  return run(session, "encoder", input, batch, code);
}

tiedexport_status tiedexport_decode(tiedexport_session* session, const void* code, size_t batch,
                                    void* output) {
  return run(session, "decoder", code, batch, output);
}

tiedexport_status tiedexport_reconstruct(tiedexport_session* session, const void* input,
                                         size_t batch, void* output) {
  return run(session, "autoencoder", input, batch, output);
}

tiedexport_status tiedexport_enqueue(tiedexport_session* session, const char* name,
                                     const void* device_input, size_t batch, void* device_output,
                                     void* stream) {
  return guarded([&] {
    require(session, "session");
    const Stage& stage = stage_named(*session->bundle, name);
    if (checked(stage, device_input, batch, device_output))
      session->backend->enqueue(stage, batch, device_input, device_output, stream);
  });
}
