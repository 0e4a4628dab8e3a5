// What is parsed of foreign text: URLs, challenges, docker's config.json, error answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"
#include "fusefs/registry/auth_challenge.h"
#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/http_answer.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/url.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::registry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(UrlTest, Parse) {
  Url url = *Url::Parse("HTTPS://Example.COM:443/a/B?x=1#frag");
  EXPECT_EQ(url.scheme, "https");
  EXPECT_EQ(url.host, "example.com");
  EXPECT_EQ(url.target, "/a/B?x=1");
  EXPECT_EQ(Url::Parse("http://h:81?q")->ToString(), "http://h:81/?q");
  EXPECT_EQ(Url::Parse("http://h")->ToString(), "http://h/");
  for (const char* bad : {"", "h/x", "ftp://h/x", "file:///etc/passwd", "http://", "http://:80/", "http://u:p@h/x", "http://h/a b",
                          "http://h/\r\nX: y", "http://h/\x7f", "javascript:x", "http:/h"}) {
    EXPECT_FALSE(Url::Parse(bad).ok()) << bad;
  }
  EXPECT_FALSE(Url::Parse("http://h/" + std::string(kUrlBytesMax, 'a')).ok());
}

// Goal: two texts for one place have one origin, which is what credentials go by. "h:80:80" once lost one port at each reading.
TEST(UrlTest, OnePortAndOneOrigin) {
  for (const char* bad : {"http://h:80:80/", "http://h:x/", "http://h:123456/", "http://[::1/", "http://[::1]x/", "http://[::1]x:80/", "http://:/"}) {
    EXPECT_FALSE(Url::Parse(bad).ok()) << bad;
  }
  EXPECT_EQ(Url::Parse("http://h:/x")->ToString(), "http://h/x");
  EXPECT_EQ(Url::Parse("http://[::1]:80/x")->ToString(), "http://[::1]/x");
  EXPECT_EQ(Url::Parse("https://[::1]:5000")->origin(), "https://[::1]:5000");
}

TEST(UrlTest, Resolve) {
  const Url base = *Url::Parse("https://h:5000/v2/a/blobs/uploads/?x=y");
  EXPECT_EQ(Url::Resolve(base, "/p?q=1")->ToString(), "https://h:5000/p?q=1");
  EXPECT_EQ(Url::Resolve(base, "u-1?s=http://x")->ToString(), "https://h:5000/v2/a/blobs/uploads/u-1?s=http://x");
  EXPECT_EQ(Url::Resolve(base, "../b/./c")->ToString(), "https://h:5000/v2/a/blobs/b/c");
  EXPECT_EQ(Url::Resolve(base, "../../../../../../b")->ToString(), "https://h:5000/b");
  EXPECT_EQ(Url::Resolve(base, "//other/x")->ToString(), "https://other/x");
  EXPECT_EQ(Url::Resolve(base, "?z")->ToString(), "https://h:5000/v2/a/blobs/uploads/?z");
  EXPECT_EQ(Url::Resolve(base, "http://o/x")->ToString(), "http://o/x");
  EXPECT_FALSE(Url::Resolve(base, "").ok());
  EXPECT_FALSE(Url::Resolve(base, "gopher://x/").ok());
}

