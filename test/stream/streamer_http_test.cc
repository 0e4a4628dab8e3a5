// Goal: the streamer over the real registry client and HTTP: right bytes through everything that a registry can do wrong, as few ranges
// as can be, and an error that names the registry when it is not there.
#include "fusefs/registry/client.h"
#include "test/stream/stream_fixture.h"
#include "test/support/fake_registry.h"

namespace headrace::stream {
namespace {

using test::Fault;
using test::FakeRegistry;

class HttpStreamTest : public StreamTest {
 protected:
  HttpStreamTest() {
    registry::ClientOptions options;
    options.stall_timeout = milliseconds(1000);
    auto client = registry::Client::Create(options, metrics_);
    EXPECT_OK(client);
    if (client.ok()) client_ = std::move(*client);
  }
  ~HttpStreamTest() override { StopHttp(); }
  void StopHttp() {
    Stop();
    client_.reset();
  }
  // As Start, with the client for a source.
  void StartHttp() {
    Start();
    auto streamer = Streamer::Create(options_, *store_, *client_, *pool_, *timer_, metrics_);
    ASSERT_OK(streamer);
    streamer_ = std::move(*streamer);
  }
  std::shared_ptr<const LayerSource> Push(const FakeLayer& layer) {
    const Digest digest = registry_.AddBlob("models/m", std::string(layer.blob().begin(), layer.blob().end()));
    EXPECT_EQ(digest, layer.blob_digest());
    auto source = std::make_shared<LayerSource>(*layer.Source());
    source->blob.image_ref = registry_.host() + "/models/m:latest";
    return source;
  }
  void ExpectWholeFile(const std::shared_ptr<const LayerSource>& source, const FakeLayer& layer, uint32_t entry) {
    auto content = Open(source, entry);
    const uint64_t size = content->size();
    std::vector<Pending> reads;
    for (uint64_t at = 0; at < size; at += 100'000) reads.emplace_back(*content, at, 100'000);
    for (uint64_t i = 0; i < reads.size(); ++i) ExpectBytes(reads[i].Wait(), layer.file(entry), i * 100'000, 100'000);
    EXPECT_TRUE(Eventually([&] { return content->sealed(); }));
  }

  FakeRegistry registry_;
  std::unique_ptr<registry::Client> client_;
};

TEST_F(HttpStreamTest, OneReadIsOneRange) {
  StartHttp();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 16, 65'536, 1);
  auto content = Open(Push(layer), entry);
  ExpectBytes(Pending(*content, 70'000, 500'000).Wait(), layer.file(entry), 70'000, 500'000);
  EXPECT_EQ(registry_.counts().blob_range_gets, 1u);
}

TEST_F(HttpStreamTest, EveryFaultOfARegistryIsLivedThrough) {
  using Kind = Fault::Kind;
  const std::vector<Fault> faults = {
      {.kind = Kind::kStatus, .times = 2, .status = 500},
      {.kind = Kind::kStatus, .times = 1, .status = 429, .headers = {"Retry-After: 1"}},
      {.kind = Kind::kStatus, .times = 1, .status = 404},
      {.kind = Kind::kStatus, .times = 1, .status = 403},
      {.kind = Kind::kClose, .times = 2},
      {.kind = Kind::kReset, .times = 2, .after_bytes = 70'000},
      {.kind = Kind::kTruncate, .times = 2, .after_bytes = 70'000},
      {.kind = Kind::kWrongRange, .times = 2},
      {.kind = Kind::kShortRange, .times = 2},
      {.kind = Kind::kIgnoreRange, .times = 1},
      {.kind = Kind::kFlipBit, .times = 2, .blob_offset = 150'000},
      {.kind = Kind::kStall, .times = 1, .after_bytes = 1000},
  };
  unsigned long seed = 1;
  for (const Fault& fault : faults) {
    SCOPED_TRACE("fault kind " + std::to_string(static_cast<int>(fault.kind)));
    StartHttp();
    FakeLayer layer;
    layer.AddGap(100);
    const uint32_t entry = layer.AddRandomFile("model", 8, 40'000, ++seed);
    const auto source = Push(layer);
    registry_.ClearFaults();
    registry_.AddFault(fault);
    ExpectWholeFile(source, layer, entry);
    registry_.Release();
    if (HasFailure()) return;
  }
  EXPECT_GE(Metrics::Get(metrics_.chunk_digest_mismatches), 1);
  EXPECT_GE(Metrics::Get(metrics_.wire_retries), static_cast<int64_t>(faults.size()));
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 0);
}

// Goal: a registry that says when it wants to be asked again is not asked before, by readers or by the plan, though our own pauses are shorter.
TEST_F(HttpStreamTest, RetryAfterIsHonouredByLazyReads) {
  options_.small_file_bytes = 0;
  StartHttp();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model.safetensors", 40, 40'000, 1);
  const auto source = Push(layer);
  registry_.AddFault({.kind = Fault::Kind::kStatus, .times = -1, .status = 503, .headers = {"Retry-After: 1"}});
  const auto start = std::chrono::steady_clock::now();
  auto content = Open(source, entry);
  Pending first(*content, 0, 10), second(*content, 1'000'000, 10);
  // Two readers once each second; the plan, too, after the first failures.
  ASSERT_TRUE(Eventually([&] { return registry_.counts().requests >= 6; }));
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(1000));
  registry_.ClearFaults();
  ExpectBytes(first.Wait(), layer.file(entry), 0, 10);
  ExpectBytes(second.Wait(), layer.file(entry), 1'000'000, 10);
}

TEST_F(HttpStreamTest, RedirectsAndTokens) {
  registry_.RequireToken("", "");
  registry_.RedirectBlobs(true);
  StartHttp();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 8, 40'000, 1);
  const uint32_t second = layer.AddRandomFile("more", 8, 40'000, 2);
  const auto source = Push(layer);
  ExpectWholeFile(source, layer, entry);
  registry_.ExpireTokens();
  registry_.ExpireRedirects();
  ExpectWholeFile(source, layer, second);
  EXPECT_GE(registry_.counts().cdn_gets, 1u);
}

TEST_F(HttpStreamTest, AnAbsentRegistryIsAnErrorThatNamesItAndLaterWorks) {
  options_.read_deadline = milliseconds(300);
  StartHttp();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 2, 40'000, 1);
  const auto source = Push(layer);
  registry_.RefuseConnections();
  auto content = Open(source, entry);
  const Answer answer = Pending(*content, 0, 100).Wait();
  EXPECT_FALSE(answer.status.ok());
  EXPECT_EQ(StatusToErrno(answer.status), EIO);
  EXPECT_NE(answer.status.message().find(registry_.host()), std::string::npos) << answer.status.message();
  registry_.AcceptConnections();
  content.reset();
  options_.read_deadline = milliseconds(20'000);
  StartHttp();
  ExpectWholeFile(source, layer, entry);
}

TEST_F(HttpStreamTest, ShutdownWhileTheRegistryHolds) {
  StartHttp();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 8, 40'000, 1);
  auto content = Open(Push(layer), entry);
  registry_.AddFault({.kind = Fault::Kind::kStall, .times = -1, .after_bytes = 50'000});
  Pending read(*content, 0, 300'000);
  EXPECT_TRUE(registry_.WaitForHeld(1));
  streamer_.reset();
  ASSERT_TRUE(read.ready());
  EXPECT_CODE(read.Wait().status, StatusCode::kCancelled);
  registry_.Release();
  content.reset();
  StopHttp();
}

}  // namespace
}  // namespace headrace::stream
