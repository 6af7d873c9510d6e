// Files are opened so that a race cannot lead out of the bundle.
#include "file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "bundle_files.hpp"

namespace tiedexport::internal {
namespace {

using testing::Folder;
using testing::write;

ino_t inode_of(int fd) {
  struct stat status {};
  EXPECT_EQ(fstat(fd, &status), 0);
  return status.st_ino;
}

TEST(FileTest, ALinkPutInPlaceBetweenTheLookAndTheOpeningIsNotFollowed) {
  const Folder folder;
  const std::string file = folder.path() / "file", link = folder.path() / "link";
  write(file, "inside");
  write(folder.path() / "outside", "outside");
  std::filesystem::create_symlink("outside", link);
  const File root = open_directory(folder.path());
  const ino_t inside = inode_of(open_regular(root, "file", "root").fd());

  std::atomic<bool> done{false};
  std::thread swapper([&] {
    while (!done) renameat2(AT_FDCWD, file.c_str(), AT_FDCWD, link.c_str(), RENAME_EXCHANGE);
  });
  int opened = 0, refused = 0;
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::steady_clock::now() - begin; };
  const auto both = [&] { return opened > 0 && refused > 0; };
  while (elapsed() < std::chrono::milliseconds(300) ||
         (!both() && elapsed() < std::chrono::seconds(20))) {
    try {
      EXPECT_EQ(inode_of(open_regular(root, "file", "root").fd()), inside);
      ++opened;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), TIEDEXPORT_CORRUPT) << error.what();
      ++refused;
    }
  }
  done = true;
  swapper.join();
  EXPECT_TRUE(both()) << opened << " opened, " << refused << " refused";
}

TEST(FileTest, ReadingBeyondTheEndIsDamage) {
  const Folder folder;
  write(folder.path() / "file", "12345678");
  const File root = open_directory(folder.path());
  const File file = open_regular(root, "file", "root");
  std::string bytes(8, ' ');
  read_at(file.fd(), 2, bytes.data(), 6, "file");
  EXPECT_EQ(bytes.substr(0, 6), "345678");
  EXPECT_REFUSED([&] { read_at(file.fd(), 1, bytes.data(), 8, "file"); }, TIEDEXPORT_CORRUPT,
                 "became shorter");
}

TEST(FileTest, AnotherDescriptorOutlivesTheFirst) {
  const Folder folder;
  write(folder.path() / "file", "12345678");
  const File root = open_directory(folder.path());
  File copy;
  {
    const File file = open_regular(root, "file", "root");
    copy = duplicate(file.fd(), "file");
    EXPECT_NE(fcntl(copy.fd(), F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_EQ(size_of_regular(copy.fd(), "file"), 8u);
  EXPECT_FALSE(open_directory(folder.path() / "absent").is_open());
}

}  // namespace
}  // namespace tiedexport::internal
