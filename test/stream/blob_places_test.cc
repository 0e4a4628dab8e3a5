// Goal: a blob that several images share comes from whichever repository gives it, each asked as seldom as can be, and from nowhere else.
#include "fusefs/stream/blob_places.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <thread>

#include "test/stream/fake_source.h"
#include "test/support/matchers.h"

namespace headrace::stream {
namespace {

using std::chrono::milliseconds;

class Bytes : public registry::RangeSink {
 public:
  bool OnData(std::span<const uint8_t> data) override {
    bytes.insert(bytes.end(), data.begin(), data.end());
    return true;
  }
  void OnDone(Status status) override { done_.set_value(std::move(status)); }
  Status Wait() {
    std::future<Status> done = done_.get_future();
    if (done.wait_for(std::chrono::seconds(20)) != std::future_status::ready) return InternalError("the test waited 20 s for the end of a range");
    return done.get();
  }
  std::vector<uint8_t> bytes;

 private:
  std::promise<Status> done_;
};

const std::string kA = "a.test/team/model:1", kB = "b.test/copy/model:2", kSameRegistry = "a.test/other/model:3";

class BlobPlacesTest : public ::testing::Test {
 protected:
  BlobPlacesTest() {
    source_.AddBlob(blob_, content_);
    source_.AddBlob(second_, content_);
    source_.SetScript([this](const std::shared_ptr<FakeRequest>& request, uint64_t) {
      Status failure;
      {
        MutexLock lock(mu_);
        asked_.push_back(request->blob.image_ref.substr(0, request->blob.image_ref.rfind(':')));
        if (auto found = failing_.find(request->blob.image_ref); found != failing_.end()) failure = found->second;
      }
      failure.ok() ? request->Serve() : request->Finish(failure);
    });
  }
  void Fails(const std::string& image_ref, Status status) {
    MutexLock lock(mu_);
    failing_[image_ref] = std::move(status);
  }
  // Fetches a range of the blob as a layer of `image_ref` would; where it was asked for.
  std::vector<std::string> Fetch(BlobPlaces& places, const Digest& blob, const std::string& image_ref, Status* status = nullptr) {
    {
      MutexLock lock(mu_);
      asked_.clear();
    }
    auto sink = std::make_shared<Bytes>();
    places.Fetch({image_ref, blob}, 10, 50, sink);
    const Status done = sink->Wait();
    if (status != nullptr) *status = done;
    if (status == nullptr) {
      EXPECT_OK(done);
    }
    EXPECT_EQ(sink->bytes, done.ok() ? std::vector<uint8_t>(content_.begin() + 10, content_.begin() + 60) : std::vector<uint8_t>());
    MutexLock lock(mu_);
    return asked_;
  }
  using Asked = std::vector<std::string>;

  const std::vector<uint8_t> content_ = [] {
    std::vector<uint8_t> bytes(100);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i);
    return bytes;
  }();
  const Digest blob_ = Digest::Of("blob"), second_ = Digest::Of("second");
  const std::string a_ = "a.test/team/model", b_ = "b.test/copy/model", same_registry_ = "a.test/other/model";
  Metrics metrics_;
  Mutex mu_;
  std::map<std::string, Status> failing_ HR_GUARDED_BY(mu_);
  Asked asked_ HR_GUARDED_BY(mu_);
  FakeSource source_;  // last: its thread uses the above
};

// A blob of one image, whether it is mounted or being attached: failures are its caller's, who tries again; nothing rests.
TEST_F(BlobPlacesTest, OnePlaceIsPassedThrough) {
  BlobPlaces places(source_, metrics_);
  Status status;
  for (int mounted = 0; mounted < 2; ++mounted) {
    Fails(kA, NotFoundError("gone"));
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(Fetch(places, blob_, kA, &status), Asked{a_});
      EXPECT_EQ(status.ToString(), "NOT_FOUND: gone");
    }
    Fails(kA, OkStatus());
    EXPECT_EQ(Fetch(places, blob_, kA), Asked{a_});
    places.Add(blob_, kA);
  }
  EXPECT_EQ(Metrics::Get(metrics_.place_switches), 0);
}

