#include "fusefs/stream/blob_places.h"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fusefs/base/log.h"
#include "fusefs/base/mutex.h"
#include "fusefs/registry/reference.h"
#include "fusefs/registry/retry.h"

namespace headrace::stream {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kRestsMax = 4096;           // (repository, blob) and registries
constexpr size_t kTroublesBytesMax = 1000;   // of other places' words in an error

struct Place {
  std::string host;
  std::string name;       // "host/repository"
  std::string image_ref;  // one that leads there
  uint64_t mounts = 0;
};

std::optional<Place> PlaceOf(const std::string& image_ref) {
  const auto reference = registry::Reference::Parse(image_ref);
  if (!reference.ok()) return std::nullopt;
  return Place{reference->host, reference->host + "/" + reference->repository, image_ref, 0};
}

}  // namespace

// What attempts keep alive: memory only.
class BlobPlaces::State {
 public:
  State(Metrics& metrics, std::chrono::milliseconds rest) : metrics_(metrics), rest_(rest) {}
  Metrics& metrics() { return metrics_; }

  void Add(const Digest& blob, Place place) {
    MutexLock lock(mu_);
    std::vector<Place>& places = blobs_[blob].places;
    auto known = std::find_if(places.begin(), places.end(), [&](const Place& p) { return p.name == place.name; });
    if (known == places.end()) known = places.insert(places.end(), std::move(place));
    ++known->mounts;
  }

  void Remove(const Digest& blob, const Place& place) {
    MutexLock lock(mu_);
    auto entry = blobs_.find(blob);
    if (entry == blobs_.end()) return;
    std::vector<Place>& places = entry->second.places;
    auto known = std::find_if(places.begin(), places.end(), [&](const Place& p) { return p.name == place.name; });
    if (known != places.end() && --known->mounts == 0) places.erase(known);
    if (places.empty()) blobs_.erase(entry);
  }

  // Nothing but what the reference itself names.
  bool OnlyItself(const registry::BlobRef& blob) {
    MutexLock lock(mu_);
    auto entry = blobs_.find(blob.digest);
    if (entry == blobs_.end()) return true;
    const std::vector<Place>& places = entry->second.places;
    return places.size() == 1 && places.front().image_ref == blob.image_ref;
  }

  // The next place to ask, of those that were not tried; nothing: that was all.
  std::optional<Place> Choose(const registry::BlobRef& blob, const std::set<std::string>& tried) {
    const std::optional<Place> own = PlaceOf(blob.image_ref);
    const Clock::time_point now = Clock::now();
    MutexLock lock(mu_);
    std::vector<const Place*> order;
    if (auto entry = blobs_.find(blob.digest); entry != blobs_.end()) {
      for (const Place& place : entry->second.places) order.push_back(&place);
    }
    const auto is_own = [&](const Place* place) { return own && place->name == own->name; };
    std::stable_partition(order.begin(), order.end(), is_own);
    // The image that the layer came with, when nothing of it is mounted any more: last.
    if (own && std::none_of(order.begin(), order.end(), is_own)) order.push_back(&*own);
    const Place* soonest = nullptr;
    for (const Place* place : order) {
      if (tried.contains(place->name)) continue;
      if (RestsUntil(*place, blob.digest) <= now) return *place;
      if (soonest == nullptr || RestsUntil(*place, blob.digest) < RestsUntil(*soonest, blob.digest)) soonest = place;
    }
    if (soonest == nullptr || !tried.empty()) return std::nullopt;
    return *soonest;
  }

  void Failed(const Place& place, const Digest& blob, const Status& status) {
    const bool permanent = !registry::WorthRetrying(status);
    const Clock::time_point now = Clock::now();
    const Clock::time_point until = now + (status.retry_after().count() > 0 ? status.retry_after() : rest_);
    bool began = false;
    {
      MutexLock lock(mu_);
      if (rests_.size() >= kRestsMax) std::erase_if(rests_, [now](const auto& item) { return item.second <= now; });
      if (rests_.size() >= kRestsMax) rests_.clear();  // costs one failure each
      Clock::time_point& rest = rests_[permanent ? place.name + "@" + blob.ToString() : place.host];
      began = rest <= now;
      rest = std::max(rest, until);
    }
    if (began) log::Warn("a repository does not give a blob, others are asked for it repository={} blob={} error=\"{}\"", place.name, blob.ToString(), status.ToString());
  }

  void Gave(const Place& place, const Digest& blob) {
    MutexLock lock(mu_);
    if (auto entry = blobs_.find(blob); entry != blobs_.end()) entry->second.gave_last = place;
  }

  void Wrong(const Digest& blob) {
    std::optional<Place> place;
    {
      MutexLock lock(mu_);
      if (auto entry = blobs_.find(blob); entry != blobs_.end()) place = entry->second.gave_last;
    }
    if (place) Failed(*place, blob, DataLossError("its bytes are wrong"));
  }

