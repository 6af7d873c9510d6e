// A safetensors file is refused before a tensor of it is handed out: damaged, cut, or lying.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "bundle_files.hpp"
#include "safetensors.hpp"

namespace tiedexport::internal {
namespace {

using testing::contents;
using testing::data_bundle;
using testing::Folder;
using testing::write;

std::string eight_bytes(std::uint64_t number) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(number >> (8 * i));
  return bytes;
}

/// A safetensors file; the header is padded to 8 bytes as the library does, but for `padding`.
std::string file_of(std::string header, std::size_t data_bytes, bool padding = true) {
  while (padding && header.size() % 8 != 0) header += ' ';
  return eight_bytes(header.size()) + header + std::string(data_bytes, '\x3c');
}

class WeightsFile {
 public:
  explicit WeightsFile(const std::string& bytes) : size_bytes_(bytes.size()) {
    write(path(), bytes);
    file_ = File(open(path().c_str(), O_RDONLY | O_CLOEXEC));
  }
  std::filesystem::path path() const { return folder_.path() / "w.safetensors"; }
  std::unique_ptr<Weights> opened() const {
    return std::make_unique<Weights>(file_.fd(), size_bytes_, path().string());
  }

 private:
  Folder folder_;
  File file_;
  std::uint64_t size_bytes_;
};

constexpr const char* two_tensors = R"({"__metadata__": {"format": "pt"},
  "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
  "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]}})";

TEST(WeightsTest, HandsOutTensorsOfTheMapping) {
  const WeightsFile file(file_of(two_tensors, 34));
  const auto weights = file.opened();
  ASSERT_EQ(weights->tensors().size(), 2u);
  const Tensor& a = weights->tensor("a");
  EXPECT_EQ(a.type, Type::fp32);
  EXPECT_EQ(a.shape, (std::vector<std::size_t>{2, 3}));
  EXPECT_EQ(a.count, 6u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data) % 4, 0u);
  const Tensor& b = weights->tensor("b");
  EXPECT_EQ(b.type, Type::bf16);
  EXPECT_EQ(b.count, 5u);
  EXPECT_EQ(static_cast<const char*>(b.data) - static_cast<const char*>(a.data), 24);
  EXPECT_EQ(static_cast<const char*>(b.data) + 10,
            static_cast<const char*>(weights->data()) + weights->size_bytes());
  EXPECT_EQ(static_cast<const char*>(b.data)[9], '\x3c');
  EXPECT_REFUSED([&] { weights->tensor("c"); }, TIEDEXPORT_CORRUPT, "not stored");
}

TEST(WeightsTest, ReadsRealFilesOfEveryType) {
  for (const char* type : {"fp32", "fp16", "bf16"}) {
    const WeightsFile file(contents(data_bundle(2) + "/weights." + type + ".safetensors"));
    const auto weights = file.opened();
    EXPECT_EQ(weights->tensors().size(), 6u);
    std::size_t count = 0;
    for (const auto& [name, tensor] : weights->tensors()) {
      EXPECT_STREQ(name_of(tensor.type), type);
      count += tensor.count;
    }
    EXPECT_EQ(count, 48u);
  }
}

TEST(WeightsTest, ReadsNoTensorsAndTensorsOfNoElements) {
  EXPECT_TRUE(WeightsFile(file_of("{}", 0)).opened()->tensors().empty());
  const WeightsFile file(file_of(
      R"({"z": {"dtype": "F32", "shape": [0, 7], "data_offsets": [4, 4]},
          "s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}})",
      4));
  EXPECT_EQ(file.opened()->tensor("z").count, 0u);
  EXPECT_EQ(file.opened()->tensor("s").count, 1u);
}

TEST(WeightsTest, AFileOfAnotherSizeThanTheManifestSaysIsRefused) {
  const WeightsFile file(file_of(two_tensors, 34));
  const File fd(open(file.path().c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_REFUSED([&] { Weights(fd.fd(), 33, "w"); }, TIEDEXPORT_CORRUPT, "wrong size");
}

TEST(WeightsTest, AFileThatIsCutWhileItIsMappedIsNoticed) {
  const WeightsFile file(file_of(two_tensors, 34));
  const auto weights = file.opened();
  EXPECT_NO_THROW(weights->refuse_if_truncated());
  std::filesystem::resize_file(file.path(), 100);
  EXPECT_REFUSED([&] { weights->refuse_if_truncated(); }, TIEDEXPORT_CORRUPT, "wrong size");
}

TEST(WeightsTest, AFileThatIsReplacedLivesOnUnchanged) {
  const WeightsFile file(file_of(two_tensors, 34));
  const auto weights = file.opened();
  std::filesystem::remove(file.path());
  write(file.path(), "short");
  EXPECT_NO_THROW(weights->refuse_if_truncated());
  EXPECT_EQ(static_cast<const char*>(weights->tensor("b").data)[9], '\x3c');
}

struct Bad {
  const char* name;
  std::string bytes;
  const char* words;
};

class BadWeightsTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadWeightsTest, AreRefused) {
  const WeightsFile file(GetParam().bytes);
  EXPECT_REFUSED([&] { file.opened(); }, TIEDEXPORT_CORRUPT, GetParam().words);
}

/// A file with one tensor.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                std::size_t data_bytes) {
  return file_of(R"({"a": {"dtype": )" + dtype + R"(, "shape": )" + shape +
                     R"(, "data_offsets": )" + offsets + "}}",
                 data_bytes);
}

