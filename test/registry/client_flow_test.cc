// Redirects, concurrency, limits, cancellation and shutdown.
#include <atomic>
#include <thread>

#include "test/registry/client_fixture.h"

namespace headrace::registry {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

class ClientFlowTest : public ClientTest {
 protected:
  // No request to the cdn port carried credentials.
  void NoCredentialsAtCdn() {
    for (const auto& request : registry_.requests()) {
      EXPECT_TRUE(!request.cdn || request.authorization.empty()) << request.target;
    }
  }
};

TEST_F(ClientFlowTest, RedirectIsFollowedAndRemembered) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  registry_.RedirectBlobs(true);
  for (int status : {301, 302, 303, 307, 308}) {
    NewClient();
    const auto before = registry_.counts();
    registry_.SetRedirectStatus(status);
    for (int i = 0; i < 5; ++i) EXPECT_OK(FetchStatus(static_cast<uint64_t>(i) * 1000, 1000));
    EXPECT_EQ(registry_.counts().cdn_gets - before.cdn_gets, 5u);
    EXPECT_EQ(registry_.counts().blob_gets - before.blob_gets, 1u);
  }
  EXPECT_OK(Blob());
  NoCredentialsAtCdn();
}

// Goal: an expired target is renewed within the attempt, however it is refused.
TEST_F(ClientFlowTest, ExpiredRedirectIsRenewed) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  registry_.RedirectBlobs(true);
  EXPECT_OK(FetchStatus(0, 10));
  for (int status : {400, 401, 403, 404, 410}) {
    registry_.ExpireRedirects(status);
    registry_.ExpireTokens();  // and the token with it
    EXPECT_OK(FetchStatus(0, 10));
  }
  EXPECT_EQ(registry_.counts().blob_gets, 6u);
  NoCredentialsAtCdn();
}

TEST_F(ClientFlowTest, RefusedAtTheTargetOfAFreshRedirect) {
  registry_.RedirectBlobs(true);
  registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/cdn/", .times = -1, .status = 403});
  Status status = FetchStatus(0, 10);
  EXPECT_CODE(status, StatusCode::kPermissionDenied);
  EXPECT_THAT(status.message(), HasSubstr("redirected to " + registry_.cdn_host()));
  registry_.ClearFaults();
  EXPECT_OK(FetchStatus(0, 10));  // it was not remembered
  // Network trouble at a remembered target makes the next attempt ask the registry again.
  registry_.AddFault({.kind = Kind::kReset, .path_contains = "/cdn/", .after_bytes = 1});
  EXPECT_CODE(FetchStatus(0, 10), StatusCode::kUnavailable);
  const uint64_t before = registry_.counts().blob_gets;
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(registry_.counts().blob_gets, before + 1);
}

