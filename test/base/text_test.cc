// Goal: sizes, durations and base64 accept what people write, and refuse what cannot be meant.
#include "fusefs/base/text.h"

#include "test/support/matchers.h"

namespace headrace {
namespace {

TEST(TextTest, ParsesSizes) {
  EXPECT_EQ(*ParseSize("4MiB"), 4u << 20);
  EXPECT_EQ(*ParseSize("4 MB"), 4000000u);
  EXPECT_EQ(*ParseSize("17"), 17u);
  for (const char* bad : {"", "MiB", "-1", "4XB", "99999999999TiB", "1.5GiB", "18446744073709551616"}) {
    EXPECT_CODE(ParseSize(bad), StatusCode::kInvalidArgument);
  }
}

TEST(TextTest, ParsesDurations) {
  EXPECT_EQ(*ParseDuration("5m"), std::chrono::minutes(5));
  EXPECT_EQ(*ParseDuration("250ms"), std::chrono::milliseconds(250));
  for (const char* bad : {"", "5", "m", "5 weeks", "9999999999h"}) {
    EXPECT_CODE(ParseDuration(bad), StatusCode::kInvalidArgument);
  }
}

TEST(TextTest, Base64RoundTripsEveryLength) {
  std::string data;
  for (int i = 0; i < 70; ++i) {
    EXPECT_EQ(*Base64Decode(Base64Encode(data)), data);
    data += static_cast<char>(i * 37);
  }
  EXPECT_EQ(Base64Encode("user:pass"), "dXNlcjpwYXNz");
  for (const char* bad : {"a", "====", "ab=c", "a b=", "dXNl=XNl"}) {
    EXPECT_CODE(Base64Decode(bad), StatusCode::kInvalidArgument);
  }
}

TEST(TextTest, HumanBytes) {
  EXPECT_EQ(HumanBytes(312), "312 B");
  EXPECT_EQ(HumanBytes(3ull << 29), "1.5 GiB");
}

}  // namespace
}  // namespace headrace
