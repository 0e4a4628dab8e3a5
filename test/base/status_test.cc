// Goal: the code table is total, errno mapping never yields 0 or ENOSYS for an error, context is added in front.
#include "fusefs/base/status.h"

#include <cerrno>

#include "test/support/matchers.h"

namespace headrace {
namespace {

TEST(StatusTest, EveryCodeHasANameAndAnErrno) {
  for (int c = 1; c <= 16; ++c) {
    Status status(static_cast<StatusCode>(c), "x");
    EXPECT_FALSE(StatusCodeName(status.code()).empty());
    EXPECT_NE(StatusToErrno(status), 0) << c;
    EXPECT_NE(StatusToErrno(status), ENOSYS) << c;
    if (c != 2) {
      EXPECT_NE(StatusCodeName(status.code()), "UNKNOWN") << c;
    }
  }
  EXPECT_EQ(StatusToErrno(OkStatus()), 0);
}

TEST(StatusTest, DataLossIsEioAndErrnoIsKept) {
  EXPECT_EQ(StatusToErrno(DataLossError("wrong byte")), EIO);
  EXPECT_EQ(StatusToErrno(Status::FromErrno(ENOSPC, "write")), ENOSPC);
  EXPECT_EQ(Status::FromErrno(ENOSPC, "write").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusToErrno(Status::FromErrno(ENOSYS, "ioctl")), EOPNOTSUPP);
}

TEST(StatusTest, AnnotateAddsContextInFront) {
  Status status = NotFoundError("blob").Annotate("layer sha256:ab");
  EXPECT_EQ(status.ToString(), "NOT_FOUND: layer sha256:ab: blob");
  EXPECT_TRUE(OkStatus().Annotate("x").ok());
}

TEST(StatusTest, TheWishForAPauseGoesUpWithTheError) {
  Status status = UnavailableError("HTTP 503").WithRetryAfter(std::chrono::seconds(7));
  status = status.Annotate("registry r").Annotate("layer l");
  status = std::move(status).WithMessage(status.message() + " (gave up)");
  EXPECT_EQ(status.ToString(), "UNAVAILABLE: layer l: registry r: HTTP 503 (gave up)");
  EXPECT_EQ(status.retry_after(), std::chrono::seconds(7));
  EXPECT_EQ(UnavailableError("").retry_after().count(), 0);
}

Result<int> Half(int n) {
  if (n % 2 != 0) return InvalidArgumentError("odd");
  return n / 2;
}

Result<int> Quarter(int n) {
  HR_ASSIGN_OR_RETURN(int half, Half(n));
  HR_ASSIGN_OR_RETURN(int quarter, Half(half));
  return quarter;
}

TEST(StatusTest, AssignOrReturnPassesErrorsOn) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_CODE(Quarter(6), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace headrace
