// BlobPlaces: a blob that several mounted images share is fetched from any of their repositories: in front of a source that asks the repository it is told.
//
// The places of a blob are the repositories of the images whose mounts show a layer of it (Add, Remove; counted). A fetch begins at the repository that it names, if that is a
// place; when it fails before a byte came, the next place is asked within the same attempt. A repository that failed rests: for this blob if it looks permanent (it is gone, the
// credentials do not do any more, its bytes were wrong), its whole registry if not, for as long as that asked for if it did; while others may be asked, it is not.
// A blob of one place is passed through as it is. What comes is verified by its digests, as always.
// Threads: everything from any thread; nothing blocks. The source outlives every call that it makes; this object may go before that.
#ifndef HEADRACE_FUSEFS_STREAM_BLOB_PLACES_H_
#define HEADRACE_FUSEFS_STREAM_BLOB_PLACES_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/metrics.h"
#include "fusefs/registry/range_source.h"

namespace headrace::stream {

class BlobPlaces : public registry::RangeSource {
 public:
  // As long as mirrors rest (registry/limits.h).
  static constexpr std::chrono::milliseconds kRest{30'000};

  // `source` and `metrics` outlive the source's last call.
  BlobPlaces(registry::RangeSource& source, Metrics& metrics, std::chrono::milliseconds rest = kRest);
  ~BlobPlaces() override;

  // A mount shows a layer of this blob, or does not any more. References that cannot be parsed are no places.
  void Add(const Digest& blob, const std::string& image_ref);
  void Remove(const Digest& blob, const std::string& image_ref);

  // If every place fails, the status is that of one whose failure does not look permanent, else of the first one, and tells what the others said.
  void Fetch(const registry::BlobRef& blob, uint64_t offset, uint64_t size, std::shared_ptr<registry::RangeSink> sink) override;
  // Of source 0: the place whose bytes came last rests for this blob.
  void ReportWrongBytes(const registry::BlobRef& blob, uint64_t source) override;

 private:
  class State;
  class Attempt;
  registry::RangeSource& source_;
  const std::shared_ptr<State> state_;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_BLOB_PLACES_H_
