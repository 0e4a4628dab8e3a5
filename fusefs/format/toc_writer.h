// From the entries of a tar (with where their chunks went) to the JSON of a table of contents. Internal to format/.
#ifndef HEADRACE_FUSEFS_FORMAT_TOC_WRITER_H_
#define HEADRACE_FUSEFS_FORMAT_TOC_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/format/tar_header.h"

namespace headrace::format {

struct WrittenEntry {
  TarEntry tar;
  std::string clean_name;
  Digest file_digest;
  std::vector<Chunk> chunks;
  uint64_t end_offset = 0;  // in the blob, behind the last chunk
};

// A tar may have several entries of one name; unpacking it, the last one wins. Takes out what would not be there in the end
// (a table of contents has each name once). True if anything was.
Result<bool> DropOverwritten(std::vector<WrittenEntry>& entries);

// True if containers/storage makes the same of this entry as we do: its checks of a table of contents against a tar-split pass.
bool IsPortable(const TarEntry& entry);

// "reg", "dir", ...: how a table calls the type of a tar entry.
std::string_view TypeName(char type);

std::string TocJson(const std::vector<WrittenEntry>& entries, const Digest& tar_split_digest);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TOC_WRITER_H_
