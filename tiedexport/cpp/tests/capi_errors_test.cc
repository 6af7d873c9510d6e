// What crosses the C boundary: a status, and words that are this thread's own.
#include "capi_errors.hpp"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>
#include <thread>

namespace tiedexport::internal {
namespace {

tiedexport_status thrown(const std::string& message) {
  return guarded([&] { throw Error(TIEDEXPORT_CORRUPT, {message, "", "", "", ""}); });
}

TEST(CapiErrors, NothingThrownIsSuccess) {
  EXPECT_EQ(guarded([] {}), TIEDEXPORT_OK);
}

TEST(CapiErrors, OursKeepStatusAndWords) {
  const auto status = guarded(
      [] { throw Error(TIEDEXPORT_IO, {"cannot read", "file", "nothing", "bytes", "again"}); });
  EXPECT_EQ(status, TIEDEXPORT_IO);
  EXPECT_STREQ(last_error(), "cannot read: file\n  got: nothing\n  expected: bytes\n  try: again");
}

TEST(CapiErrors, ForeignExceptionsHaveAStatus) {
  EXPECT_EQ(guarded([] { throw std::bad_alloc(); }), TIEDEXPORT_OUT_OF_MEMORY);
  EXPECT_STREQ(last_error(), "out of memory");
  EXPECT_EQ(guarded([] { throw std::logic_error("a defect"); }), TIEDEXPORT_INTERNAL);
  EXPECT_STREQ(last_error(), "a defect");
  EXPECT_EQ(guarded([] { throw 7; }), TIEDEXPORT_INTERNAL);
  EXPECT_STREQ(last_error(), "an exception of unknown type");
}

TEST(CapiErrors, SuccessLeavesTheLastErrorAlone) {
  thrown("kept");
  EXPECT_EQ(guarded([] {}), TIEDEXPORT_OK);
  EXPECT_STREQ(last_error(), "kept");
}

TEST(CapiErrors, LongWordsAreCutBetweenCharacters) {
  // One, two or three bytes before a run of three-byte characters: the cut falls differently.
  for (const std::string begin : {"", "a", "ab"}) {
    std::string message = begin;
    for (int i = 0; i < 3000; ++i) message += "\xe2\x82\xac";
    thrown(message);
    const std::string kept = last_error();
    EXPECT_GT(kept.size(), 4090U);
    EXPECT_LT(kept.size(), 4096U);
    EXPECT_EQ((kept.size() - begin.size()) % 3, 0U);
    EXPECT_EQ(message.compare(0, kept.size(), kept), 0);
  }
  // The longest that fits is not cut.
  thrown(std::string(4095, 'x'));
  EXPECT_EQ(std::string(last_error()).size(), 4095U);
}

TEST(CapiErrors, EachThreadHasItsOwn) {
  thrown("of the first thread");
  std::string before, after;
  std::thread([&] {
    before = last_error();
    thrown("of the second");
    after = last_error();
  }).join();
  EXPECT_EQ(before, "");
  EXPECT_EQ(after, "of the second");
  EXPECT_STREQ(last_error(), "of the first thread");
}

}  // namespace
}  // namespace tiedexport::internal
