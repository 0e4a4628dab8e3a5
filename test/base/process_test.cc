// Goal: one process at a time has a root; the next one is told who and where, and a root that cannot be locked is another error.
#include "fusefs/base/process.h"

#include <gtest/gtest.h>

#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace {
namespace {

TEST(LockRootTest, OneAtATime) {
  test::TempDir dir;
  const std::string root = dir / "state/root";
  {
    Result<UniqueFd> first = LockRoot(root, "headrace-test");
    ASSERT_OK(first);
    const Status second = LockRoot(root, "headrace-test").status();
    EXPECT_CODE(second, StatusCode::kFailedPrecondition);
    EXPECT_NE(second.message().find("another headrace-test"), std::string::npos) << second.message();
    EXPECT_NE(second.message().find(root), std::string::npos) << second.message();
  }
  EXPECT_OK(LockRoot(root, "headrace-test"));
}

TEST(LockRootTest, OtherFailuresAreNotAnotherProcess) {
  test::TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir / "file", "x"));
  const Status status = LockRoot(dir / "file", "headrace-test").status();
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.message().find("another"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace headrace
