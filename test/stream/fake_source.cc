#include "test/stream/fake_source.h"

#include <algorithm>

namespace headrace::stream {

bool FakeRequest::Deliver(size_t n) {
  n = std::min(n, bytes.size() - sent_);
  const bool more = sink_->OnData(std::span(bytes).subspan(sent_, n));
  sent_ += n;
  return more;
}

void FakeRequest::Finish(Status status) { sink_->OnDone(std::move(status)); }

void FakeRequest::Serve(size_t piece) {
  while (sent_ < bytes.size()) {
    if (!Deliver(piece)) return Finish(CancelledError("the receiver stopped"));
  }
  Finish(OkStatus());
}

void FakeSource::AddBlob(const Digest& digest, std::vector<uint8_t> bytes) {
  MutexLock lock(mu_);
  blobs_[digest] = std::move(bytes);
}

void FakeSource::SetScript(Script script) {
  MutexLock lock(mu_);
  script_ = std::move(script);
}

std::shared_ptr<FakeRequest> FakeSource::Next() {
  MutexLock lock(mu_);
  if (!came_.WaitFor(mu_, std::chrono::seconds(20), [this] { return !waiting_.empty(); })) return nullptr;
  std::shared_ptr<FakeRequest> request = waiting_.front();
  waiting_.pop_front();
  return request;
}

bool FakeSource::HasNext() {
  MutexLock lock(mu_);
  return !waiting_.empty();
}

uint64_t FakeSource::requests() const {
  MutexLock lock(mu_);
  return requests_;
}

uint64_t FakeSource::requested_bytes() const {
  MutexLock lock(mu_);
  return requested_bytes_;
}

void FakeSource::Fetch(const registry::BlobRef& blob, uint64_t offset, uint64_t size,
                       std::shared_ptr<registry::RangeSink> sink) {
  MutexLock lock(mu_);
  const uint64_t number = requests_++;
  requested_bytes_ += size;
  auto it = blobs_.find(blob.digest);
  std::vector<uint8_t> body;
  if (it != blobs_.end() && offset + size <= it->second.size()) {
    body.assign(it->second.begin() + static_cast<ptrdiff_t>(offset),
                it->second.begin() + static_cast<ptrdiff_t>(offset + size));
  }
  const bool known = !body.empty();
  auto request = std::make_shared<FakeRequest>(blob, offset, std::move(body), std::move(sink));
  if (!known) {
    thread_.Post([request] { request->Finish(NotFoundError("fake registry: no such blob or range")); });
  } else if (script_) {
    thread_.Post([script = script_, request, number] { script(request, number); });
  } else {
    waiting_.push_back(request);
    came_.NotifyAll();
  }
}

}  // namespace headrace::stream