TEST_F(ClientFlowTest, BadRedirects) {
  auto fetch_with = [&](const std::string& location) {
    registry_.ClearFaults();
    std::vector<std::string> headers;
    if (!location.empty()) headers.push_back("Location: " + location);
    registry_.AddFault({.kind = Kind::kStatus, .times = -1, .status = 307, .headers = headers});
    return FetchStatus(0, 10);
  };
  const uint64_t before = registry_.counts().requests;
  EXPECT_CODE(fetch_with("/again"), StatusCode::kFailedPrecondition);  // for ever
  EXPECT_EQ(registry_.counts().requests - before, 11u);
  EXPECT_CODE(fetch_with(""), StatusCode::kInvalidArgument);
  EXPECT_CODE(fetch_with("file:///etc/passwd"), StatusCode::kInvalidArgument);
  EXPECT_CODE(fetch_with("http://user:hunter2@127.0.0.1/x"), StatusCode::kInvalidArgument);
  EXPECT_CODE(fetch_with("http://h/" + std::string(20'000, 'x')), StatusCode::kInvalidArgument);
}

// Goal: another registry that a redirect leads to gets no credentials, and cannot make us ask for some.
// Goal: one name for an attempt in the logs of both sides: the registry gets it with each request, the place that it redirects to does not, and an error has both names.
TEST_F(ClientFlowTest, AttemptsHaveNames) {
  registry_.RedirectBlobs(true);
  registry_.AddFault({.kind = Kind::kStatus, .path_contains = "/cdn/", .times = 1, .status = 403, .headers = {"x-amz-request-id: THEIRS42"}});
  const Status first = FetchStatus(0, 10), second = FetchStatus(0, 10);
  ASSERT_FALSE(first.ok());
  EXPECT_OK(second);
  std::vector<std::string> names;
  for (const auto& request : registry_.requests()) {
    if (request.cdn) {
      EXPECT_EQ(request.request_id, "");
    } else {
      names.push_back(request.request_id);
    }
  }
  ASSERT_EQ(names.size(), 2u);
  EXPECT_NE(names[0], names[1]);
  EXPECT_THAT(first.message(), HasSubstr("[request " + names[0] + ", x-amz-request-id THEIRS42]"));
  EXPECT_EQ(names[0].substr(0, names[0].rfind('-')), names[1].substr(0, names[1].rfind('-'))) << "of one client";
}

TEST_F(ClientFlowTest, RedirectToAnotherRegistry) {
  test::FakeRegistry other;
  other.RequireToken("user", "hunter2");
  registry_.RequireBasic("user", "hunter2");
  LogIn();
  EXPECT_OK(FetchStatus(0, 10));
  registry_.AddFault({.kind = Kind::kStatus, .times = -1, .status = 307,
                      .headers = {"Location: http://" + other.host() + "/v2/team/model/blobs/" + digest_.ToString()}});
  EXPECT_CODE(FetchStatus(0, 10), StatusCode::kUnauthenticated);
  EXPECT_EQ(other.counts().token_requests, 0u);
  ASSERT_EQ(other.requests().size(), 1u);
  EXPECT_EQ(other.requests()[0].authorization, "");
}

TEST_F(ClientFlowTest, ConnectionsAreBoundedAndReused) {
  options_.max_connections_per_host = 3;
  options_.stall_timeout = milliseconds(10'000);
  NewClient();
  registry_.AddFault({.kind = Kind::kHold, .method = "GET", .times = 12});
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (uint64_t i = 0; i < 12; ++i) sinks.push_back(StartFetch(i * 100, 100));
  ASSERT_TRUE(registry_.WaitForHeld(3));
  EXPECT_OK(client_->StatBlob(Ref(), digest_));  // small requests have their own share
  EXPECT_EQ(registry_.held(), 3u);
  registry_.Release();
  for (auto& sink : sinks) EXPECT_OK(sink->Wait());
  EXPECT_LE(registry_.counts().connections, 4u);
}

// Goal: a read that comes while connections are being opened uses one of them instead of opening another; but it does not wait for long.
TEST_F(ClientFlowTest, ReadsWaitForConnectionsThatAreBeingOpened) {
  registry_.AddFault({.kind = Kind::kHold, .method = "GET", .times = 2});
  client_->Warm({Ref().ToString(), digest_}, 2);
  ASSERT_TRUE(registry_.WaitForHeld(2));
  auto first = StartFetch(0, 100), second = StartFetch(100, 100);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(registry_.counts().blob_gets, 2u) << "did not wait";
  registry_.Release();
  EXPECT_OK(first->Wait());
  EXPECT_OK(second->Wait());
  EXPECT_EQ(registry_.counts().connections, 2u);
}

TEST_F(ClientFlowTest, ReadsDoNotWaitForALazyRegistry) {
  registry_.AddFault({.kind = Kind::kHold, .method = "GET", .times = 1});
  client_->Warm({Ref().ToString(), digest_}, 1);
  ASSERT_TRUE(registry_.WaitForHeld(1));
  EXPECT_OK(StartFetch(0, 100)->Wait());
  EXPECT_EQ(registry_.counts().connections, 2u);
  registry_.Release();
}

TEST_F(ClientFlowTest, ASinkStopsItsFetch) {
  auto sink = std::make_shared<CollectingSink>(1);
  client_->Fetch({Ref().ToString(), digest_}, 0, content_.size(), sink);
  EXPECT_CODE(sink->Wait(), StatusCode::kCancelled);
  EXPECT_EQ(sink->done_calls(), 1);
  EXPECT_LT(sink->data().size(), content_.size());
  EXPECT_OK(FetchStatus(0, 10));
  // The receiver of a blob, too; its own status comes back, and is no reason for another try.
  Status status = client_->GetBlob(Ref(), digest_, [](std::span<const uint8_t>) { return UnavailableError("mine"); });
  EXPECT_EQ(status.message(), "mine");
  EXPECT_EQ(Metrics::Get(metrics_.wire_retries), 0);
}

// Goal: a slow receiver stops the wire, not the network thread, and memory stays bounded.
TEST_F(ClientFlowTest, BackPressure) {
  const std::string big = test::RandomBytes(20 << 20, 3);
  const Digest digest = registry_.AddBlob("team/model", big);
  bool first = true;
  uint64_t got = 0;
  Status status = client_->GetBlob(Ref(), digest, [&](std::span<const uint8_t> data) {
    got += data.size();
    if (!std::exchange(first, false)) return OkStatus();
    const auto end = Clock::now() + std::chrono::seconds(10);
    while (Metrics::Get(metrics_.wire_bytes) < (7 << 20) && Clock::now() < end) std::this_thread::yield();
    for (int i = 0; i < 20; ++i) EXPECT_OK(FetchStatus(0, 1000));  // the network thread serves others meanwhile
    EXPECT_LE(Metrics::Get(metrics_.wire_bytes), (9 << 20));
    EXPECT_GE(Metrics::Get(metrics_.wire_bytes), (7 << 20));
    return OkStatus();
  });
  EXPECT_OK(status);
  EXPECT_EQ(got, big.size());
}

// Goal: a receiver that pauses for longer than the stall limit is not the wire's fault.
TEST_F(ClientFlowTest, APausedTransferDoesNotStall) {
  options_.stall_timeout = milliseconds(300);
  NewClient();
  const std::string big = test::RandomBytes(12 << 20, 3);
  const Digest digest = registry_.AddBlob("team/model", big);
  bool first = true;
  EXPECT_OK(client_->GetBlob(Ref(), digest, [&](std::span<const uint8_t>) {
    const auto end = Clock::now() + milliseconds(first ? 900 : 0);
    first = false;
    while (Clock::now() < end) std::this_thread::yield();
    return OkStatus();
  }));
  EXPECT_EQ(Metrics::Get(metrics_.wire_retries), 0);
}

// Goal: right bytes from many threads while the registry misbehaves.
TEST_F(ClientFlowTest, ManyThreadsAndFaults) {
  registry_.RequireToken("user", "hunter2");
  LogIn();
  registry_.RedirectBlobs(true);
  options_.request_deadline = milliseconds(20'000);
  NewClient();
  const unsigned long seed = test::TestSeed();
  for (int i = 0; i < 8; ++i) {
    registry_.AddFault({.kind = Kind::kStatus, .times = 2, .skip = 10 * i, .status = 500});
    registry_.AddFault({.kind = Kind::kReset, .path_contains = "/cdn/", .times = 2, .skip = 9 * i, .after_bytes = 10});
    registry_.AddFault({.kind = Kind::kWrongRange, .path_contains = "/cdn/", .times = 2, .skip = 7 * i});
  }
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed + t);
      for (int i = 0; i < 25; ++i) {
        if (i == 12 && t == 0) registry_.ExpireTokens();
        if (i == 15 && t == 1) registry_.ExpireRedirects();
        uint64_t offset = random() % content_.size();
        uint64_t size = 1 + random() % std::min<uint64_t>(content_.size() - offset, 50'000);
        Result<std::string> got = client_->GetBlobRange(Ref(), digest_, offset, size);
        if (!got.ok() || *got != content_.substr(offset, size)) ++wrong;
        if (!got.ok()) ADD_FAILURE() << got.status().ToString();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// Goal: the destructor ends what runs, waits and is queued, soon, and every sink gets exactly one OnDone.
TEST_F(ClientFlowTest, DestructorWithWorkInFlight) {
  options_.max_connections_per_host = 4;
  options_.stall_timeout = milliseconds(60'000);
  options_.request_deadline = milliseconds(60'000);
  NewClient();
  registry_.AddFault({.kind = Kind::kStall, .method = "GET", .times = -1, .after_bytes = 100});
  registry_.AddManifest("team/model", "latest", std::string(1000, ' '));
  std::vector<std::thread> threads;
  threads.emplace_back([this] { EXPECT_CODE(Blob(), StatusCode::kCancelled); });
  threads.emplace_back([this] { EXPECT_CODE(client_->GetManifest(Ref()), StatusCode::kCancelled); });
  ASSERT_TRUE(registry_.WaitForHeld(2));
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (uint64_t i = 0; i < 50; ++i) sinks.push_back(StartFetch(i * 1000, 1000));
  ASSERT_TRUE(registry_.WaitForHeld(5));
  const auto start = Clock::now();
  client_.reset();
  EXPECT_LT(Clock::now() - start, milliseconds(2000));
  for (std::thread& thread : threads) thread.join();
  for (auto& sink : sinks) {
    EXPECT_CODE(sink->Wait(), StatusCode::kCancelled);
    EXPECT_EQ(sink->done_calls(), 1);
  }
}

// Goal: a sink may start the next fetch from its OnDone, also while the client goes down.
TEST_F(ClientFlowTest, FetchFromOnDone) {
  struct Chain : RangeSink {
    Client* client = nullptr;
    BlobRef blob;
    std::shared_ptr<CollectingSink> next = std::make_shared<CollectingSink>();
    bool OnData(std::span<const uint8_t>) override { return true; }
    void OnDone(Status) override { client->Fetch(blob, 10, 10, next); }
  };
  auto chain = std::make_shared<Chain>();
  chain->client = client_.get();
  chain->blob = {Ref().ToString(), digest_};
  client_->Fetch(chain->blob, 0, 10, chain);
  EXPECT_OK(chain->next->Wait());
  auto late = std::make_shared<Chain>();
  late->client = client_.get();
  late->blob = chain->blob;
  registry_.AddFault({.kind = Kind::kHold});
  client_->Fetch(late->blob, 0, 10, late);
  ASSERT_TRUE(registry_.WaitForHeld(1));
  client_.reset();
  EXPECT_CODE(late->next->Wait(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace headrace::registry