 private:
  struct Blob {
    std::vector<Place> places;  // in the order of their mounts
    std::optional<Place> gave_last;
  };

  Clock::time_point RestsUntil(const Place& place, const Digest& blob) const HR_REQUIRES(mu_) {
    Clock::time_point until = Clock::time_point::min();
    for (const std::string& key : {place.name + "@" + blob.ToString(), place.host}) {
      if (auto rest = rests_.find(key); rest != rests_.end()) until = std::max(until, rest->second);
    }
    return until;
  }

  Metrics& metrics_;
  const std::chrono::milliseconds rest_;
  mutable Mutex mu_;
  std::unordered_map<Digest, Blob> blobs_ HR_GUARDED_BY(mu_);
  std::unordered_map<std::string, Clock::time_point> rests_ HR_GUARDED_BY(mu_);  // "host/repository@blob", and hosts
};

// One fetch on its way through the places. After the constructor on the source's thread.
class BlobPlaces::Attempt : public registry::RangeSink, public std::enable_shared_from_this<Attempt> {
 public:
  Attempt(registry::RangeSource& source, std::shared_ptr<State> state, registry::BlobRef blob, uint64_t offset, uint64_t size,
          std::shared_ptr<registry::RangeSink> sink)
      : source_(source), state_(std::move(state)), blob_(std::move(blob)), offset_(offset), size_(size), sink_(std::move(sink)) {}

  // False: there is no place that was not asked.
  bool Next() {
    std::optional<Place> place = state_->Choose(blob_, tried_);
    if (!place) return false;
    if (!tried_.empty()) Metrics::Add(state_->metrics().place_switches);
    tried_.insert(place->name);
    place_ = std::move(*place);
    registry::BlobRef there = blob_;
    there.image_ref = place_.image_ref;
    source_.Fetch(there, offset_, size_, shared_from_this());
    return true;
  }

  void OnSource(uint64_t source) override { sink_->OnSource(source); }
  bool OnData(std::span<const uint8_t> data) override {
    if (!std::exchange(delivered_, true)) state_->Gave(place_, blob_.digest);
    return sink_->OnData(data);
  }
  void OnDone(Status status) override {
    if (status.ok() || status.code() == StatusCode::kCancelled) return Finish(std::move(status));
    state_->Failed(place_, blob_.digest, status);
    if (delivered_) return Finish(std::move(status));  // its receiver has some of it: the next attempt goes elsewhere
    failures_.push_back(std::move(status));
    if (Next()) return;
    auto best = std::find_if(failures_.begin(), failures_.end(), registry::WorthRetrying);
    if (best == failures_.end()) best = failures_.begin();
    std::string message = best->message();
    for (const Status& other : failures_) {
      if (&other != &*best && message.size() < best->message().size() + kTroublesBytesMax) message += "; another image's repository: " + other.ToString();
    }
    Finish(std::move(*best).WithMessage(std::move(message)));
  }

 private:
  void Finish(Status status) { std::exchange(sink_, nullptr)->OnDone(std::move(status)); }

  registry::RangeSource& source_;
  const std::shared_ptr<State> state_;
  const registry::BlobRef blob_;
  const uint64_t offset_, size_;
  std::shared_ptr<registry::RangeSink> sink_;
  std::set<std::string> tried_;
  Place place_;
  bool delivered_ = false;
  std::vector<Status> failures_;
};

BlobPlaces::BlobPlaces(registry::RangeSource& source, Metrics& metrics, std::chrono::milliseconds rest)
    : source_(source), state_(std::make_shared<State>(metrics, rest)) {}

BlobPlaces::~BlobPlaces() = default;

void BlobPlaces::Add(const Digest& blob, const std::string& image_ref) {
  if (std::optional<Place> place = PlaceOf(image_ref)) state_->Add(blob, std::move(*place));
}

void BlobPlaces::Remove(const Digest& blob, const std::string& image_ref) {
  if (const std::optional<Place> place = PlaceOf(image_ref)) state_->Remove(blob, *place);
}

void BlobPlaces::Fetch(const registry::BlobRef& blob, uint64_t offset, uint64_t size, std::shared_ptr<registry::RangeSink> sink) {
  if (state_->OnlyItself(blob)) return source_.Fetch(blob, offset, size, std::move(sink));
  auto attempt = std::make_shared<Attempt>(source_, state_, blob, offset, size, sink);
  if (!attempt->Next()) source_.Fetch(blob, offset, size, std::move(sink));  // not a reference, and nothing else: the source says so
}

void BlobPlaces::ReportWrongBytes(const registry::BlobRef& blob, uint64_t source) {
  if (source != 0) return source_.ReportWrongBytes(blob, source);
  state_->Wrong(blob.digest);
}

}  // namespace headrace::stream