TEST(UrlTest, Loopback) {
  for (const char* host : {"localhost", "localhost:5000", "a.localhost", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:5000"}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
  for (const char* host : {"127.0.0.1.evil.com", "127.evil.com:80", "localhost.evil.com", "[::1]x", "[::2]", "128.0.0.1", "127.0.0",
                           "127.0.0.999", ""}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

TEST(ChallengeTest, Parse) {
  auto one = ParseChallenges(R"(Bearer realm="https://auth.example/token?x=1",service="reg,\"x\"",scope="repository:a:pull,push")");
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].realm, "https://auth.example/token?x=1");
  EXPECT_EQ(one[0].service, "reg,\"x\"");
  EXPECT_EQ(one[0].scope, "repository:a:pull,push");
  auto many = ParseChallenges("Negotiate abc==, Basic realm=\"x\", bearer REALM=https://r/t , service = s");
  ASSERT_EQ(many.size(), 2u);
  EXPECT_EQ(many[0].scheme, AuthChallenge::Scheme::kBasic);
  EXPECT_EQ(many[1].realm, "https://r/t");
  EXPECT_EQ(many[1].service, "s");
  EXPECT_EQ(ChooseChallenge({"Basic realm=x", "Bearer realm=y"})->scheme, AuthChallenge::Scheme::kBearer);
  EXPECT_EQ(ChooseChallenge({"Bearer service=x", "Basic"})->scheme, AuthChallenge::Scheme::kBasic);
  EXPECT_FALSE(ChooseChallenge({"Digest realm=x", "", ",,,= \"", "\"", "Bearer"}));
}

// Goal: any bytes end in bounded time. Method: random strings of the grammar's own characters; the seed is printed.
TEST(ChallengeTest, AnyBytes) {
  std::mt19937_64 random(test::TestSeed());
  constexpr std::string_view kAlphabet = "bearBasic ,=\"\\realm\t\x01\xff;";
  for (int round = 0; round < 20'000; ++round) {
    std::string text(random() % 60, ' ');
    for (char& c : text) c = kAlphabet[random() % kAlphabet.size()];
    EXPECT_LE(ParseChallenges(text).size(), 60u);
  }
}

std::string Auth(const std::string& user, const std::string& password) { return Base64Encode(user + ":" + password); }

TEST(DockerConfigTest, Forms) {
  const std::string json = R"({"auths":{
      "https://index.docker.io/v1/":{"auth":")" + Auth("hub", "p:w") + R"("},
      "h1:5000":{"username":"u1","password":"p1"},
      "https://h2/v1/":{"auth":")" + Auth("u2", "p2") + R"("},
      "h3":{"auth":")" + Auth("<token>", "") + R"(","identitytoken":"refresh"},
      "https://h4/v2/":{"auth":")" + Auth("long", "form") + R"("}, "h4":{"auth":")" + Auth("short", "form") + R"("},
      "bad":{"auth":"???"}, "odd":7, "empty":{}},
      "credHelpers":{"gcr.io":"gcloud"}, "credsStore":"desktop", "HttpHeaders":{"x":"y"}})";
  Result<DockerConfig> config = DockerConfig::Parse(json);
  ASSERT_OK(config);
  EXPECT_EQ(config->auths.at("docker.io"), (Credentials{"hub", "p:w", ""}));
  EXPECT_EQ(config->auths.at("h1:5000"), (Credentials{"u1", "p1", ""}));
  EXPECT_EQ(config->auths.at("h2"), (Credentials{"u2", "p2", ""}));
  EXPECT_EQ(config->auths.at("h3").identity_token, "refresh");
  EXPECT_EQ(config->auths.at("h4").username, "short");
  EXPECT_EQ(config->broken.count("bad"), 1u);
  EXPECT_EQ(config->broken.count("odd"), 1u);
  EXPECT_EQ(config->auths.count("empty"), 0u);
  EXPECT_EQ(config->helpers.at("gcr.io"), "gcloud");
  EXPECT_EQ(config->default_helper, "desktop");
}

