// Authentication: tokens, basic, refresh tokens, and that secrets go nowhere else.
#include <future>

#include "fusefs/base/text.h"
#include "fusefs/registry/authenticator.h"
#include "fusefs/registry/docker_config.h"
#include "test/registry/client_fixture.h"

namespace headrace::registry {
namespace {

class ClientAuthTest : public ClientTest {};

// Goal: a hundred requests refused at once cause one token request.
TEST_F(ClientAuthTest, SingleFlight) {
  options_.max_connections_per_host = 100;
  NewClient();
  registry_.RequireToken("user", "hunter2");
  LogIn();
  registry_.AddFault({.kind = Kind::kHold, .path_contains = "/blobs/", .times = 100});
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (uint64_t i = 0; i < 100; ++i) sinks.push_back(StartFetch(i * 100, 100));
  ASSERT_TRUE(registry_.WaitForHeld(100));
  registry_.Release();
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_OK(sinks[i]->Wait());
    EXPECT_TRUE(sinks[i]->data() == content_.substr(i * 100, 100));
  }
  EXPECT_EQ(registry_.counts().unauthorized, 100u);
  EXPECT_EQ(registry_.counts().token_requests, 1u);
  EXPECT_OK(FetchStatus(0, 10));  // with the cached token
  EXPECT_EQ(registry_.counts().unauthorized, 100u);
}

TEST_F(ClientAuthTest, ExpiredTokenIsRenewedOnce) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  EXPECT_OK(FetchStatus(0, 10));
  registry_.ExpireTokens();
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(registry_.counts().token_requests, 2u);
  registry_.SetTokenLifetime(0);  // then 60 s are assumed
  registry_.ExpireTokens();
  EXPECT_OK(Blob());
  EXPECT_EQ(registry_.counts().token_requests, 3u);
}

TEST_F(ClientAuthTest, AnonymousToken) {
  registry_.RequireToken("", "");
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_OK(client_->GetBlobRange(Ref(), digest_, 0, 10));
  EXPECT_EQ(registry_.counts().token_requests, 1u);
  for (const auto& request : registry_.requests()) {
    if (!request.target.starts_with("/token")) continue;
    EXPECT_THAT(request.target, HasSubstr("scope=repository%3Ateam%2Fmodel%3Apull"));
  }
}

TEST_F(ClientAuthTest, NoCredentials) {
  registry_.RequireToken("user", "hunter2");
  Status status = FetchStatus(0, 10);
  EXPECT_CODE(status, StatusCode::kUnauthenticated);
  EXPECT_THAT(status.message(), HasSubstr("HTTP 401 Unauthorized"));
  EXPECT_THAT(status.message(), HasSubstr("no credentials for this host in " + options_.docker_config_path));
  EXPECT_THAT(status.message(), HasSubstr("log in"));
  registry_.RequireBasic("user", "hunter2");
  status = client_->GetManifest(Ref()).status();
  EXPECT_CODE(status, StatusCode::kUnauthenticated);
  EXPECT_THAT(status.message(), HasSubstr("registry " + registry_.host() + ": repository team/model: manifest latest: HTTP 401"));
  EXPECT_THAT(status.message(), HasSubstr("no credentials for this host"));
  ASSERT_OK(WriteFileAtomic(options_.docker_config_path, R"({"credsStore":"is-not-here"})"));
  EXPECT_THAT(FetchStatus(0, 10).message(), HasSubstr("docker-credential-is-not-here"));
  LogIn();  // seen without a restart
  EXPECT_OK(FetchStatus(0, 10));
}

TEST_F(ClientAuthTest, WrongCredentials) {
  WriteConfig(R"({"username":"user","password":"hunter2-wrong"})");
  registry_.RequireToken("user", "hunter2");
  Status status = FetchStatus(0, 10);
  EXPECT_CODE(status, StatusCode::kUnauthenticated);
  EXPECT_THAT(status.message(), HasSubstr("refused"));
  registry_.RequireBasic("user", "hunter2");
  NewClient();
  EXPECT_CODE(FetchStatus(0, 10), StatusCode::kUnauthenticated);
  EXPECT_CODE(client_->GetManifest(Ref()), StatusCode::kUnauthenticated);
}

