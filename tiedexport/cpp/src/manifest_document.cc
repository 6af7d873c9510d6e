#include "manifest_document.hpp"

#include <utility>

#include "json_fields.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

template <class Value, class Read>
std::map<Type, Value> by_precision(const Json& json, const Place& place, const Read& read) {
  std::map<Type, Value> table;
  for (const JsonMember& member : members_of(json, place)) {
    const Place at{&place, member.name};
    table.emplace(type_named(member.name, at), read(member.value, at));
  }
  return table;
}

std::map<std::string, std::string> texts_from(const Json& json, const Place& place) {
  std::map<std::string, std::string> table;
  for (const JsonMember& member : members_of(json, place))
    table.emplace(member.name, text_of(member.value, Place{&place, member.name}));
  return table;
}

std::map<std::string, Type> types_from(const Json& json, const Place& place) {
  std::map<std::string, Type> table;
  for (const JsonMember& member : members_of(json, place))
    table.emplace(member.name, type_from(member.value, Place{&place, member.name}));
  return table;
}

FileRecord file_from(const Json& json, const Place& place) {
  Fields fields(json, place);
  const std::int64_t size_bytes = fields.need("size_bytes", integer_of);
  if (size_bytes < 0) refuse_value("expected a size, got a negative number", place);
  FileRecord record{static_cast<std::uint64_t>(size_bytes), fields.need("sha256", text_of)};
  fields.refuse_unknown();
  return record;
}

std::map<std::string, FileRecord> files_from(const Json& json, const Place& place) {
  std::map<std::string, FileRecord> files;
  for (const JsonMember& member : members_of(json, place))
    files.emplace(member.name, file_from(member.value, Place{&place, member.name}));
  return files;
}

int tie_checked(const Json& json, const Place& place) {
  Fields fields(json, place);
  fields.need("weight", text_of);
  fields.need("uses", [](const Json& uses, const Place& at) { return list_of(uses, at, text_of); });
  fields.refuse_unknown();
  return 0;
}

int tolerance_checked(const Json& json, const Place& place) {
  Fields fields(json, place);
  fields.need("stage", text_of);
  for (const char* name : {"precision", "accumulation"}) fields.need(name, type_from);
  for (const char* name : {"lambda_", "largest_bound", "median_bound"})
    fields.need(name, expect_number);
  fields.refuse_unknown();
  return 0;
}

/// What the runtime has no use for, but whose kind the authoring side relies on. How a model was
/// trained stays unread here: it is a record for people.
void check_the_rest(Fields& fields) {
  fields.need("created", text_of);
  for (const char* name : {"opset", "parameter_count"}) fields.need(name, integer_of);
  fields.need("config", members_of);
  fields.need("versions", texts_from);
  fields.need("ties",
              [](const Json& ties, const Place& at) { return list_of(ties, at, tie_checked); });
  fields.need("tolerances", [](const Json& tolerances, const Place& at) {
    return list_of(tolerances, at, tolerance_checked);
  });
  fields.need("training", [](const Json& training, const Place& at) {
    if (!std::holds_alternative<std::nullptr_t>(training.value)) members_of(training, at);
  });
}

std::vector<Type> order_of(const Json& json, const Place& place) {
  std::vector<Type> types;
  for (const JsonMember& member : members_of(json, place))
    types.push_back(type_named(member.name, place));
  return types;
}

void read_tables(Fields& fields, Manifest& manifest) {
  manifest.io_type = fields.need("io_dtype", type_from);
  manifest.precisions = fields.need("weights", order_of);
  manifest.weights = fields.need("weights", [](const Json& json, const Place& at) {
    return by_precision<std::string>(json, at, text_of);
  });
  manifest.graphs = fields.need("graphs", [](const Json& json, const Place& at) {
    return by_precision<std::map<std::string, std::string>>(json, at, texts_from);
  });
  const auto kept = [](const Json& json, const Place& at) {
    return by_precision<std::map<std::string, Type>>(json, at, types_from);
  };
  manifest.kept = fields.get("kept", kept, decltype(manifest.kept){});
  manifest.files = fields.need("files", files_from);
}

}  // namespace

Type type_named(const std::string& name, const Place& place) {
  for (const Type type : {Type::fp32, Type::fp16, Type::bf16})
    if (name == name_of(type)) return type;
  refuse_value("expected fp32, fp16 or bf16, got " + quoted(name), place);
}

Type type_from(const Json& json, const Place& place) {
  return type_named(text_of(json, place), place);
}

ManifestDocument document_from(const Json& json, int schema) {
  const Place place;
  Fields fields(json, place);
  ManifestDocument document;
  Manifest& manifest = document.manifest;
  manifest.schema = static_cast<int>(fields.need("schema", integer_of));
  manifest.generator = fields.need("generator", text_of);
  manifest.name = fields.need("name", text_of);
  manifest.family = fields.need("family", text_of);
  manifest.golden = fields.need("golden", text_of);
  read_tables(fields, manifest);
  manifest.plans = fields.need("plans", [schema](const Json& plans, const Place& at) {
    return list_of(plans, at, [schema](const Json& plan, const Place& of) {
      return plan_from(plan, of, schema);
    });
  });
  document.sample_shape = fields.need("sample_shape", integers_of);
  document.stages = fields.need("stages", [](const Json& stages, const Place& at) {
    return list_of(stages, at, stage_record_from);
  });
  check_the_rest(fields);
  fields.refuse_unknown();
  return document;
}

}  // namespace tiedexport::internal
