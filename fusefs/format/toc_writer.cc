#include "fusefs/format/toc_writer.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_set>

#include "fusefs/base/text.h"
#include "fusefs/format/json_text.h"
#include "fusefs/format/name.h"
#include "fusefs/format/rfc3339.h"

namespace headrace::format {
namespace {

constexpr uint64_t kLinkMovesMax = 100'000'000;  // seconds

class Object {  // writes "{...}", leaving out what is empty, as the format does
 public:
  explicit Object(std::string& out) : out_(out) { out_ += '{'; }
  void Text(std::string_view key, std::string_view value) {
    if (value.empty()) return;
    Key(key);
    AppendJsonString(out_, value);
  }
  void Number(std::string_view key, uint64_t value) {
    if (value == 0) return;
    Key(key);
    out_ += std::to_string(value);
  }
  void Signed(std::string_view key, int64_t value) {
    if (value == 0) return;
    Key(key);
    out_ += std::to_string(value);
  }
  void Bytes(std::string_view key, std::string_view value) { Text(key, Base64Encode(value)); }
  void Key(std::string_view key) {
    if (!first_) out_ += ',';
    first_ = false;
    AppendJsonString(out_, key);
    out_ += ':';
  }
  void Close() { out_ += '}'; }

 private:
  std::string& out_;
  bool first_ = true;
};

void ChunkFields(Object& object, const Chunk& chunk, bool whole_file) {
  if (whole_file) return;
  object.Number("chunkSize", chunk.size);
  object.Number("chunkOffset", chunk.file_offset);
  if (chunk.kind == ChunkKind::kZeros) {
    object.Text("chunkType", "zeros");
  } else {
    object.Text("chunkDigest", chunk.digest.ToString());
  }
}

void AppendEntry(std::string& out, const WrittenEntry& entry) {
  const TarEntry& tar = entry.tar;
  Object object(out);
  object.Text("type", TypeName(tar.type));
  object.Text("name", tar.name);
  if (!IsUtf8(tar.name)) object.Bytes("nameRaw", tar.name);
  object.Text("linkName", tar.link_target);
  if (!IsUtf8(tar.link_target)) object.Bytes("linkNameRaw", tar.link_target);
  object.Signed("mode", tar.mode);
  object.Number("size", tar.size);
  object.Signed("uid", tar.uid);
  object.Signed("gid", tar.gid);
  object.Text("modtime", FormatRfc3339(tar.mtime));
  if (tar.atime) object.Text("accesstime", FormatRfc3339(*tar.atime));
  if (tar.ctime) object.Text("changetime", FormatRfc3339(*tar.ctime));
  object.Signed("devMajor", tar.dev_major);
  object.Signed("devMinor", tar.dev_minor);
  if (!tar.xattrs.empty()) {
    object.Key("xattrs");
    Object xattrs(out);
    for (const auto& [name, value] : tar.xattrs) {
      xattrs.Key(name);
      AppendJsonString(out, Base64Encode(value));
    }
    xattrs.Close();
  }
  if (!entry.file_digest.empty()) object.Text("digest", entry.file_digest.ToString());
  const bool one_piece = entry.chunks.size() == 1 && !entry.file_digest.empty();
  if (!entry.chunks.empty()) {
    object.Number("offset", entry.chunks[0].blob_offset);
    object.Number("endOffset", entry.end_offset);
    ChunkFields(object, entry.chunks[0], one_piece);
  }
  object.Close();
  for (size_t i = 1; i < entry.chunks.size(); ++i) {
    const Chunk& chunk = entry.chunks[i];
    out += ',';
    Object piece(out);
    piece.Text("type", "chunk");
    piece.Text("name", tar.name);
    if (!IsUtf8(tar.name)) piece.Bytes("nameRaw", tar.name);
    piece.Number("offset", chunk.blob_offset);
    piece.Number("endOffset", chunk.blob_offset + chunk.blob_size);
    ChunkFields(piece, chunk, false);
    piece.Close();
  }
}

bool HasDuplicates(const std::vector<WrittenEntry>& entries) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(entries.size());
  return std::any_of(entries.begin(), entries.end(),
                     [&](const WrittenEntry& e) { return !seen.insert(e.clean_name).second; });
}

bool TimeFits(const TarTime& time) { return time.seconds >= kRfc3339Min && time.seconds <= kRfc3339Max; }

}  // namespace

