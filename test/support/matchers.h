// EXPECT_OK(status or result), ASSERT_OK, and EXPECT_CODE(status or result, StatusCode::kX).
#ifndef HEADRACE_TEST_SUPPORT_MATCHERS_H_
#define HEADRACE_TEST_SUPPORT_MATCHERS_H_

#include <gtest/gtest.h>

#include "fusefs/base/status.h"

namespace headrace::test {
inline Status AsStatus(const Status& s) { return s; }
template <typename T>
Status AsStatus(const Result<T>& r) { return r.status(); }
}  // namespace headrace::test

#define EXPECT_OK(expr)                                                        \
  do {                                                                         \
    const ::headrace::Status hr_s_ = ::headrace::test::AsStatus(expr);         \
    EXPECT_TRUE(hr_s_.ok()) << hr_s_.ToString();                               \
  } while (false)
#define ASSERT_OK(expr)                                                        \
  do {                                                                         \
    const ::headrace::Status hr_s_ = ::headrace::test::AsStatus(expr);         \
    ASSERT_TRUE(hr_s_.ok()) << hr_s_.ToString();                               \
  } while (false)
#define EXPECT_CODE(expr, expected)                                            \
  do {                                                                         \
    const ::headrace::Status hr_s_ = ::headrace::test::AsStatus(expr);         \
    EXPECT_EQ(hr_s_.code(), expected) << hr_s_.ToString();                     \
  } while (false)

#endif  // HEADRACE_TEST_SUPPORT_MATCHERS_H_