TEST_F(BlobPlacesTest, ARepositoryThatIsGoneIsLeftForTheNext) {
  BlobPlaces places(source_, metrics_);
  for (const Digest& blob : {blob_, second_}) {
    places.Add(blob, kA);
    places.Add(blob, kB);
  }
  EXPECT_EQ(Fetch(places, blob_, kA), Asked{a_});
  EXPECT_EQ(Fetch(places, blob_, kB), Asked{b_});
  for (const Status& gone : {NotFoundError("deleted"), PermissionDeniedError("403"), UnauthenticatedError("credentials refused")}) {
    BlobPlaces fresh(source_, metrics_);
    for (const Digest& blob : {blob_, second_}) {
      fresh.Add(blob, kA);
      fresh.Add(blob, kB);
    }
    const int64_t switches = Metrics::Get(metrics_.place_switches);
    Fails(kA, gone);
    EXPECT_EQ(Fetch(fresh, blob_, kA), (Asked{a_, b_}));
    EXPECT_EQ(Fetch(fresh, blob_, kA), Asked{b_});  // it rests
    EXPECT_EQ(Fetch(fresh, second_, kA), (Asked{a_, b_}));  // for this blob only
    EXPECT_EQ(Metrics::Get(metrics_.place_switches) - switches, 2);
  }
}

// A registry that is down is not asked for other blobs either; it is asked again when its rest is over.
TEST_F(BlobPlacesTest, ARegistryThatIsDownRestsForAllBlobs) {
  BlobPlaces places(source_, metrics_, milliseconds(150));
  for (const Digest& blob : {blob_, second_}) {
    for (const std::string& image_ref : {kA, kSameRegistry, kB}) places.Add(blob, image_ref);
  }
  Fails(kA, UnavailableError("connection refused"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Fetch(places, blob_, kA), (Asked{a_, b_}));  // the same registry's other repository would fail as well
  const Asked soon = Fetch(places, second_, kA);
  const bool in_time = std::chrono::steady_clock::now() - start < milliseconds(150);
  EXPECT_TRUE(soon == Asked{b_} || !in_time);
  Fails(kA, OkStatus());
  const auto deadline = start + std::chrono::seconds(20);
  Asked asked{b_};
  while (asked == Asked{b_} && std::chrono::steady_clock::now() < deadline) asked = Fetch(places, blob_, kA);
  EXPECT_EQ(asked, Asked{a_});
}

// A registry that says how long it wants to be left alone is, however long or short that is.
TEST_F(BlobPlacesTest, RetryAfterIsTheRest) {
  BlobPlaces places(source_, metrics_, std::chrono::hours(1));
  places.Add(blob_, kA);
  places.Add(blob_, kB);
  Fails(kA, ResourceExhaustedError("429").WithRetryAfter(milliseconds(200)));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Fetch(places, blob_, kA), (Asked{a_, b_}));
  Fails(kA, OkStatus());
  Asked asked{b_};
  while (asked == Asked{b_} && std::chrono::steady_clock::now() < start + std::chrono::seconds(20)) asked = Fetch(places, blob_, kA);
  EXPECT_EQ(asked, Asked{a_});
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(200));
}

// Who reads gets an error that says whether another try makes sense, and what every place said; while all rest, one is asked at a time.
TEST_F(BlobPlacesTest, WhenAllFail) {
  BlobPlaces places(source_, metrics_);
  places.Add(blob_, kA);
  places.Add(blob_, kB);
  Fails(kA, NotFoundError("no such repository"));
  Fails(kB, NotFoundError("no such blob"));
  Status status;
  EXPECT_EQ(Fetch(places, blob_, kA, &status), (Asked{a_, b_}));
  EXPECT_EQ(status.ToString(), "NOT_FOUND: no such repository; another image's repository: NOT_FOUND: no such blob");
  EXPECT_EQ(Fetch(places, blob_, kA, &status).size(), 1u);
  places.Add(second_, kA);
  places.Add(second_, kB);
  Fails(kB, ResourceExhaustedError("429").WithRetryAfter(std::chrono::seconds(7)));
  EXPECT_EQ(Fetch(places, second_, kA, &status), (Asked{a_, b_}));
  EXPECT_CODE(status, StatusCode::kResourceExhausted);
  EXPECT_EQ(status.retry_after(), std::chrono::seconds(7));
  EXPECT_NE(status.message().find("no such repository"), std::string::npos);
}

