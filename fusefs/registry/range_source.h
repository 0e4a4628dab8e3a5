// RangeSource: the seam between stream/ and the network: "these bytes of this blob", delivered as they arrive.
// Implemented by registry::Client (libcurl) and by the fakes of the tests.
#ifndef HEADRACE_FUSEFS_REGISTRY_RANGE_SOURCE_H_
#define HEADRACE_FUSEFS_REGISTRY_RANGE_SOURCE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/seek_point.h"
#include "fusefs/base/status.h"

namespace headrace::registry {

// Where a blob is: an image reference as pulled ("host[:port]/repo[:tag][@digest]") and the blob's digest.
struct BlobRef {
  std::string image_ref;
  Digest digest;
  // Offsets are those of the tar that the blob decompresses to (a gzip or zstd layer without an index), not of the blob. Only what
  // stands in front of the registry client (stream/) can answer that.
  bool decoded = false;
  uint64_t size = 0;  // of the blob, where that is known; needed if `decoded`
  std::shared_ptr<const SeekPoints> seek_points;  // if `decoded`: where its decoding may begin; may be null
};

// Receives one range. Calls come from the source's own network thread, one at a time, in order: OnData* then OnDone once.
// They must not block. Bytes are NOT verified; that is the receiver's duty.
class RangeSink {
 public:
  virtual ~RangeSink() = default;
  // Who answers, before its first OnData: 0 is the registry itself, other numbers are mirrors in its place (ReportWrongBytes names them).
  // May be called again with OnData following if the first one failed before it had delivered anything.
  virtual void OnSource(uint64_t source) { static_cast<void>(source); }
  // The next bytes of the range. false: stop, OnDone(Cancelled) follows.
  virtual bool OnData(std::span<const uint8_t> data) = 0;
  // OK: exactly the asked bytes were delivered. Otherwise how it failed (the message names registry, repository and blob):
  // Unavailable, DeadlineExceeded, ResourceExhausted (429) are worth another try; NotFound, PermissionDenied, Unauthenticated
  // and InvalidArgument (a registry that ignores ranges...) hardly. status.retry_after(): not before that, the registry says (a minute at most).
  virtual void OnDone(Status status) = 0;
};

class RangeSource {
 public:
  virtual ~RangeSource() = default;
  // Starts fetching [offset, offset + size) of the blob; never blocks; the sink is kept until OnDone. One attempt (with credentials renewed
  // and redirects followed); the caller retries. An attempt has its own time limits: connect, and stall (no byte for a while).
  virtual void Fetch(const BlobRef& blob, uint64_t offset, uint64_t size, std::shared_ptr<RangeSink> sink) = 0;
  // Bytes that `source` (RangeSink::OnSource) gave for this blob are not what their digest says: it is not asked again. Never blocks; a blob's only registry
  // (0) is always asked again.
  virtual void ReportWrongBytes(const BlobRef& blob, uint64_t source) {
    static_cast<void>(blob);
    static_cast<void>(source);
  }
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_RANGE_SOURCE_H_
