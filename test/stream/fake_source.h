// FakeSource: a RangeSource that serves blobs from memory as a script says, or by hand: the test delivers the bytes of each request in
// pieces, spoils them, ends it, or lets it hang. Sink calls come from the source's own thread (script) or from the test's (by hand).
#ifndef HEADRACE_TEST_STREAM_FAKE_SOURCE_H_
#define HEADRACE_TEST_STREAM_FAKE_SOURCE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/mutex.h"
#include "fusefs/registry/range_source.h"

namespace headrace::stream {

class FakeRequest {
 public:
  FakeRequest(registry::BlobRef which, uint64_t from, std::vector<uint8_t> body, std::shared_ptr<registry::RangeSink> sink)
      : blob(std::move(which)), offset(from), bytes(std::move(body)), sink_(std::move(sink)) {}
  // Delivers the next n bytes; false: the receiver wants no more.
  bool Deliver(size_t n);
  bool DeliverAll() { return Deliver(bytes.size() - sent_); }
  // Hands out bytes beyond the range as well.
  bool DeliverMore(std::vector<uint8_t> extra) { return sink_->OnData(extra); }
  void Finish(Status status);
  // All of it, in pieces of `piece` bytes, then the end as the protocol has it.
  void Serve(size_t piece = 1 << 20);

  const registry::BlobRef blob;
  const uint64_t offset;
  std::vector<uint8_t> bytes;  // may be spoiled before they are delivered

 private:
  size_t sent_ = 0;
  std::shared_ptr<registry::RangeSink> sink_;
};

class FakeSource : public registry::RangeSource {
 public:
  // Gets each request and its number (from 0) on the source's thread.
  using Script = std::function<void(const std::shared_ptr<FakeRequest>&, uint64_t)>;

  void AddBlob(const Digest& digest, std::vector<uint8_t> bytes);
  // Null (at first): requests wait for Next().
  void SetScript(Script script);
  void ServeEverything() {
    SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t) { request->Serve(); });
  }
  // The next request that no script took; null if none comes within 20 s.
  std::shared_ptr<FakeRequest> Next();
  // True if a request waits now.
  bool HasNext();
  uint64_t requests() const;
  uint64_t requested_bytes() const;

  void Fetch(const registry::BlobRef& blob, uint64_t offset, uint64_t size,
             std::shared_ptr<registry::RangeSink> sink) override;

 private:
  mutable Mutex mu_;
  CondVar came_;
  Script script_;
  std::unordered_map<Digest, std::vector<uint8_t>> blobs_;
  std::deque<std::shared_ptr<FakeRequest>> waiting_;
  uint64_t requests_ = 0;
  uint64_t requested_bytes_ = 0;
  ThreadPool thread_{"fake-net", 1};  // last: gone first
};

}  // namespace headrace::stream

#endif  // HEADRACE_TEST_STREAM_FAKE_SOURCE_H_
