// ScanTree: a directory on disk as the entries of an image, in the order and with the metadata that they will have there.
//
// Reproducible: entries are sorted by the bytes of their path; owners are the given ones; times are whole seconds, at most
// `time_max` unless kept; permission bits (with setuid, setgid, sticky), symbolic links, hard links, fifos, device nodes and the
// extended attributes user.* and security.capability are kept. Of hard links the first name is the file, the others point to it.
// The directory itself and the components of `prefix` have mode 0755 and time `time_max`, whatever the source has, so that a
// private working directory makes a readable image.
// Sockets are left out with a warning. A name that starts with ".wh." is an error: images would take it for a deletion.
// Blocks on the disk; any thread. Limits: names of 4096 bytes, 4 million entries.
#ifndef HEADRACE_SNAPSHOTTER_CLI_TREE_SCAN_H_
#define HEADRACE_SNAPSHOTTER_CLI_TREE_SCAN_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::cli {

// What tells that a file is still what it was when it was scanned.
struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  uint64_t size = 0;
  bool operator==(const FileStamp&) const = default;
};

struct ScannedFile {
  format::Entry entry;   // the name is the path in the image
  std::string source;    // path on disk; "" for directories that only the image has
  FileStamp stamp;       // regular files
};

struct ScanOptions {
  std::string prefix;    // clean path in the image under which the tree goes; "" = its root
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t time_max = 0;
  bool keep_mtime = false;
};

struct Tree {
  std::vector<ScannedFile> files;
  std::vector<std::string> warnings;
};

Result<Tree> ScanTree(const std::string& dir, const ScanOptions& options);

// "/models/" -> "models"; InvalidArgument for what cannot be a path in an image ("..", empty components, too long).
Result<std::string> CleanImagePath(std::string_view text);

// Reads a scanned regular file in pieces; Aborted, naming the file, if it is not what was scanned or changes meanwhile.
Status ReadScannedFile(const ScannedFile& file, const std::function<Status(std::span<const uint8_t>)>& sink);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_TREE_SCAN_H_