// Goal: hostile files are refused or skipped, in bounded time and memory.
TEST(DockerConfigTest, Hostile) {
  EXPECT_FALSE(DockerConfig::Parse("").ok());
  EXPECT_FALSE(DockerConfig::Parse("[]").ok());
  EXPECT_FALSE(DockerConfig::Parse("{\"auths\":").ok());
  EXPECT_FALSE(DockerConfig::Parse(std::string(500'000, '[')).ok());
  EXPECT_FALSE(DockerConfig::Parse(std::string(kDockerConfigBytesMax + 1, ' ')).ok());
  for (const char* bad : {R"({"auths":[1,2]})", R"({"auths":{},"credHelpers":3})", R"({"credsStore":[]})"}) EXPECT_CODE(DockerConfig::Parse(bad), StatusCode::kInvalidArgument);
  EXPECT_OK(DockerConfig::Parse(R"({"auths":{"":{"auth":""}},"credHelpers":null,"credsStore":null})"));
  EXPECT_OK(DockerConfig::Parse(R"({"auths":{"h":{"auth":7,"username":{},"password":null}}})"));
}

TEST(ErrorAnswerTest, DetailIsCleaned) {
  EXPECT_EQ(ErrorDetail(R"({"errors":[{"code":"DENIED","message":"no\r\nway\u0007"}]})"), "DENIED: no way?");
  EXPECT_EQ(ErrorDetail("<html>"), "");
  EXPECT_EQ(ErrorDetail(R"({"errors":{}})"), "");
  EXPECT_EQ(ErrorDetail(R"({"errors":[1]})"), "");
  EXPECT_LE(ErrorDetail(R"({"errors":[{"message":")" + std::string(10'000, 'x') + R"("}]})").size(), kErrorDetailBytesMax + 3);
}

HttpHead Head(int status, std::vector<std::pair<std::string, std::string>> headers, std::optional<uint64_t> length = {}) {
  return {status, std::move(headers), length};
}

TEST(RangeAnswerTest, OnlyExactlyWhatWasAsked) {
  auto check = [](std::string range, std::optional<uint64_t> length = {}) {
    return CheckRangeAnswer(Head(206, {{"content-range", std::move(range)}}, length), 10, 5);
  };
  EXPECT_OK(check("bytes 10-14/100", 5));
  EXPECT_OK(check("bytes 10-14/*"));
  for (const char* bad : {"bytes 10-13/100", "bytes 9-14/100", "bytes 10-15/100", "bytes 10-14/12", "bytes 10-14", "bytes */100",
                          "10-14/100", "bytes -14/100", "bytes 14-10/100", "bytes 10-99999999999999999999/*", ""}) {
    EXPECT_CODE(check(bad), StatusCode::kUnavailable);
  }
  EXPECT_CODE(check("bytes 10-14/100", 6), StatusCode::kUnavailable);
  EXPECT_CODE(CheckRangeAnswer(Head(206, {}), 10, 5), StatusCode::kUnavailable);
  EXPECT_CODE(CheckRangeAnswer(Head(204, {}), 10, 5), StatusCode::kInvalidArgument);
  EXPECT_CODE(CheckRangeAnswer(Head(200, {}, 15), 10, 5), StatusCode::kInvalidArgument);
  EXPECT_CODE(CheckRangeAnswer(Head(200, {}, 6), 0, 5), StatusCode::kInvalidArgument);
  EXPECT_CODE(CheckRangeAnswer(Head(200, {}), 0, 5), StatusCode::kInvalidArgument);
  EXPECT_OK(CheckRangeAnswer(Head(200, {}, 5), 0, 5));
  EXPECT_CODE(CheckRangeAnswer(Head(200, {{"content-encoding", "gzip"}}, 5), 0, 5), StatusCode::kInvalidArgument);
}

TEST(RetryAfterTest, Bounded) {
  auto parse = [](const char* value) { return ParseRetryAfter(Head(429, {{"retry-after", value}})); };
  EXPECT_EQ(parse("3"), std::chrono::seconds(3));
  EXPECT_EQ(parse("999999999999"), kRetryAfterMax);
  EXPECT_FALSE(parse("Wed, 21 Oct 2015 07:28:00 GMT"));
  EXPECT_FALSE(parse("-1"));
}

TEST(HttpStatusTest, Codes) {
  for (int status = 300; status < 1000; ++status) EXPECT_NE(CodeOfHttpStatus(status), StatusCode::kOk) << status;
  EXPECT_EQ(CodeOfHttpStatus(429), StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeOfHttpStatus(503), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace headrace::registry
