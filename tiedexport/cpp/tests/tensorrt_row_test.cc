// TensorRT's row of the table on a machine without an NVIDIA driver, as most test machines are.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>

#include "backend.hpp"
#include "error.hpp"

namespace tiedexport::internal {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(TensorRtRow, SaysWhyItDoesNotWorkAndWhatToDo) {
  const BackendRow row = tensorrt_backend();
  EXPECT_STREQ(row.name, "tensorrt");
  EXPECT_EQ(row.rank, 5);
#ifdef TIEDEXPORT_TENSORRT_COMPILED
  if (dlopen("libcuda.so.1", RTLD_LAZY) != nullptr) GTEST_SKIP() << "this machine has a driver";
  const std::string reason = "no NVIDIA driver: libcuda.so.1 was not found";
  const std::string remedy = "install the NVIDIA display driver";
#else
  const std::string reason = "not compiled: ", remedy = "-DTensorRT_INCLUDE_DIR=";
#endif
  const Availability availability = row.availability();
  EXPECT_FALSE(availability.available);
  EXPECT_EQ(availability.reason.rfind(reason, 0), 0U) << availability.reason;
  EXPECT_TRUE(contains(availability.remedy, remedy)) << availability.remedy;
  try {
    row.open(nullptr, Options{});
    FAIL() << "it opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), TIEDEXPORT_UNAVAILABLE);
    EXPECT_TRUE(contains(error.what(), reason)) << error.what();
    EXPECT_TRUE(contains(error.what(), remedy)) << error.what();
  }
}

}  // namespace
}  // namespace tiedexport::internal
