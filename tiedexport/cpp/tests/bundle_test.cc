// A bundle is opened only if every file is there, as it was written, and inside.
#include "bundle.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bundle_files.hpp"

namespace tiedexport::internal {
namespace {

using testing::BundleCopy;
using testing::contents;
using testing::data_bundle;
using testing::Folder;
using testing::write;

constexpr const char* golden = "golden.npz";
constexpr const char* weights_fp32 = "weights.fp32.safetensors";

std::unique_ptr<Bundle> opened(const std::filesystem::path& path,
                               tiedexport_check check = TIEDEXPORT_CHECK_HASH) {
  return std::make_unique<Bundle>(path.string(), check);
}

TEST(BundleTest, OpensEverySchemaWithItsWeights) {
  for (const int schema : {1, 2})
    for (const tiedexport_check check : {TIEDEXPORT_CHECK_HASH, TIEDEXPORT_CHECK_SIZE}) {
      const auto bundle = opened(data_bundle(schema), check);
      EXPECT_EQ(bundle->path(), data_bundle(schema));
      for (const Type type : bundle->manifest().precisions)
        EXPECT_EQ(bundle->weights(type)->tensor("layers.0.weight").type, type);
    }
}

TEST(BundleTest, WeightsAreMappedOnceForAllWhoAskWhileSomebodyHoldsThem) {
  const auto bundle = opened(data_bundle(2));
  std::vector<std::shared_ptr<const Weights>> seen(8);
  std::vector<std::thread> threads;
  for (auto& weights : seen)
    threads.emplace_back([&weights, &bundle] { weights = bundle->weights(Type::fp16); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& weights : seen) EXPECT_EQ(weights, seen[0]);
  EXPECT_EQ(seen[0].use_count(), 8);
}

TEST(BundleTest, WeightsOutliveTheBundleAndItsFiles) {
  std::shared_ptr<const Weights> weights;
  {
    const BundleCopy copy;
    weights = opened(copy.path())->weights(Type::fp32);
  }
  EXPECT_NO_THROW(weights->refuse_if_truncated());
  EXPECT_EQ(weights->tensor("layers.1.weight").count, 8u);
}

TEST(BundleTest, APrecisionThatIsNotThereIsNamed) {
  const BundleCopy copy;
  copy.alter_manifest(",\n    \"bf16\": \"weights.bf16.safetensors\"", "");
  copy.alter_manifest(
      ",\n    \"bf16\": {\n      \"encoder\": \"encoder.bf16.onnx\",\n      "
      "\"decoder\": \"decoder.bf16.onnx\",\n      \"autoencoder\": "
      "\"autoencoder.bf16.onnx\"\n    }",
      "");
  const auto bundle = opened(copy.path());
  EXPECT_REFUSED([&] { bundle->weights(Type::bf16); }, TIEDEXPORT_INVALID_ARGUMENT,
                 "--precision fp32,fp16,bf16");
}

TEST(BundleTest, AWeightThatALayerNamesMustBeStored) {
  const BundleCopy copy;
  copy.alter_manifest("\"weight\": \"layers.0.weight\"", "\"weight\": \"layers.9.weight\"");
  const auto bundle = opened(copy.path());
  EXPECT_REFUSED([&] { bundle->weights(Type::fp32); }, TIEDEXPORT_CORRUPT, "layers.9.weight");
}

TEST(BundleTest, TheWeightsMappedAreThoseThatWereChecked) {
  const BundleCopy copy;
  const auto bundle = opened(copy.path());
  const std::string original = contents(copy.path() / weights_fp32);
  std::filesystem::remove(copy.path() / weights_fp32);
  write(copy.path() / weights_fp32, std::string(original.size(), 'x'));
  const auto weights = bundle->weights(Type::fp32);
  ASSERT_EQ(weights->size_bytes(), original.size());
  EXPECT_EQ(std::memcmp(weights->data(), original.data(), original.size()), 0);
}

TEST(BundleTest, ReadsAListedFileAndChecksItOnceMore) {
  const BundleCopy copy;
  const auto hashed = opened(copy.path());
  const auto sized = opened(copy.path(), TIEDEXPORT_CHECK_SIZE);
  std::string bytes = contents(copy.path() / golden);
  const std::vector<std::byte> read = hashed->read(golden);
  ASSERT_EQ(read.size(), bytes.size());
  EXPECT_EQ(std::memcmp(read.data(), bytes.data(), bytes.size()), 0);

  bytes[100] = static_cast<char>(bytes[100] ^ 1);
  write(copy.path() / golden, bytes);
  EXPECT_REFUSED([&] { hashed->read(golden); }, TIEDEXPORT_CORRUPT, "was altered");
  EXPECT_EQ(sized->read(golden).size(), bytes.size());
  write(copy.path() / golden, bytes + "x");
  EXPECT_REFUSED([&] { sized->read(golden); }, TIEDEXPORT_CORRUPT, "wrong size");
  EXPECT_REFUSED([&] { sized->read("manifest.json"); }, TIEDEXPORT_CORRUPT, "does not list");
}

TEST(BundleTest, WhatIsNoBundleIsRefusedWithTheCommandThatMakesOne) {
  const Folder folder;
  write(folder.path() / "file", "");
  std::filesystem::create_directory(folder.path() / "empty");
  for (const char* name : {"absent", "file", "empty"})
    EXPECT_REFUSED([&] { opened(folder.path() / name); }, TIEDEXPORT_NOT_FOUND,
                   "tiedexport build model.pt -o");
}

TEST(BundleTest, AManifestTooLargeToBeOneIsNotRead) {
  const BundleCopy copy;
  std::filesystem::resize_file(copy.path() / "manifest.json", (64 << 20) + 1);
  EXPECT_REFUSED([&] { opened(copy.path()); }, TIEDEXPORT_CORRUPT, "too large");
}

TEST(BundleTest, ALinkToTheBundleItselfIsFollowed) {
  const BundleCopy copy;
  std::filesystem::create_directory_symlink(copy.path(), copy.outside());
  EXPECT_EQ(opened(copy.outside())->manifest().name, "schema-2");
}

TEST(BundleTest, UnlistedFilesDoNotMatter) {
  const BundleCopy copy;
  write(copy.path() / "NOTES.txt", "mine");
  EXPECT_EQ(opened(copy.path())->manifest().name, "schema-2");
}

TEST(BundleTest, FilesInDirectoriesAreFoundAndLinksToDirectoriesAreNot) {
  const BundleCopy copy;
  std::filesystem::create_directories(copy.path() / "plans/rtx");
  write(copy.path() / "plans/rtx/e.plan", "engine");
  const std::string record = R"("files": {"plans/rtx/e.plan": {"size_bytes": 6, "sha256": ")";
  copy.alter_manifest("\"files\": {", record + sha256_hex("engine") + "\"},");
  EXPECT_EQ(opened(copy.path())->read("plans/rtx/e.plan").size(), 6u);

  std::filesystem::rename(copy.path() / "plans", copy.outside());
  EXPECT_REFUSED([&] { opened(copy.path()); }, TIEDEXPORT_CORRUPT, "missing");
  std::filesystem::create_directory_symlink(copy.outside(), copy.path() / "plans");
  EXPECT_REFUSED([&] { opened(copy.path()); }, TIEDEXPORT_CORRUPT, "a link or special file");
  std::filesystem::remove(copy.path() / "plans");
  write(copy.path() / "plans", "a file where a directory should be");
  EXPECT_REFUSED([&] { opened(copy.path()); }, TIEDEXPORT_CORRUPT, "missing");
}

TEST(BundleTest, OpeningManyTimesLeavesNoDescriptorOpen) {
  const auto descriptors = [] {
    const std::filesystem::directory_iterator files("/proc/self/fd");
    return std::distance(begin(files), end(files));
  };
  const auto before = descriptors();
  for (int i = 0; i < 10; ++i) opened(data_bundle(2))->weights(Type::fp32);
  const BundleCopy copy;
  std::filesystem::remove(copy.path() / weights_fp32);
  for (int i = 0; i < 10; ++i)
    EXPECT_REFUSED([&] { opened(copy.path()); }, TIEDEXPORT_CORRUPT, "missing");
  EXPECT_EQ(descriptors(), before);
}

TEST(BundleTest, WhatTheSystemRefusesIsNotCalledDamage) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  for (const rlim_t more : {0u, 1u, 2u, 3u}) {  // the directory, the manifest, a file, its copy
    const File next(dup(0));
    const rlimit few{static_cast<rlim_t>(next.fd()) + more, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    const File taken(dup(0));
    EXPECT_REFUSED([&] { opened(data_bundle(2)); }, TIEDEXPORT_IO, "refuses to read");
    setrlimit(RLIMIT_NOFILE, &before);
  }
}

// Damage to each file.

class DamagedFileTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path file() const { return copy_.path() / GetParam(); }
  void expect_refused(const char* words, tiedexport_check check = TIEDEXPORT_CHECK_HASH) const {
    EXPECT_REFUSED([&] { opened(copy_.path(), check); }, TIEDEXPORT_CORRUPT, words);
    EXPECT_REFUSED([&] { opened(copy_.path(), check); }, TIEDEXPORT_CORRUPT, GetParam());
  }
  BundleCopy copy_;
};

TEST_P(DamagedFileTest, AFlippedBitIsSeenByTheHash) {
  std::string bytes = contents(file());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write(file(), bytes);
  expect_refused("was altered");
  EXPECT_NO_THROW(opened(copy_.path(), TIEDEXPORT_CHECK_SIZE));
}

TEST_P(DamagedFileTest, ACutOrLongerFileIsSeenByItsSize) {
  const std::string bytes = contents(file());
  for (const std::string& altered : {bytes.substr(0, bytes.size() - 1), bytes + "x", std::string()})
    for (const tiedexport_check check : {TIEDEXPORT_CHECK_HASH, TIEDEXPORT_CHECK_SIZE}) {
      write(file(), altered);
      expect_refused("wrong size", check);
    }
}

TEST_P(DamagedFileTest, AMissingFileIsNamed) {
  std::filesystem::remove(file());
  expect_refused("missing", TIEDEXPORT_CHECK_SIZE);
}

TEST_P(DamagedFileTest, ALinkIsRefusedEvenToAFileWithTheRightBytes) {
  std::filesystem::rename(file(), copy_.outside());
  std::filesystem::create_symlink(copy_.outside(), file());
  expect_refused("a link or special file");
}

TEST_P(DamagedFileTest, ADirectoryAPipeOrASocketIsRefusedWithoutWaiting) {
  std::filesystem::remove(file());
  std::filesystem::create_directory(file());
  expect_refused("a directory where a file should be");
  std::filesystem::remove(file());
  ASSERT_EQ(mkfifo(file().c_str(), 0600), 0);
  expect_refused("a link or special file");
  std::filesystem::remove(file());
  const File made(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(file().string().size(), sizeof(address.sun_path));
  std::strcpy(address.sun_path, file().c_str());
  ASSERT_EQ(bind(made.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  expect_refused("a link or special file");
}

INSTANTIATE_TEST_SUITE_P(Files, DamagedFileTest,
                         ::testing::Values(golden, weights_fp32, "weights.bf16.safetensors",
                                           "encoder.fp16.onnx"));

TEST(BundleTest, TheManifestItselfMayBeNeitherLinkNorPipe) {
  const BundleCopy copy;
  const auto manifest = copy.path() / "manifest.json";
  std::filesystem::rename(manifest, copy.outside());
  std::filesystem::create_symlink(copy.outside(), manifest);
  EXPECT_REFUSED([&] { opened(copy.path()); }, TIEDEXPORT_CORRUPT, "a link or special file");
  std::filesystem::remove(manifest);
  ASSERT_EQ(mkfifo(manifest.c_str(), 0600), 0);
  EXPECT_REFUSED([&] { opened(copy.path()); }, TIEDEXPORT_CORRUPT, "a link or special file");
}

TEST(BundleTest, SignedWeightsThatAreNoneAreRefusedWhereTheyAreMapped) {
  const BundleCopy copy;
  copy.write_listed(weights_fp32, std::string(64, '\xff'));
  const auto bundle = opened(copy.path());
  EXPECT_REFUSED([&] { bundle->weights(Type::fp32); }, TIEDEXPORT_CORRUPT, "unreadable weights");
  EXPECT_NO_THROW(bundle->weights(Type::fp16));
}

}  // namespace
}  // namespace tiedexport::internal