std::string_view TypeName(char type) {
  switch (type) {
    case '1': return "hardlink";
    case '2': return "symlink";
    case '3': return "char";
    case '4': return "block";
    case '5': return "dir";
    case '6': return "fifo";
    default: return "reg";
  }
}

bool IsPortable(const TarEntry& entry) {
  const bool plain_type = entry.type >= '0' && entry.type <= '6';
  return plain_type && !entry.is_sparse && IsUtf8(entry.name) && IsUtf8(entry.link_target) &&
         TimeFits(entry.mtime) && (!entry.atime || TimeFits(*entry.atime)) &&
         (!entry.ctime || TimeFits(*entry.ctime)) &&
         std::all_of(entry.xattrs.begin(), entry.xattrs.end(), [](const auto& x) { return IsUtf8(x.first); });
}

Result<bool> DropOverwritten(std::vector<WrittenEntry>& entries) {
  if (!HasDuplicates(entries)) return false;
  std::map<std::string, size_t> live;                // clean name -> entry
  std::multimap<std::string, size_t> links;          // clean target -> hard links to it
  std::vector<bool> dropped(entries.size(), false);
  uint64_t moves = 0;  // of hard links; a tar can be made such that they are quadratic
  // Takes out entry `i`, which is in `live`. Its other names keep the content: the first becomes the file.
  const auto drop = [&](size_t i) {
    dropped[i] = true;
    auto [begin, end] = links.equal_range(entries[i].clean_name);
    size_t heir = entries.size();
    std::vector<size_t> others;
    for (auto it = begin; it != end; ++it) {
      if (dropped[it->second]) continue;
      if (heir == entries.size()) {
        heir = it->second;
      } else {
        others.push_back(it->second);
      }
    }
    links.erase(begin, end);
    if (heir == entries.size()) return;
    TarEntry tar = entries[i].tar;
    tar.name = entries[heir].tar.name;
    const std::string name = entries[heir].clean_name;
    entries[heir] = entries[i];
    entries[heir].tar = std::move(tar);
    entries[heir].clean_name = name;
    if (entries[heir].tar.type == '1') {  // a link to a link: it still points to the other's target
      auto target = CleanName(entries[heir].tar.link_target);
      if (target.ok()) links.emplace(*target, heir);
    }
    for (size_t other : others) {
      entries[other].tar.link_target = name;
      links.emplace(name, other);
    }
    moves += others.size();
  };
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string name = entries[i].clean_name;
    if (auto old = live.find(name); old != live.end()) {
      const bool both_dirs = entries[i].tar.type == '5' && entries[old->second].tar.type == '5';
      drop(old->second);
      live.erase(old);
      const std::string prefix = name + "/";
      for (auto it = live.lower_bound(prefix); !both_dirs && it != live.end() && it->first.starts_with(prefix);) {
        drop(it->second);
        it = live.erase(it);
      }
    }
    if (moves > kLinkMovesMax) return ResourceExhaustedError("tar overwrites hard-linked files too often");
    live.emplace(name, i);
    if (entries[i].tar.type == '1') {
      HR_ASSIGN_OR_RETURN(std::string target, CleanName(entries[i].tar.link_target));
      links.emplace(std::move(target), i);
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (dropped[i]) continue;
    if (kept != i) entries[kept] = std::move(entries[i]);
    ++kept;
  }
  entries.resize(kept);
  return true;
}

std::string TocJson(const std::vector<WrittenEntry>& entries, const Digest& tar_split_digest) {
  std::string out = "{\"version\":1,\"entries\":[";
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i != 0) out += ',';
    AppendEntry(out, entries[i]);
  }
  out += ']';
  if (!tar_split_digest.empty()) out += ",\"tarSplitDigest\":\"" + tar_split_digest.ToString() + '"';
  return out + "}";
}

}  // namespace headrace::format
