// Which backend and precision a session gets, on a table of backends made for the test.
#include "backends.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "error.hpp"

namespace tiedexport::internal {
namespace {

class Nothing : public Backend {
 public:
  void run(const Stage&, std::size_t, const void*, void*) override {}
  std::string description() const override { return "nothing"; }
};

Availability works() { return {true, "1.0", "", ""}; }
Availability absent() { return {false, "", "no such device", "buy one"}; }
std::string nothing_refused(const Bundle&, Type) { return ""; }
std::string fp32_refused(const Bundle&, Type type) {
  return type == Type::fp32 ? "it has no fp32" : "";
}
std::string all_refused(const Bundle&, Type) { return "too odd"; }
std::unique_ptr<Backend> opens(std::shared_ptr<const Bundle>, const Options&) {
  return std::make_unique<Nothing>();
}
template <tiedexport_status status>
std::unique_ptr<Backend> fails(std::shared_ptr<const Bundle>, const Options&) {
  throw Error(status, {"it failed to open", "", "", "", ""});
}

constexpr BackendRow missing{"missing", 1, absent, nothing_refused, opens};
constexpr BackendRow refusing{"refusing", 2, works, all_refused, opens};
constexpr BackendRow failing{"failing", 3, works, nothing_refused,
                             fails<TIEDEXPORT_BACKEND_FAILED>};
constexpr BackendRow half{"half", 4, works, fp32_refused, opens};
constexpr BackendRow native{"native", 10, works, nothing_refused, opens};

std::shared_ptr<const Bundle> bundle() {
  static const auto opened = std::make_shared<const Bundle>(
      std::string(TIEDEXPORT_TEST_DATA) + "/schema-2.tied", TIEDEXPORT_CHECK_HASH);
  return opened;
}

Opened open(const std::vector<BackendRow>& rows, const std::string& backend,
            const std::string& precision = "", const std::string& simd = "") {
  return open_backend(rows, bundle(), {backend, precision, simd, 0, 0});
}

/// The words of the error, its status first.
std::string trouble(const std::vector<BackendRow>& rows, const std::string& backend,
                    const std::string& precision = "", const std::string& simd = "") {
  try {
    open(rows, backend, precision, simd);
  } catch (const Error& error) {
    return std::to_string(error.status()) + " " + error.what();
  }
  return "opened";
}

bool begins(const std::string& text, tiedexport_status status) {
  return text.rfind(std::to_string(status) + " ", 0) == 0;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Backends, AutoTakesTheFirstThatWorks) {
  for (const char* automatic : {"", "auto"}) {
    const Opened opened = open({missing, refusing, failing, native, half}, automatic);
    EXPECT_STREQ(opened.backend, "native");
    EXPECT_EQ(opened.precision, Type::fp32);
    EXPECT_NE(opened.session, nullptr);
  }
}

TEST(Backends, AnUnaskedPrecisionIsTheFirstNotRefused) {
  EXPECT_EQ(open({half}, "").precision, Type::fp16);
  EXPECT_EQ(open({half}, "", "bf16").precision, Type::bf16);
  const std::string words = trouble({half}, "half", "fp32");
  EXPECT_TRUE(begins(words, TIEDEXPORT_UNSUPPORTED)) << words;
  EXPECT_TRUE(has(words, "fp32: it has no fp32")) << words;
}

TEST(Backends, AnUnaskedPrecisionIsTheRowsFirstThatIsStored) {
  BackendRow gpu = native;
  gpu.precisions = {Type::fp16, Type::bf16, Type::fp32};
  EXPECT_EQ(open({gpu}, "").precision, Type::fp16);
  EXPECT_EQ(open({gpu}, "", "fp32").precision, Type::fp32);
  EXPECT_EQ(tensorrt_backend().precisions.front(), Type::fp16);
  EXPECT_EQ(native_backend().precisions.front(), Type::fp32);
}

TEST(Backends, AutoThatFindsNothingTellsWhyOfEach) {
  const std::string words = trouble({missing, refusing, failing}, "");
  EXPECT_TRUE(begins(words, TIEDEXPORT_UNAVAILABLE)) << words;
  for (const char* part : {"no such device", "buy one", "too odd", "it failed to open"})
    EXPECT_TRUE(has(words, part)) << words;
}

TEST(Backends, AutoDoesNotHideWhatNoOtherBackendCanMend) {
  const BackendRow corrupt{"corrupt", 1, works, nothing_refused, fails<TIEDEXPORT_CORRUPT>};
  EXPECT_TRUE(begins(trouble({corrupt, native}, ""), TIEDEXPORT_CORRUPT));
}

TEST(Backends, OneAskedForSaysWhyItDoesNotWork) {
  const std::string words = trouble({missing, native}, "missing");
  EXPECT_TRUE(begins(words, TIEDEXPORT_UNAVAILABLE)) << words;
  EXPECT_TRUE(has(words, "no such device")) << words;
  EXPECT_TRUE(has(words, "try: buy one")) << words;
  EXPECT_TRUE(begins(trouble({refusing, native}, "refusing"), TIEDEXPORT_UNSUPPORTED));
  EXPECT_TRUE(begins(trouble({failing, native}, "failing"), TIEDEXPORT_BACKEND_FAILED));
}

TEST(Backends, UnknownNamesListTheKnown) {
  const std::string backend = trouble({missing, native}, "cuda");
  EXPECT_TRUE(begins(backend, TIEDEXPORT_INVALID_ARGUMENT)) << backend;
  EXPECT_TRUE(has(backend, "got: cuda")) << backend;
  EXPECT_TRUE(has(backend, "auto, missing, native")) << backend;
  const std::string precision = trouble({native}, "", "int8");
  EXPECT_TRUE(begins(precision, TIEDEXPORT_INVALID_ARGUMENT)) << precision;
  EXPECT_TRUE(has(precision, "fp32, fp16, bf16")) << precision;
}

TEST(Backends, AnInstructionSetMeansNative) {
  EXPECT_STREQ(open({half, native}, "", "", "avx2").backend, "native");
  EXPECT_STREQ(open({half, native}, "native", "", "avx2").backend, "native");
  EXPECT_TRUE(begins(trouble({half, native}, "half", "", "avx2"), TIEDEXPORT_INVALID_ARGUMENT));
}

TEST(Backends, OnlyGpuBackendsTakeAStream) {
  Nothing backend;
  EXPECT_THROW(backend.enqueue({}, 1, nullptr, nullptr, nullptr), Error);
}

TEST(Backends, TheTableIsSortedAndNativeIsAlwaysThere) {
  const auto& rows = backends();
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end(), [](const auto& one, const auto& other) {
    return one.rank < other.rank;
  }));
  std::vector<std::string> names;
  for (const BackendRow& row : rows) names.push_back(row.name);
  EXPECT_EQ(names, (std::vector<std::string>{"tensorrt", "native", "onnxruntime"}));
  EXPECT_TRUE(rows[1].availability().available);
}

}  // namespace
}  // namespace tiedexport::internal
