// Renewal in the middle of reads: a registry that refuses what it took before, sources that answer late, wrongly or never.
#include <atomic>
#include <thread>

#include "fusefs/base/text.h"
#include "test/registry/client_fixture.h"
#include "test/registry/credential_test_util.h"

namespace headrace::registry {
namespace {

class ClientCredentialsTest : public ClientTest {
 protected:
  // A client with all four sources; the provider program serves loopback registries and says what is in "user".
  void UseKeychain(std::chrono::milliseconds program_timeout = std::chrono::milliseconds(20'000)) {
    options_.keychain.remembered = remembered_;
    options_.keychain.provider_config = dir_ / "providers.yaml";
    options_.keychain.provider_programs = dir_.path();
    options_.keychain.credentials_file = dir_ / "static.json";
    options_.keychain.program_timeout = program_timeout;
    ASSERT_OK(WriteFileAtomic(dir_ / "providers.yaml",
                              "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: helper\n"
                              "  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['" + registry_.host() +
                                  "']\n  defaultCacheDuration: 1h\n"));
    NewClient();
  }
  void Provider(const std::string& password) {
    ASSERT_OK(WriteFileAtomic(dir_ / "out", R"({"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",)"
                                            R"("cacheKeyType":"Registry","auth":{")" + registry_.host() +
                                                R"(":{"username":"user","password":")" + password + R"("}}})"));
    test::WriteScript(dir_ / "helper", "echo >> " + (dir_ / "starts") + "; cat " + (dir_ / "out"));
  }
  void Remember(const std::string& password) { ASSERT_OK(remembered_->Remember(Ref().ToString(), {"user", password, ""})); }
  size_t starts() { return test::CountLines(dir_ / "starts"); }

  std::shared_ptr<RememberedCredentials> remembered_ = std::make_shared<RememberedCredentials>();
};

// Goal: hours of reads while passwords rotate and tokens expire: each read goes on with what the provider says now.
TEST_F(ClientCredentialsTest, RotationInTheMiddleOfReads) {
  UseKeychain();
  Provider("hunter2-0");
  registry_.RequireToken("user", "hunter2-0");
  EXPECT_OK(FetchStatus(0, 100));
  EXPECT_EQ(starts(), 1u);
  registry_.ExpireTokens();
  EXPECT_OK(FetchStatus(0, 100));
  EXPECT_EQ(starts(), 1u) << "the password is still good: only the token was renewed";
  registry_.RequireBasic("user", "hunter2-1");
  Provider("hunter2-1");
  // The provider was started within the pause, so this one is refused until it may be asked again: the streamer's retries wait.
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  Status status;
  do {
    status = FetchStatus(0, 100);
  } while (!status.ok() && std::chrono::steady_clock::now() < give_up);
  EXPECT_OK(status);
  EXPECT_EQ(starts(), 2u);
}

// Goal: what PullImage brings counts at once, and wins over the others; when it is refused, the next source has its turn in the same attempt.
TEST_F(ClientCredentialsTest, PullSecretFirstThenTheOthers) {
  for (const bool basic : {true, false}) {
    remembered_ = std::make_shared<RememberedCredentials>();
    UseKeychain();
    if (basic) registry_.RequireBasic("user", "hunter2-cri");
    else registry_.RequireToken("user", "hunter2-cri");
    Status status = FetchStatus(0, 100);
    EXPECT_CODE(status, StatusCode::kUnavailable);  // the program is not there: it may come
    EXPECT_THAT(status.message(), HasSubstr("cannot run"));
    Remember("hunter2-cri");
    EXPECT_OK(FetchStatus(0, 100));
    Remember("hunter2-old");  // another pod's, wrong
    NewClient();
    EXPECT_OK(FetchStatus(0, 100));  // the one before it is still good
  }
  ASSERT_OK(WriteFileAtomic(dir_ / "static.json", R"({"credentials":[{"match":")" + registry_.host() + R"(","username":"user","password":"hunter2-static"}]})"));
  Provider("hunter2-provider");
  for (const bool basic : {true, false}) {
    NewClient();
    if (basic) registry_.RequireBasic("user", "hunter2-static");
    else registry_.RequireToken("user", "hunter2-static");
    EXPECT_OK(FetchStatus(0, 100));  // last in the chain, found by one attempt
  }
  registry_.RequireBasic("user", "hunter2-none-of-them");
  NewClient();
  Status status = FetchStatus(0, 100);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("refused"));
}

