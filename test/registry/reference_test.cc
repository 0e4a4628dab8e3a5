#include "fusefs/registry/reference.h"

#include <gtest/gtest.h>

#include "fusefs/base/text.h"
#include "test/support/matchers.h"

namespace headrace::registry {
namespace {

constexpr char kDigest[] = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Valid {
  const char* text;
  const char* host;
  const char* repository;
  const char* tag;
  bool digest;
};

// Goal: the forms that docker and containerd take mean here what they mean there.
TEST(ReferenceTest, Valid) {
  const std::string digested = std::string("busybox@") + kDigest;
  const std::string both = std::string("127.0.0.1:5000/a/b:v1@") + kDigest;
  const Valid table[] = {
      {"busybox", "docker.io", "library/busybox", "latest", false},
      {"busybox:1.36", "docker.io", "library/busybox", "1.36", false},
      {"library/busybox", "docker.io", "library/busybox", "latest", false},
      {"docker.io/busybox", "docker.io", "library/busybox", "latest", false},
      {"index.docker.io/busybox", "docker.io", "library/busybox", "latest", false},
      {"team/model", "docker.io", "team/model", "latest", false},
      {"localhost/model", "localhost", "model", "latest", false},
      {"localhost:5000/model:a", "localhost:5000", "model", "a", false},
      {"127.0.0.1:5000/a/b/c:v1.2-3_x", "127.0.0.1:5000", "a/b/c", "v1.2-3_x", false},
      {"[::1]:5000/m", "[::1]:5000", "m", "latest", false},
      {"registry.example.com/m", "registry.example.com", "m", "latest", false},
      {"Registry/m", "Registry", "m", "latest", false},
      {"host.io/a.b_c__d-e--f/g0", "host.io", "a.b_c__d-e--f/g0", "latest", false},
      {digested.c_str(), "docker.io", "library/busybox", "", true},
      {both.c_str(), "127.0.0.1:5000", "a/b", "v1", true},
  };
  for (const Valid& want : table) {
    Result<Reference> ref = Reference::Parse(want.text);
    ASSERT_TRUE(ref.ok()) << want.text << ": " << ref.status().ToString();
    EXPECT_EQ(ref->host, want.host) << want.text;
    EXPECT_EQ(ref->repository, want.repository) << want.text;
    EXPECT_EQ(ref->tag, want.tag) << want.text;
    EXPECT_EQ(ref->digest.has_value(), want.digest) << want.text;
    Result<Reference> again = Reference::Parse(ref->ToString());
    ASSERT_OK(again);
    EXPECT_EQ(again->ToString(), ref->ToString());
  }
}

TEST(ReferenceTest, KeysAndHosts) {
  Reference ref = *Reference::Parse("busybox");
  EXPECT_EQ(ref.api_host(), "registry-1.docker.io");
  EXPECT_EQ(ref.manifest_key(), "latest");
  ref = *Reference::Parse(std::string("h.io/x:t@") + kDigest);
  EXPECT_EQ(ref.api_host(), "h.io");
  EXPECT_EQ(ref.manifest_key(), kDigest);
  EXPECT_EQ(ref.ToString(), std::string("h.io/x:t@") + kDigest);
}

// Goal: everything that could become another request than it seems is refused, in bounded words.
TEST(ReferenceTest, Invalid) {
  const std::string long_tag = "a:" + std::string(129, 'x');
  const std::string long_name = "h.io/" + std::string(255, 'x');
  const std::string huge(1 << 20, 'a');
  const std::string hex(64, 'a');
  const std::string nul("a\0b", 3);
  const std::string table[] = {"", "/", "a/", "/a", "a//b", "A", "h.io/A", "a:", "a:.x", "a:-x", "a: b", "a b", "a\nb", nul,
                               "a@", "a@sha256:12", "a@sha512:" + std::string(128, 'a'), "h.io:/a", "h.io:x/a", "h.io:99999/a",
                               "h.io:123456/a", "-h.io/a", "h..io/a", "h.io/../a", "h.io/a..b", "h.io/a___b", "h.io/a_-b",
                               "h.io/a?b", "h.io/a%2fb", "h.io/a#b", "http://h.io/a", "user@h.io/a", "[::1/a", "[x]/a", "a_",
                               ".a", "h.io/", long_tag, long_name, huge, hex, "h.io/-a", "\xc3\xa4"};
  for (const std::string& text : table) {
    Result<Reference> ref = Reference::Parse(text);
    EXPECT_FALSE(ref.ok()) << text.substr(0, 80) << " was taken as " << (ref.ok() ? ref->ToString() : "");
    if (ref.ok()) continue;
    EXPECT_EQ(ref.status().code(), StatusCode::kInvalidArgument);
    EXPECT_LT(ref.status().message().size(), 400u);
    EXPECT_EQ(ref.status().message().find('\n'), std::string::npos);
  }
  EXPECT_OK(Reference::Parse("h.io/" + hex));  // with a host it is a name
}

}  // namespace
}  // namespace headrace::registry
