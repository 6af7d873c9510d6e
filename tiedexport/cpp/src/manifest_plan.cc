// The engines of a manifest; see PlanRecord in tiedexport/manifest.py.
#include <initializer_list>
#include <limits>
#include <utility>

#include "json_fields.hpp"
#include "manifest_document.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

constexpr std::int64_t largest_int = std::numeric_limits<int>::max();

Profile profile_from(const Json& json, const Place& place) {
  const std::vector<std::int64_t> batches = integers_of(json, place);
  if (batches.size() != 3) refuse_value("expected three batch sizes", place);
  for (const std::int64_t batch : batches)
    if (batch < 0 || batch > largest_int) refuse_value("a batch size that no engine has", place);
  return {static_cast<std::size_t>(batches[0]), static_cast<std::size_t>(batches[1]),
          static_cast<std::size_t>(batches[2])};
}

/// Of a plan that does not say: DEFAULT_PROFILE of tiedexport/engine_words.py.
std::vector<Profile> unsaid_profiles() { return {{1, 8, 256}}; }

std::vector<Profile> profiles_from(const Json& json, const Place& place) {
  return list_of(json, place, profile_from);
}

Binding binding_from(const Json& json, const Place& place) {
  Fields fields(json, place);
  Binding binding;
  binding.name = fields.need("name", text_of);
  binding.role = fields.need("role", text_of);
  binding.type = fields.need("dtype", type_from);
  binding.shape = fields.need("shape", integers_of);
  fields.refuse_unknown();
  return binding;
}

int capability_from(const Json& json, const Place& place) {
  const std::int64_t capability = integer_of(json, place);
  if (capability < 0 || capability > largest_int)
    refuse_value("a compute capability that no device has", place);
  return static_cast<int>(capability);
}

std::string one_of(std::initializer_list<const char*> known, const Json& json, const Place& place) {
  for (const char* name : known)
    if (text_of(json, place) == name) return name;
  refuse_value("an unknown word: " + quoted(text_of(json, place)), place);
}

void check_pools(const Json& json, const Place& place) {
  for (const JsonMember& pool : members_of(json, place))
    integer_of(pool.value, Place{&place, pool.name});
}

/// What an engine was built with: of use here are its profiles, and where it runs.
Plan plan_of_options(const Json& json, const Place& place) {
  Fields fields(json, place);
  Plan plan;
  plan.profiles = fields.get("profiles", profiles_from, unsaid_profiles());
  plan.version_compatible = fields.get("version_compatible", boolean_of, false);
  plan.stripped = fields.get("strip_weights", boolean_of, false);
  for (const char* flag : {"exact_profiles", "refit", "weight_streaming"})
    fields.get(flag, boolean_of, false);
  const Json* const pools = fields.find("memory_pools");
  if (pools != nullptr) check_pools(*pools, Place{&place, "memory_pools"});
  const Json* const level = fields.find("builder_optimization_level");
  if (level != nullptr && !std::holds_alternative<std::nullptr_t>(level->value))
    integer_of(*level, Place{&place, "builder_optimization_level"});
  const auto compatibility = [](const Json& word, const Place& at) {
    return one_of({"none", "ampere+", "sameComputeCapability"}, word, at);
  };
  plan.ampere_or_newer =
      fields.get("hardware_compatibility", compatibility, std::string()) == "ampere+";
  const auto verbosity = [](const Json& word, const Place& at) {
    return one_of({"layer_names_only", "detailed", "none"}, word, at);
  };
  fields.get("profiling_verbosity", verbosity, std::string());
  fields.refuse_unknown();
  return plan;
}

/// Of a plan without options, which may leave out any that is as they are here.
Plan plan_without_options() {
  Plan plan;
  plan.profiles = unsaid_profiles();
  return plan;
}

}  // namespace

Plan plan_from(const Json& json, const Place& place, int schema) {
  Fields fields(json, place);
  Plan plan = schema == 1 ? Plan() : fields.get("options", plan_of_options, plan_without_options());
  plan.file = fields.need("file", text_of);
  plan.stage = fields.need("stage", text_of);
  plan.target = fields.need("target", text_of);
  plan.package = fields.need("package", text_of);
  plan.package_version = fields.need("package_version", text_of);
  plan.weights = fields.need("weights", text_of);
  plan.precision = fields.need("precision", type_from);
  plan.compute_capabilities = fields.need(
      "compute_capabilities",
      [](const Json& list, const Place& at) { return list_of(list, at, capability_from); });
  plan.bindings = fields.need("bindings", [](const Json& list, const Place& at) {
    return list_of(list, at, binding_from);
  });
  fields.need("graph_sha256", text_of);
  if (schema == 1)  // which knew one profile a plan and no options
    plan.profiles = {fields.need("profile", profile_from)};
  plan.graph = fields.get("graph", text_of, std::string());
  fields.get("key", text_of, std::string());
  const auto texts = [](const Json& list, const Place& at) { return list_of(list, at, text_of); };
  fields.get("layers", texts, std::vector<std::string>());
  fields.refuse_unknown();
  return plan;
}

}  // namespace tiedexport::internal
