// LearnLayer: reads a layer that has no table of contents, whole and once, at the speed of the wire: its files go to the cache, its table comes back, and both are
// believed only because the blob has the digest that the manifest says and its tar the DiffID that the config says.
//
// Blocks the calling thread (and one more that it starts) for as long as the layer takes to come. The calling thread fetches, hashes the blob and decompresses; the other one hashes the
// tar and its chunks and writes files. Any number at a time; memory: BlobReader's ranges and 16 MiB each.
// What is written to the cache is stored under the digests of what was written: a layer that turns out wrong leaves good bytes that nobody asks for.
// Errors: DataLoss (blob or tar are not what they should be, after two more tries if mirrors had part in it), InvalidArgument (not a tar that container runtimes unpack),
// ResourceExhausted, Cancelled, and what the registry said.
#ifndef HEADRACE_FUSEFS_STREAM_LEARN_LAYER_H_
#define HEADRACE_FUSEFS_STREAM_LEARN_LAYER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/registry/range_source.h"
#include "fusefs/stream/blob_reader.h"

namespace headrace::stream {

struct LearnRequest {
  registry::BlobRef blob;  // with its size
  Digest diff_id;
  BlobReaderOptions reader;
  std::function<bool()> cancelled;               // asked from two threads
  std::atomic<uint64_t>* done_bytes = nullptr;   // of the blob
};

struct LearnedTable {
  std::string table;     // for format::ReadLearnedTable
  bool decoded = false;  // the blob is compressed: offsets are those of its tar
};

Result<LearnedTable> LearnLayer(const LearnRequest& request, registry::RangeSource& source, cache::ContentStore& cache);

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_LEARN_LAYER_H_
