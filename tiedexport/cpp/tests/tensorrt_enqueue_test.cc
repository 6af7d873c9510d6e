// TensorRT's backend on device memory and streams of the caller.
#include <cstdlib>
#include <cstring>

#include "tensorrt/session_fixture.hpp"

namespace tiedexport::internal {
namespace {

/// Memory of the double's device, which is the host's, aligned as the driver aligns it.
class Device {
 public:
  explicit Device(std::size_t count)
      : count_(count), data_(static_cast<float*>(std::aligned_alloc(256, bytes()))) {
    std::memset(data_, 0, bytes());
  }
  explicit Device(const Values& values) : Device(values.size()) { set(values); }
  ~Device() { std::free(data_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  float* data() const { return data_; }
  void set(const Values& values) { std::memcpy(data_, values.data(), count_ * sizeof(float)); }
  Values values() const { return {data_, data_ + count_}; }

 private:
  std::size_t bytes() const { return (count_ * sizeof(float) + 255) / 256 * 256; }

  std::size_t count_;
  float* data_;
};

class Enqueue : public TensorRt {
 protected:
  void SetUp() override {
    TensorRt::SetUp();
    for (void*& stream : streams_) cuStreamCreate(&stream, 1);
  }
  void TearDown() override {
    session_.reset();
    for (void* stream : streams_) cuStreamDestroy_v2(stream);
    bundle_.reset();
    TensorRt::TearDown();
  }

  void open_with(int smallest, int largest) {
    bundle_ = bundle("shared", smallest, largest);
    session_ = open(bundle_);
  }
  void encode(const Device& x, const Device& z, std::size_t rows, void* stream) {
    session_->enqueue(stage(*bundle_, "encoder"), rows, x.data(), z.data(), stream);
  }

  std::shared_ptr<const Bundle> bundle_;
  std::unique_ptr<Backend> session_;
  void* streams_[2] = {};
};

TEST_F(Enqueue, ReturnsBeforeTheDeviceIsDone) {
  open_with(1, 8);
  const Values x = numbers(5 * kFeatures);
  const Device input(x), output(5 * kLatent);
  const std::size_t uploaded_bytes = cuda_double()->uploaded_bytes;
  encode(input, output, 5, streams_[0]);
  EXPECT_EQ(output.values(), Values(5 * kLatent));
  cuStreamSynchronize(streams_[0]);
  EXPECT_EQ(output.values(), encoded(x));
  EXPECT_EQ(cuda_double()->uploaded_bytes, uploaded_bytes);  // no copy
}

TEST_F(Enqueue, TakesTurnsBetweenStreams) {
  open_with(1, 8);
  const Values x = numbers(2 * kFeatures), other = numbers(3 * kFeatures, 4);
  const Device first(x), second(other), codes(2 * kLatent), other_codes(3 * kLatent);
  encode(first, codes, 2, streams_[0]);
  encode(second, other_codes, 3, streams_[1]);
  cuStreamSynchronize(streams_[1]);  // which waits for the other stream
  EXPECT_EQ(codes.values(), encoded(x));
  EXPECT_EQ(other_codes.values(), encoded(other));
  EXPECT_EQ(cuda_double()->waits, 1);
}

TEST_F(Enqueue, LetsTheDeviceFinishBeforeTheSessionGoes) {
  open_with(1, 8);
  const Values x = numbers(2 * kFeatures);
  const Device input(x), output(2 * kLatent);
  encode(input, output, 2, streams_[0]);
  session_.reset();
  EXPECT_EQ(output.values(), encoded(x));
}

TEST_F(Enqueue, CutsLargeBatchesWhereRowsAreAligned) {
  open_with(1, 100);
  const Values x = numbers(150 * kFeatures);
  const Device input(x), output(150 * kLatent);
  encode(input, output, 150, streams_[0]);
  cuStreamSynchronize(streams_[0]);
  EXPECT_EQ(output.values(), encoded(x));
  EXPECT_EQ(nvinfer_double()->executions, 3);  // 64, 64, 22
}

TEST_F(Enqueue, RefusesLargeBatchesThatCannotBeCut) {
  open_with(1, 63);
  const Device input(numbers(64 * kFeatures)), output(64 * kLatent);
  expect_error(TIEDEXPORT_UNSUPPORTED, {"at most 63 rows", "64 rows or more", "--maxShapes"},
               [&] { encode(input, output, 64, streams_[0]); });
}

TEST_F(Enqueue, RefusesSmallBatchesThatItCannotFillUp) {
  open_with(4, 8);
  const Device input(numbers(2 * kFeatures)), output(2 * kLatent);
  expect_error(TIEDEXPORT_UNSUPPORTED, {"2 rows", "4 rows or more", "--minShapes"},
               [&] { encode(input, output, 2, streams_[0]); });
}

TEST_F(Enqueue, RefusesAddressesThatTensorRtDoesNotTake) {
  open_with(1, 8);
  const Device input(numbers(4 * kFeatures)), output(4 * kLatent);
  const Stage& encoder = stage(*bundle_, "encoder");
  expect_error(TIEDEXPORT_INVALID_ARGUMENT, {"input", "a multiple of 256"}, [&] {
    session_->enqueue(encoder, 1, input.data() + 1, output.data(), streams_[0]);
  });
  expect_error(TIEDEXPORT_INVALID_ARGUMENT, {"output"}, [&] {
    session_->enqueue(encoder, 1, input.data(), output.data() + 1, streams_[0]);
  });
}

TEST_F(Enqueue, GoesIntoTheCallersGraphOnceItIsWarm) {
  open_with(1, 8);
  Device input(numbers(2 * kFeatures));
  const Device output(2 * kLatent);
  const auto capture = [&](std::size_t rows) {
    void* graph = nullptr;
    cuStreamBeginCapture_v2(streams_[0], 1);
    try {
      encode(input, output, rows, streams_[0]);
    } catch (const Error&) {
      cuStreamEndCapture(streams_[0], &graph);
      cuGraphDestroy(graph);
      throw;
    }
    cuStreamEndCapture(streams_[0], &graph);
    return graph;
  };
  const auto too_early = {std::string("no capture can hold"), std::string("enqueue once")};
  expect_error(TIEDEXPORT_UNSUPPORTED, too_early, [&] { capture(2); });
  encode(input, output, 2, streams_[0]);
  expect_error(TIEDEXPORT_UNSUPPORTED, too_early, [&] { capture(1); });
  cuStreamSynchronize(streams_[0]);
  void* graph = capture(2);
  void* executable = nullptr;
  cuGraphInstantiateWithFlags(&executable, graph, 0);
  cuGraphDestroy(graph);
  // Other calls get contexts of their own.
  const Device other(numbers(3 * kFeatures, 5)), other_output(3 * kLatent);
  encode(other, other_output, 3, streams_[1]);
  EXPECT_EQ(nvinfer_double()->contexts, 2);
  cuStreamSynchronize(streams_[1]);
  EXPECT_EQ(other_output.values(), encoded(other.values()));
  for (std::size_t seed = 1; seed < 3; ++seed) {
    input.set(numbers(2 * kFeatures, seed));
    cuGraphLaunch(executable, streams_[0]);
    cuStreamSynchronize(streams_[0]);
    EXPECT_EQ(output.values(), encoded(input.values()));
  }
  cuGraphExecDestroy(executable);
}

}  // namespace
}  // namespace tiedexport::internal
