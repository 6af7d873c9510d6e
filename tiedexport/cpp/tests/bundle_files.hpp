// Bundles for tests: copies of those in tests/data, altered and signed again.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "error.hpp"
#include "sha256.hpp"

namespace tiedexport::internal::testing {

inline std::string data_bundle(int schema) {
  return std::string(TIEDEXPORT_TEST_DATA) + "/schema-" + std::to_string(schema) + ".tied";
}

inline std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  EXPECT_TRUE(file.good()) << path;
}

/// A directory of its own, removed at the end.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "tiedexport-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// `text` with the first `from` made `to`; a test whose `from` is not there fails.
inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << "nothing to replace: " << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

/// A manifest whose digest is right, of an altered one or of a body without a digest.
inline std::string signed_again(const std::string& manifest) {
  const std::string_view key = ",\n  \"digest\": \"";
  const std::string body = manifest.substr(0, manifest.rfind(key));
  return body + std::string(key) + sha256_hex(body) + "\"\n}\n";
}

/// A copy of a bundle in tests/data.
class BundleCopy {
 public:
  explicit BundleCopy(int schema = 2) {
    std::filesystem::copy(data_bundle(schema), path(), std::filesystem::copy_options::recursive);
  }
  std::filesystem::path path() const { return folder_.path() / "copy.tied"; }
  std::filesystem::path outside() const { return folder_.path() / "outside"; }

  void alter_manifest(std::string_view from, std::string_view to) const {
    const auto manifest = path() / "manifest.json";
    write(manifest, signed_again(replaced(contents(manifest), from, to)));
  }

  /// Writes a listed file and makes the manifest agree with it.
  void write_listed(const std::string& name, std::string_view bytes) const {
    write(path() / name, bytes);
    const std::string text = contents(path() / "manifest.json");
    const std::size_t begin = text.find("\"" + name + "\": {");
    ASSERT_NE(begin, std::string::npos) << name;
    const std::string old = text.substr(begin, text.find('}', begin) + 1 - begin);
    alter_manifest(old, "\"" + name + "\": {\"size_bytes\": " + std::to_string(bytes.size()) +
                            ", \"sha256\": \"" + sha256_hex(bytes) + "\"}");
  }

 private:
  Folder folder_;
};

struct Refusal {
  tiedexport_status status;
  std::string message;
};

/// The Error that `call` throws; a test whose call throws none fails.
template <class Call>
Refusal refusal_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.status(), error.what()};
  }
  ADD_FAILURE() << "nothing was refused";
  return {TIEDEXPORT_OK, ""};
}

#define EXPECT_REFUSED(call, expected_status, words)                        \
  do {                                                                      \
    const auto refusal = ::tiedexport::internal::testing::refusal_of(call); \
    EXPECT_EQ(refusal.status, expected_status) << refusal.message;          \
    EXPECT_NE(refusal.message.find(words), std::string::npos)               \
        << "expected: " << (words) << "\ngot: " << refusal.message;         \
  } while (false)

}  // namespace tiedexport::internal::testing