TEST_F(ClientAuthTest, Basic) {
  registry_.RequireBasic("user", "hunter2");
  WriteConfig(R"({"auth":")" + Base64Encode("user:hunter2") + R"("})");
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(registry_.counts().unauthorized, 1u);
  // A changed password: the cached header is refused, the file is read again.
  registry_.RequireBasic("user", "hunter2b");
  WriteConfig(R"({"username":"user","password":"hunter2b"})");
  EXPECT_OK(FetchStatus(0, 10));
}

TEST_F(ClientAuthTest, RefreshToken) {
  registry_.RequireToken("nobody", "else");
  registry_.AcceptRefreshToken("refresh-me");
  WriteConfig(R"({"auth":")" + Base64Encode("<token>:") + R"(","identitytoken":"refresh-me"})");
  EXPECT_OK(FetchStatus(0, 10));
  for (const auto& request : registry_.requests()) NoSecret(request.target);
  WriteConfig(R"({"identitytoken":"refresh-me-not"})");
  registry_.ExpireTokens();
  EXPECT_CODE(FetchStatus(0, 10), StatusCode::kUnauthenticated);
}

TEST_F(ClientAuthTest, TokenServerTrouble) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/token", .times = 2, .status = 500});
  Status status = FetchStatus(0, 10);
  EXPECT_CODE(status, StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("token server"));
  EXPECT_OK(client_->GetBlobRange(Ref(), digest_, 0, 10));
  for (const std::string& body : std::vector<std::string>{"", "[]", "{}", R"({"token":""})", R"({"token":"a\r\nX: y"})", R"({"token":7})",
                                                          R"({"token":")" + std::string(40'000, 'x') + R"("})",
                                                          R"({"token":")" + std::string(2 << 20, 'x') + R"("})"}) {
    NewClient();
    registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/token", .status = 200, .body = body});
    EXPECT_CODE(FetchStatus(0, 10), StatusCode::kUnavailable);
  }
  NewClient();
  registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/token", .status = 200,
                      .body = R"({"access_token":"never-valid","expires_in":99999999999999999999})"});
  EXPECT_CODE(FetchStatus(0, 10), StatusCode::kUnauthenticated);
}

TEST_F(ClientAuthTest, BadRealms) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  for (const char* realm : {"", "ftp://x/", "nonsense", "http://u:p@h/"}) {
    registry_.SetRealm(realm);
    Status status = FetchStatus(0, 10);
    EXPECT_FALSE(status.ok()) << realm;
    EXPECT_THAT(status.message(), HasSubstr("HTTP 401"));
  }
}

// Goal: a server that echoes the token in its error does not get it into our messages.
TEST_F(ClientAuthTest, EchoedSecretsAreDropped) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  EXPECT_OK(FetchStatus(0, 10));
  registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/blobs/", .times = 2, .status = 403,  // a 403 is asked again with a new token
                      .body = R"({"errors":[{"code":"DENIED","message":"not with fake-token-1"}]})"});
  EXPECT_CODE(FetchStatus(0, 10), StatusCode::kPermissionDenied);  // NoSecret is checked in FetchStatus
}

// Goal: a registry that is spoken to over TLS cannot have the credentials sent to a token server without.
TEST_F(ClientAuthTest, NoCredentialsToAPlainTokenServerOfATlsRegistry) {
  LogIn();
  CredentialChain credentials({std::make_shared<CredentialStore>(options_.docker_config_path)});
  auto engine = *HttpEngine::Create({.user_agent = "test"}, metrics_);
  Authenticator authenticator(*engine, credentials);
  std::promise<Result<std::string>> done;
  engine->Post([&] {
    AuthTarget target{.host = registry_.host(), .repository = "team/model", .plain_http = false};
    authenticator.Authorize(target, {"Bearer realm=\"http://" + registry_.host() + "/token\""}, "", Renewal::kUnauthorized,
                            [&](Result<std::string> result) { done.set_value(std::move(result)); });
  });
  auto result = done.get_future();
  ASSERT_EQ(result.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_CODE(result.get(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_.counts().requests, 0u);
  credentials.Stop();
  engine.reset();
}

}  // namespace
}  // namespace headrace::registry