/// A file with two tensors of fp32 and one axis.
std::string two(const std::string& first_offsets, const std::string& second_offsets,
                std::size_t data_bytes) {
  return file_of(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": )" + first_offsets +
                     R"(}, "b": {"dtype": "F32", "shape": [2], "data_offsets": )" + second_offsets +
                     "}}",
                 data_bytes);
}

const std::string f32 = "\"F32\"";

const Bad bad_files[] = {
    {"Empty", "", "without a header"},
    {"SevenBytes", "1234567", "without a header"},
    {"HeaderBeyondTheFile", eight_bytes(3) + "{}", "one inside the file"},
    {"HeaderOf2To64", eight_bytes(UINT64_MAX) + "{}", "one inside the file"},
    {"HeaderOf2To63", eight_bytes(UINT64_MAX / 2 + 1) + "{}", "one inside the file"},
    {"NoHeader", eight_bytes(0), "no JSON object"},
    {"Noise", std::string(64, '\xff'), "one inside the file"},
    {"SpaceBeforeTheHeader", file_of(" {}", 0), "no JSON object"},
    {"HeaderIsAList", file_of("[]", 0), "no JSON object"},
    {"HeaderIsCut", file_of("{\"a\": {", 0), "expected a name"},
    {"HeaderIsDeep", file_of("{\"a\":" + std::string(1000, '['), 0), "too deeply"},
    {"NameTwice", file_of(R"({"a": {}, "a": {}})", 0), "twice"},
    {"MetadataOfNumbers", file_of(R"({"__metadata__": {"a": 1}})", 0), "expected text"},
    {"EntryIsNoObject", file_of(R"({"a": 1})", 0), "expected an object"},
    {"UnknownField",
     file_of(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4],
                                      "x": 1}})",
             4),
     "'x' is unknown"},
    {"NoDtype", file_of(R"({"a": {"shape": [1], "data_offsets": [0, 4]}})", 4), "is missing"},
    {"UnknownDtype", one("\"F64\"", "[1]", "[0, 8]", 8), "unknown type: expected F32"},
    {"DtypeOfAnotherKind", one("32", "[1]", "[0, 4]", 4), "expected text"},
    {"NegativeSize", one(f32, "[-1]", "[0, 4]", 4), "negative"},
    {"FractionOfASize", one(f32, "[1.0]", "[0, 4]", 4), "expected an integer"},
    {"SizeThatIsNoNumber", one(f32, "[NaN]", "[0, 4]", 4), "expected a value"},
    {"SizeBeyond64Bits", one(f32, "[18446744073709551616]", "[0, 4]", 4), "64 bits"},
    {"GiantShape", one(f32, "[9223372036854775807]", "[0, 4]", 4), "no file holds"},
    {"ShapeThatOverflowsToFit", one(f32, "[4294967296, 4294967296]", "[0, 0]", 0), "no file holds"},
    {"BytesThatOverflowToFit", one(f32, "[4611686018427387904]", "[0, 0]", 0), "no file holds"},
    {"GiantShapeOfNoElements", one(f32, "[0, 4294967296, 4294967296]", "[0, 0]", 0),
     "no file holds"},
    {"ShapeTooLargeForItsBytes", one(f32, "[2]", "[0, 4]", 4), "do not fit the shape"},
    {"ShapeTooSmallForItsBytes", one(f32, "[1]", "[0, 8]", 8), "do not fit the shape"},
    {"OneOffset", one(f32, "[1]", "[4]", 4), "outside of the file"},
    {"ThreeOffsets", one(f32, "[1]", "[0, 4, 4]", 4), "outside of the file"},
    {"OffsetsBackwards", one(f32, "[1]", "[4, 0]", 4), "outside of the file"},
    {"OffsetsBeyondTheFile", one(f32, "[2]", "[0, 8]", 4), "outside of the file"},
    {"NegativeOffset", one(f32, "[1]", "[-4, 0]", 4), "negative"},
    {"GiantOffsets", one(f32, "[1]", "[9223372036854775803, 9223372036854775807]", 4),
     "outside of the file"},
    {"SameBytesTwice", two("[0, 8]", "[0, 8]", 8), "overlaps"},
    {"Overlap", two("[0, 8]", "[4, 12]", 12), "overlaps"},
    {"HoleBetween", two("[0, 8]", "[12, 20]", 20), "a hole"},
    {"HoleBefore", one(f32, "[1]", "[4, 8]", 8), "a hole"},
    {"BytesBehind", one(f32, "[1]", "[0, 4]", 8), "behind the last"},
    {"BytesWithoutTensors", file_of("{}", 8), "behind the last"},
    {"DataNotAligned",
     file_of(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}} )", 4, false),
     "not aligned"},
    {"TensorNotAligned",
     file_of(R"({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
                                     "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}})",
             6),
     "$.b"},
};

INSTANTIATE_TEST_SUITE_P(Files, BadWeightsTest, ::testing::ValuesIn(bad_files),
                         [](const auto& bad) { return bad.param.name; });

TEST(WeightsTest, AHeaderLargerThanTheFormatAllowsIsNotRead) {
  const WeightsFile file(eight_bytes(safetensors_header_limit_bytes + 1) + "{}");
  std::filesystem::resize_file(file.path(), 200'000'000);  // sparse
  const File fd(open(file.path().c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_REFUSED([&] { Weights(fd.fd(), 200'000'000, "w"); }, TIEDEXPORT_CORRUPT,
                 "inside the file");
}

}  // namespace
}  // namespace tiedexport::internal