// Goal: registries that say 403 of what has expired.
TEST_F(ClientCredentialsTest, ForbiddenIsAskedAgainOnce) {
  UseKeychain();
  ASSERT_OK(WriteFileAtomic(dir_ / "static.json", R"({"credentials":[]})"));
  test::WriteScript(dir_ / "helper", "exit 1");
  registry_.RequireBasic("user", "hunter2");
  Remember("hunter2");
  EXPECT_OK(FetchStatus(0, 100));
  registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/blobs/", .status = 403, .body = R"({"errors":[{"code":"DENIED","message":"expired"}]})"});
  Status status = FetchStatus(0, 100);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("HTTP 403"));
  EXPECT_OK(FetchStatus(0, 100));  // nothing better was found, so the old is kept
  // A new secret is there: the 403 is the reason to take it.
  registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/blobs/", .status = 403});
  registry_.RequireBasic("user", "hunter2-new");
  Remember("hunter2-new");
  EXPECT_OK(FetchStatus(0, 100));
}

// Goal: a hundred reads that are refused at once start one program, and all go on.
TEST_F(ClientCredentialsTest, SingleFlight) {
  options_.max_connections_per_host = 100;
  UseKeychain();
  Provider("hunter2");
  registry_.RequireBasic("user", "hunter2");
  registry_.AddFault({.kind = Kind::kHold, .path_contains = "/blobs/", .times = 100});
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (uint64_t i = 0; i < 100; ++i) sinks.push_back(StartFetch(i * 100, 100));
  ASSERT_TRUE(registry_.WaitForHeld(100));
  registry_.Release();
  for (auto& sink : sinks) EXPECT_OK(sink->Wait());
  EXPECT_EQ(starts(), 1u);
}

// Goal: a program that hangs holds up nobody but those who need it, is killed in time, and the client ends at once in the middle of it.
TEST_F(ClientCredentialsTest, HangingProgram) {
  UseKeychain(std::chrono::milliseconds(1500));
  test::WriteScript(dir_ / "helper", "echo >> " + (dir_ / "starts") + "; echo hunter2; exec sleep 1000");
  test::FakeRegistry open;
  const std::string content = "open to all";
  const Digest digest = open.AddBlob("team/model", content);
  registry_.RequireBasic("user", "hunter2");
  auto waiting = StartFetch(0, 100);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (starts() == 0 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  auto other = std::make_shared<CollectingSink>();
  client_->Fetch({open.host() + "/team/model:latest", digest}, 0, content.size(), other);
  EXPECT_OK(other->Wait());
  EXPECT_EQ(waiting->done_calls(), 0);
  Status status = waiting->Wait();
  EXPECT_CODE(status, StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("did not end within 1500 ms"));
  NoSecret(status.ToString());

  UseKeychain(std::chrono::milliseconds(200'000));
  waiting = StartFetch(0, 100);
  while (starts() < 2 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  client_.reset();
  EXPECT_FALSE(waiting->Wait().ok());
  EXPECT_EQ(waiting->done_calls(), 1);
}

// Goal: a blocking call keeps its own deadline while a program takes its time.
TEST_F(ClientCredentialsTest, DeadlineWhileAProgramHangs) {
  options_.request_deadline = std::chrono::milliseconds(1000);
  UseKeychain(std::chrono::milliseconds(200'000));
  test::WriteScript(dir_ / "helper", "exec sleep 1000");
  registry_.RequireBasic("user", "hunter2");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(client_->GetBlobRange(Ref(), digest_, 0, 10).ok());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
}

// Goal: a public image is readable while a provider is broken; a private one says why not.
TEST_F(ClientCredentialsTest, AnonymousWhereNothingIsKnown) {
  UseKeychain();
  test::WriteScript(dir_ / "helper", "echo hunter2; exit 1");
  registry_.RequireToken("", "");
  EXPECT_OK(FetchStatus(0, 100));
  registry_.RequireToken("user", "hunter2");
  registry_.ExpireTokens();
  Status status = FetchStatus(0, 100);
  EXPECT_CODE(status, StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("the credential provider helper"));
  EXPECT_THAT(status.message(), HasSubstr("exit code 1"));
}

}  // namespace
}  // namespace headrace::registry
