#include "manifest.hpp"

#include <algorithm>
#include <set>

#include "error.hpp"
#include "json_fields.hpp"
#include "manifest_document.hpp"
#include "release.hpp"
#include "sha256.hpp"
#include "words.hpp"

namespace tiedexport::internal {
namespace {

constexpr std::int64_t newest_schema = 2;  // this release reads it and every earlier one

/// The document without its last member, which is the SHA-256 of all bytes before that member.
std::string signed_body(std::string_view bytes, const std::string& where) {
  constexpr std::string_view key = ",\n  \"digest\": \"", end = "\"\n}\n";
  const std::size_t at = bytes.rfind(key);
  const bool there = at != std::string_view::npos;
  const std::string_view body = bytes.substr(0, there ? at : 0);
  const std::string digest = sha256_hex(body);
  const std::string_view tail = there ? bytes.substr(at + key.size()) : "";
  if (!there || tail != digest + std::string(end))
    throw Error(TIEDEXPORT_CORRUPT,
                {"the manifest is damaged or was edited", where,
                 there ? "a digest " + quoted(tail.substr(0, 64)) : "no digest",
                 there ? digest : "the digest of its bytes as its last member",
                 "copy the bundle again, or rebuild it: tiedexport build model.pt"});
  return std::string(body) + "\n}";
}

/// Whatever other fields it has: a newer schema is told from damage.
int known_schema(const Json& json, const std::string& where) {
  const Place place;
  Fields fields(json, place);
  const std::int64_t schema = fields.need("schema", integer_of);
  const std::string& generator = fields.need("generator", text_of);
  if (schema >= 1 && schema <= newest_schema) return static_cast<int>(schema);
  const bool newer = schema > newest_schema;
  const std::string release = newer ? release_named_by(generator) : "";
  throw Error(newer ? TIEDEXPORT_UNSUPPORTED : TIEDEXPORT_CORRUPT,
              {newer ? "the bundle was written by a newer tiedexport"
                     : "the bundle has a schema that never was",
               where, "schema " + std::to_string(schema) + " of " + quoted(generator),
               "schema 1 to " + std::to_string(newest_schema),
               release.empty() ? "pip install --upgrade tiedexport"
                               : "pip install 'tiedexport>=" + release + "'"});
}

ManifestDocument document_of(std::string_view bytes, const std::string& where) {
  const std::string body = signed_body(bytes, where);
  try {
    const Json json = parse_json(body);
    return document_from(json, known_schema(json, where));
  } catch (const JsonFault& fault) {
    throw Error(TIEDEXPORT_CORRUPT, {"the manifest is not valid", where, fault.what(), "", ""});
  }
}

std::set<std::string> files_named_in(const Manifest& manifest) {
  std::set<std::string> named{manifest.golden};
  for (const auto& [type, file] : manifest.weights) named.insert(file);
  for (const auto& [type, graphs] : manifest.graphs)
    for (const auto& [stage, file] : graphs) named.insert(file);
  for (const Plan& plan : manifest.plans)
    for (const std::string& file : {plan.file, plan.graph})
      if (!file.empty()) named.insert(file);
  return named;
}

void refuse_files_without_digest(const Manifest& manifest, const std::string& where) {
  std::vector<std::string> missing;
  for (const std::string& name : files_named_in(manifest))
    if (manifest.files.count(name) == 0) missing.push_back(name);
  if (!missing.empty())
    throw Error(TIEDEXPORT_CORRUPT,
                {"files without a digest", where, quoted(joined_with_commas(missing)), "", ""});
}

bool is_safe_name(std::string_view name) {
  if (name.find_first_of(std::string_view("\\:\0", 3)) != std::string_view::npos) return false;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

void refuse_unsafe_names(const Manifest& manifest, const std::string& where) {
  for (const auto& [name, record] : manifest.files)
    if (!is_safe_name(name))
      throw Error(TIEDEXPORT_CORRUPT, {"a file name that could leave the bundle", where,
                                       quoted(name), "a relative path without '..'", ""});
}

void refuse_contradictions(const ManifestDocument& document, const std::string& where) {
  const std::vector<std::string> faults = contradictions(document);
  if (faults.empty()) return;
  std::string got;
  for (std::size_t i = 0; i < std::min<std::size_t>(faults.size(), 3); ++i)
    got += (i > 0 ? "; " : "") + quoted(faults[i]);
  throw Error(TIEDEXPORT_CORRUPT, {"the manifest contradicts itself", where, got, "", ""});
}

}  // namespace

const char* name_of(Type type) {
  switch (type) {
    case Type::fp32:
      return "fp32";
    case Type::fp16:
      return "fp16";
    case Type::bf16:
      break;
  }
  return "bf16";
}

std::size_t TensorSpec::element_count() const {
  std::size_t count = 1;
  for (const std::size_t size : element_shape) count *= size;  // parse_manifest has bounded it
  return count;
}

const Stage* Manifest::stage(std::string_view stage_name) const {
  const auto found = std::find_if(stages.begin(), stages.end(),
                                  [&](const Stage& s) { return s.name == stage_name; });
  return found == stages.end() ? nullptr : &*found;
}

Manifest parse_manifest(std::string_view bytes, const std::string& where) {
  ManifestDocument document = document_of(bytes, where);
  refuse_files_without_digest(document.manifest, where);
  refuse_unsafe_names(document.manifest, where);
  refuse_contradictions(document, where);
  document.manifest.stages = stages_from(document.stages);
  return std::move(document.manifest);
}

}  // namespace tiedexport::internal
