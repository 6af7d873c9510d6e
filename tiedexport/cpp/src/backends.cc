// The table of backends, and the choice of one for a session.
#include "backends.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "error.hpp"

namespace tiedexport::internal {
namespace {

constexpr Type every_type[] = {Type::fp32, Type::fp16, Type::bf16};

/// "fp32, fp16"
template <class Items, class Name>
std::string listed(const Items& items, const Name& name) {
  std::string text;
  for (const auto& item : items) text += (text.empty() ? "" : ", ") + std::string(name(item));
  return text;
}

/// The precision that was asked for, which the bundle must hold; without a value, none was.
std::optional<Type> wanted_precision(const Bundle& bundle, const std::string& wanted) {
  if (wanted.empty()) return std::nullopt;
  const auto* type = std::find_if(std::begin(every_type), std::end(every_type),
                                  [&](Type one) { return wanted == name_of(one); });
  if (type == std::end(every_type))
    throw Error(TIEDEXPORT_INVALID_ARGUMENT,
                {"unknown precision", "", wanted, listed(every_type, name_of), ""});
  const std::vector<Type>& stored = bundle.manifest().precisions;
  if (std::find(stored.begin(), stored.end(), *type) == stored.end())
    throw Error(TIEDEXPORT_INVALID_ARGUMENT,
                {"the bundle does not hold this precision", bundle.path(), wanted,
                 listed(stored, name_of), "tiedexport build with --precision " + wanted});
  return *type;
}

/// The precisions to try in `row`, best first: the one asked for, or all that are stored.
std::vector<Type> precisions_to_try(const BackendRow& row, const Bundle& bundle,
                                    std::optional<Type> wanted) {
  if (wanted) return {*wanted};
  const std::vector<Type>& stored = bundle.manifest().precisions;
  std::vector<Type> sorted;
  std::copy_if(row.precisions.begin(), row.precisions.end(), std::back_inserter(sorted),
               [&](Type one) { return std::count(stored.begin(), stored.end(), one) != 0; });
  return sorted;
}

const BackendRow& row_named(const std::vector<BackendRow>& rows, const std::string& name) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const auto& one) { return name == one.name; });
  if (row != rows.end()) return *row;
  const std::string known = listed(rows, [](const BackendRow& one) { return one.name; });
  throw Error(TIEDEXPORT_INVALID_ARGUMENT, {"unknown backend", "", name, "auto, " + known, ""});
}

/// The best precision that `row` does not refuse; throws UNSUPPORTED where it refuses all.
Type precision_for(const BackendRow& row, const Bundle& bundle, std::optional<Type> wanted) {
  std::string first;  // of several, the one about the best precision tells most
  for (const Type precision : precisions_to_try(row, bundle, wanted)) {
    const std::string refusal = row.refusal(bundle, precision);
    if (refusal.empty()) return precision;
    if (first.empty()) first = std::string(name_of(precision)) + ": " + refusal;
  }
  throw Error(TIEDEXPORT_UNSUPPORTED, {std::string(row.name) + " cannot run this bundle",
                                       bundle.path(), first, "", "backend \"auto\""});
}

Opened open_row(const BackendRow& row, const std::shared_ptr<const Bundle>& bundle,
                std::optional<Type> wanted, const Request& request) {
  const Availability availability = row.availability();
  if (!availability.available)
    throw Error(TIEDEXPORT_UNAVAILABLE, {std::string(row.name) + " does not work here", "",
                                         availability.reason, "", availability.remedy});
  const Type precision = precision_for(row, *bundle, wanted);
  const Options options{precision, request.threads, request.device, request.simd};
  return {row.name, precision, row.open(bundle, options)};
}

/// Whether another backend may succeed where one failed so: not with this bundle, these arguments.
bool another_may_succeed(const Error& error) {
  return error.status() == TIEDEXPORT_UNSUPPORTED || error.status() == TIEDEXPORT_UNAVAILABLE ||
         error.status() == TIEDEXPORT_BACKEND_FAILED || error.status() == TIEDEXPORT_INTERNAL;
}

Opened open_first(const std::vector<BackendRow>& rows, const std::shared_ptr<const Bundle>& bundle,
                  std::optional<Type> wanted, const Request& request) {
  std::string reasons;
  for (const BackendRow& row : rows) {
    try {
      return open_row(row, bundle, wanted, request);
    } catch (const Error& error) {
      if (!another_may_succeed(error)) throw;
      reasons += (reasons.empty() ? "" : "\n") + std::string(error.what());
    }
  }
  throw Error(TIEDEXPORT_UNAVAILABLE,
              {"no backend can run this bundle here", bundle->path(), reasons, "", ""});
}

}  // namespace

void Backend::enqueue(const Stage&, std::size_t, const void*, void*, void*) {
  throw Error(TIEDEXPORT_UNSUPPORTED, {"this backend takes no device memory", "", description(),
                                       "a GPU backend", "tiedexport_run"});
}

const std::vector<BackendRow>& backends() {
  static const std::vector<BackendRow> rows = [] {
    std::vector<BackendRow> all{native_backend(), tensorrt_backend(), onnxruntime_backend()};
    std::sort(all.begin(), all.end(),
              [](const auto& one, const auto& other) { return one.rank < other.rank; });
    return all;
  }();
  return rows;
}

std::string words(const Availability& availability) {
  return availability.reason + (availability.remedy.empty() ? "" : "; " + availability.remedy);
}

Opened open_backend(const std::vector<BackendRow>& rows, std::shared_ptr<const Bundle> bundle,
                    const Request& request) {
  const std::optional<Type> wanted = wanted_precision(*bundle, request.precision);
  const bool automatic = request.backend.empty() || request.backend == "auto";
  if (!request.simd.empty()) {
    // An instruction set is native's alone: whoever names one means that backend.
    if (!automatic && request.backend != "native")
      throw Error(TIEDEXPORT_INVALID_ARGUMENT,
                  {"an instruction set was given", "", request.backend, "backend native", ""});
    return open_row(row_named(rows, "native"), bundle, wanted, request);
  }
  if (automatic) return open_first(rows, bundle, wanted, request);
  return open_row(row_named(rows, request.backend), bundle, wanted, request);
}

}  // namespace tiedexport::internal
