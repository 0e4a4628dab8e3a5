// The identity of one file content in the cache. Pure.
#ifndef HEADRACE_FUSEFS_STREAM_CONTENT_ID_H_
#define HEADRACE_FUSEFS_STREAM_CONTENT_ID_H_

#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/cache/content_file.h"
#include "fusefs/format/layer_index.h"

namespace headrace::stream {

// The cache's spec of a non-empty regular file: its id is the SHA-256 over the size and, for every chunk, its place, kind and
// digest. Two files have the same id only if they have the same bytes, cut alike, whatever their layers claim of them.
// InvalidArgument: the entry's chunks cannot be (format/ checks that; this keeps us from reading out of bounds).
Result<cache::ContentSpec> ContentId(const format::LayerIndex& index, const format::Entry& entry);
// Of every regular file of the layer that has bytes and makes sense; a content that several files have stands there several times.
std::vector<Digest> ContentIds(const format::LayerIndex& index);

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_CONTENT_ID_H_
