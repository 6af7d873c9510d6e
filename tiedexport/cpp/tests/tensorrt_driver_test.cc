// The CUDA driver and one of its devices, on a double of libcuda.so.1.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "backend.hpp"
#include "error.hpp"
#include "tensorrt/cuda_double.hpp"
#include "tensorrt/driver.hpp"
#include "tensorrt/gpu.hpp"

namespace tiedexport::internal::tensorrt {
namespace {

class Driver : public testing::Test {
 protected:
  void SetUp() override {
    *cuda_double() = doubles::CudaDouble{};
    unsetenv("CUDA_VISIBLE_DEVICES");
  }

  static bool says(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  static std::shared_ptr<const Gpu> gpu() {
    const Probe probe = probe_driver();
    return std::make_shared<Gpu>(probe.driver, probe.devices.at(0));
  }
};

TEST_F(Driver, ShowsItsDevices) {
  cuda_double()->devices = 2;
  cuda_double()->capability = 121;
  const Probe probe = probe_driver();
  EXPECT_NE(probe.driver, nullptr);
  EXPECT_EQ(probe.reason, "");
  EXPECT_EQ(cuda_version(probe.cuda), "13.0");
  ASSERT_EQ(probe.devices.size(), 2U);
  EXPECT_EQ(probe.devices[1].ordinal, 1);
  EXPECT_EQ(probe.devices[1].name, "A double of a GPU");
  EXPECT_EQ(probe.devices[1].compute_capability, 121);
}

TEST_F(Driver, SaysThatItDoesNotStart) {
  cuda_double()->init_code = 803;
  const Probe probe = probe_driver();
  EXPECT_EQ(probe.driver, nullptr);
  EXPECT_EQ(probe.reason,
            "the CUDA driver does not start (CUDA_ERROR_OF_THE_DOUBLE: as the test asked for it "
            "(803))");
  EXPECT_TRUE(says(probe.remedy, "reboot"));
}

TEST_F(Driver, SaysThatThereIsNoDevice) {
  cuda_double()->devices = 0;
  EXPECT_EQ(probe_driver().driver, nullptr);
  EXPECT_EQ(probe_driver().reason, "the CUDA driver shows no device");
  setenv("CUDA_VISIBLE_DEVICES", "7", 1);
  EXPECT_TRUE(says(probe_driver().reason, "with CUDA_VISIBLE_DEVICES='7'"));
  EXPECT_TRUE(says(probe_driver().remedy, "unset CUDA_VISIBLE_DEVICES"));
}

TEST_F(Driver, IsTooOld) {
  cuda_double()->cuda = 10020;
  const Probe probe = probe_driver();
  EXPECT_EQ(probe.driver, nullptr);
  EXPECT_EQ(probe.reason,
            "the NVIDIA driver is too old: it runs programs up to CUDA 10.2, and 11.4 is needed");
  EXPECT_EQ(probe.remedy, "update the NVIDIA driver");
}

#ifdef TIEDEXPORT_TENSORRT_COMPILED
TEST_F(Driver, IsAskedBeforeTheLibrary) {
  const Availability availability = tensorrt_backend().availability();
  if (availability.available) GTEST_SKIP() << "this machine has TensorRT";
  EXPECT_TRUE(says(availability.reason, "was not found")) << availability.reason;
  EXPECT_TRUE(says(availability.remedy, "LD_LIBRARY_PATH")) << availability.remedy;
  cuda_double()->devices = 0;
  EXPECT_EQ(tensorrt_backend().availability().reason, "the CUDA driver shows no device");
}
#endif

TEST_F(Driver, GivesBackAllThatItGave) {
  {
    const auto device = gpu();
    const DeviceMemory memory(device, 1000, "a test");
    const PinnedMemory pinned(device, 1000, "a test");
    const Stream stream(device);
    Event event(device);
    event.record(stream.handle());
    EXPECT_EQ(cuda_double()->device_memory.size(), 1U);
    EXPECT_EQ(cuda_double()->contexts, 1);
  }
  const doubles::CudaDouble& left = *cuda_double();
  EXPECT_TRUE(left.device_memory.empty());
  EXPECT_EQ(left.pinned + left.streams + left.events + left.graphs + left.contexts, 0);
  EXPECT_EQ(left.without_context, 0);
}

TEST_F(Driver, TellsWhatMemoryIsThere) {
  cuda_double()->memory_bytes = 5000;
  const auto device = gpu();
  const DeviceMemory held(device, 1000, "a test");
  try {
    const DeviceMemory memory(device, 4001, "the weights");
    FAIL() << "it had room";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), TIEDEXPORT_OUT_OF_MEMORY);
    EXPECT_TRUE(says(error.what(), "no device memory for the weights, 4001 bytes"));
    EXPECT_TRUE(says(error.what(), "CUDA_ERROR_OUT_OF_MEMORY"));
    EXPECT_TRUE(says(error.what(), "of the device's 5000 bytes, 4000 are free"));
  }
}

TEST_F(Driver, RunsWhatWasCapturedAsOftenAsItIsLaunched) {
  const auto device = gpu();
  const Current current(*device);
  const Stream stream(device);
  const DeviceMemory memory(device, sizeof(int), "a test");
  int from = 1, to = 0;
  const Graph graph(device, stream, [&] {
    stream.copy_in(memory.address(), &from, sizeof(int));
    stream.copy_out(&to, memory.address(), sizeof(int));
  });
  stream.wait();
  EXPECT_EQ(to, 0);  // captured, not run
  for (from = 2; from < 4; ++from) {
    graph.launch(stream);
    stream.wait();
    EXPECT_EQ(to, from);
  }
}

TEST_F(Driver, EndsACaptureThatWentWrong) {
  const auto device = gpu();
  const Current current(*device);
  const Stream stream(device);
  const auto fail = [] { throw Error(TIEDEXPORT_BACKEND_FAILED, {"no", "", "", "", ""}); };
  EXPECT_THROW(Graph(device, stream, fail), Error);
  EXPECT_FALSE(cuda_double_is_capturing(stream.handle()));
  cuda_double()->capture_end_code = 901;
  EXPECT_THROW(Graph(device, stream, [] {}), Error);
  EXPECT_FALSE(cuda_double_is_capturing(stream.handle()));
  EXPECT_EQ(cuda_double()->graphs, 0);
}

}  // namespace
}  // namespace tiedexport::internal::tensorrt
