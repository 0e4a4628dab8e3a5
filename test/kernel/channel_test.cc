#include "fusefs/kernel/channel.h"

#include <gtest/gtest.h>

#include <cstring>

#include "test/support/matchers.h"

namespace headrace::kernel {
namespace {

std::string Init(uint32_t major, uint32_t minor, uint64_t flags, uint32_t opcode = wire::kOpInit) {
  wire::InHeader header{};
  wire::InitIn in{};
  header.len = sizeof header + sizeof in;
  header.opcode = opcode;
  header.unique = 2;
  in.major = major;
  in.minor = minor;
  in.max_readahead = 131072;
  in.flags = static_cast<uint32_t>(flags);
  in.flags2 = static_cast<uint32_t>(flags >> 32);
  std::string bytes(header.len, '\0');
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + sizeof header, &in, sizeof in);
  return bytes;
}

uint64_t Flags(const wire::InitOut& out) { return out.flags | static_cast<uint64_t>(out.flags2) << 32; }

// Goal: a kernel that offers everything is asked for what the design needs, and for nothing that changes caching behind our back.
TEST(AnswerInitTest, AsksForWhatWeNeed) {
  auto out = AnswerInit(Init(7, 45, ~0ull));
  ASSERT_OK(out);
  EXPECT_EQ(out->major, 7u);
  EXPECT_EQ(out->minor, 45u);
  const uint64_t needed = wire::kPassthrough | wire::kDirectIoAllowMmap | wire::kAllowIdmap | wire::kReaddirplus |
                          wire::kReaddirplusAuto | wire::kParallelDirops | wire::kAsyncRead | wire::kCacheSymlinks |
                          wire::kMaxPages | wire::kHasResend | wire::kInitExt | wire::kExportSupport;
  EXPECT_EQ(Flags(*out) & needed, needed);
  EXPECT_EQ(out->max_stack_depth, 1u);
  EXPECT_EQ(out->max_pages, 256u);
  EXPECT_EQ(Flags(*out) & (1ull << 12), 0u) << "AUTO_INVAL_DATA would drop the page cache";
  EXPECT_EQ(Flags(*out) & (1ull << 16), 0u) << "WRITEBACK_CACHE excludes passthrough";
  EXPECT_EQ(Flags(*out) & (1ull << 41), 0u) << "libfuse is not told of io_uring";
}

// Goal: an older kernel gets only what it offered, in its own version.
TEST(AnswerInitTest, TakesOnlyWhatIsOffered) {
  auto out = AnswerInit(Init(7, 38, wire::kAsyncRead | wire::kMaxPages));
  ASSERT_OK(out);
  EXPECT_EQ(out->minor, 38u);
  EXPECT_EQ(Flags(*out), wire::kAsyncRead | wire::kMaxPages);
  EXPECT_EQ(out->max_stack_depth, 0u);
}

// Goal: the upper word is not believed without the flag that says that it is there.
TEST(AnswerInitTest, IgnoresUpperFlagsWithoutInitExt) {
  auto out = AnswerInit(Init(7, 45, wire::kPassthrough | wire::kAllowIdmap));
  ASSERT_OK(out);
  EXPECT_EQ(Flags(*out), 0u);
}

// Goal: what is not an INIT of a protocol that we speak is refused with a reason.
TEST(AnswerInitTest, RefusesTheRest) {
  EXPECT_CODE(AnswerInit(""), StatusCode::kInvalidArgument);
  EXPECT_CODE(AnswerInit(std::string(50, '\0')), StatusCode::kInvalidArgument);
  EXPECT_CODE(AnswerInit(Init(7, 45, 0, 3)), StatusCode::kInvalidArgument);
  EXPECT_CODE(AnswerInit(Init(8, 0, 0)), StatusCode::kFailedPrecondition);
  EXPECT_CODE(AnswerInit(Init(7, 23, 0)), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace headrace::kernel