// What broke in the middle is its receiver's to go on with: elsewhere.
TEST_F(BlobPlacesTest, ABrokenRangeGoesOnElsewhereAtTheNextTry) {
  BlobPlaces places(source_, metrics_);
  places.Add(blob_, kA);
  places.Add(blob_, kB);
  source_.SetScript(nullptr);
  auto sink = std::make_shared<Bytes>();
  places.Fetch({kA, blob_}, 0, 50, sink);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  request->Deliver(20);
  request->Finish(UnavailableError("reset"));
  EXPECT_CODE(sink->Wait(), StatusCode::kUnavailable);
  EXPECT_EQ(sink->bytes.size(), 20u);
  EXPECT_FALSE(source_.HasNext());
  auto rest = std::make_shared<Bytes>();
  places.Fetch({kA, blob_}, 20, 30, rest);
  request = source_.Next();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->blob.image_ref, kB);
  request->Serve();
  EXPECT_OK(rest->Wait());
}

// Bytes that are wrong: the repository that gave them is left for this blob.
TEST_F(BlobPlacesTest, WrongBytesLeaveTheRepository) {
  BlobPlaces places(source_, metrics_);
  places.Add(blob_, kA);
  places.Add(blob_, kB);
  EXPECT_EQ(Fetch(places, blob_, kA), Asked{a_});
  places.ReportWrongBytes({kA, blob_}, 0);
  EXPECT_EQ(Fetch(places, blob_, kA), Asked{b_});
}

// Mounts are counted; an image of which nothing is mounted any more gives nothing, unless it is all there is; tags of one repository are one place.
TEST_F(BlobPlacesTest, PlacesComeAndGoWithMounts) {
  BlobPlaces places(source_, metrics_);
  places.Add(blob_, kA);
  places.Add(blob_, kB);
  places.Add(blob_, "b.test/copy/model:other");
  Fails(kA, NotFoundError("deleted"));
  EXPECT_EQ(Fetch(places, blob_, kA), (Asked{a_, b_}));
  places.Remove(blob_, kB);
  EXPECT_EQ(Fetch(places, blob_, kA), Asked{b_});
  places.Remove(blob_, "b.test/copy/model:other");
  Status status;
  EXPECT_EQ(Fetch(places, blob_, kA, &status), Asked{a_});
  EXPECT_CODE(status, StatusCode::kNotFound);
  // The other way round: the layer came with an image that is unmounted.
  BlobPlaces later(source_, metrics_);
  later.Add(blob_, kB);
  EXPECT_EQ(Fetch(later, blob_, kA), Asked{b_});
  Fails(kB, UnavailableError("down"));
  Fails(kA, OkStatus());
  EXPECT_EQ(Fetch(later, blob_, kA), (Asked{b_, a_}));
  later.Add(blob_, "NOT A REFERENCE");
  later.Remove(second_, kA);  // never added
}

// Many threads, places that come and go, repositories that fail now and then: every fetch ends, with the right bytes or an error.
TEST_F(BlobPlacesTest, Threads) {
  BlobPlaces places(source_, metrics_, milliseconds(1));
  places.Add(blob_, kA);
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t number) {
    number % 3 == 0 ? request->Finish(NotFoundError("now and then")) : request->Serve();
  });
  std::atomic<bool> stop{false};
  std::thread changes([&] {
    while (!stop.load()) {
      places.Add(blob_, kB);
      places.ReportWrongBytes({kA, blob_}, 0);
      places.Remove(blob_, kB);
    }
  });
  std::vector<std::thread> readers;
  for (int t = 0; t < 4; ++t) {
    readers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        auto sink = std::make_shared<Bytes>();
        places.Fetch({kA, blob_}, 10, 50, sink);
        const Status status = sink->Wait();
        EXPECT_TRUE(status.ok() ? sink->bytes.size() == 50 : status.code() == StatusCode::kNotFound) << status.ToString();
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  stop.store(true);
  changes.join();
}

}  // namespace
}  // namespace headrace::stream
