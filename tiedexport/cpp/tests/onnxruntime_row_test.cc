// The row of ONNX Runtime says what is missing, in a build with its header and in one without.
#include <gtest/gtest.h>
#include <stdlib.h>

#include "backend.hpp"
#include "bundle_files.hpp"

namespace tiedexport::internal {
namespace {

#ifdef TIEDEXPORT_ONNXRUNTIME_COMPILED
constexpr const char* kReason = "/nowhere/libonnxruntime.so.1";
constexpr const char* kRemedy = "TIEDEXPORT_ONNXRUNTIME";
#else
constexpr const char* kReason = "not compiled: onnxruntime_c_api.h was ";
constexpr const char* kRemedy = "-DONNXRUNTIME_INCLUDE_DIR=FOLDER";
#endif

TEST(OnnxRuntimeRow, SaysWhyItCannotRunAndWhatToDo) {
  setenv("TIEDEXPORT_ONNXRUNTIME", "/nowhere/libonnxruntime.so.1", 1);
  const BackendRow row = onnxruntime_backend();
  EXPECT_STREQ(row.name, "onnxruntime");
  EXPECT_EQ(row.rank, 20);
  const Availability found = row.availability();
  EXPECT_FALSE(found.available);
  EXPECT_NE(found.reason.find(kReason), std::string::npos) << found.reason;
  EXPECT_NE(found.remedy.find(kRemedy), std::string::npos) << found.remedy;
  const auto bundle =
      std::make_shared<const Bundle>(testing::data_bundle(2), TIEDEXPORT_CHECK_SIZE);
  EXPECT_REFUSED([&] { row.open(bundle, {}); }, TIEDEXPORT_UNAVAILABLE, kReason);
  EXPECT_REFUSED([&] { row.open(bundle, {}); }, TIEDEXPORT_UNAVAILABLE, kRemedy);
}

}  // namespace
}  // namespace tiedexport::internal
