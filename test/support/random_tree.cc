#include "test/support/random_tree.h"

#include <algorithm>
#include <map>
#include <random>
#include <utility>

namespace headrace::test {
namespace {

using format::EntryType;

std::string Join(const std::string& dir, const std::string& name) { return dir.empty() ? name : dir + "/" + name; }

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool IsUnder(const std::string& path, const std::string& dir) {
  return dir.empty() || (path.size() > dir.size() && path.starts_with(dir) && path[dir.size()] == '/');
}

// Names of a tree: true = directory. The root is "".
using Names = std::map<std::string, bool>;

void EraseUnder(Names& names, const std::string& dir) {
  std::erase_if(names, [&](const auto& n) { return !n.first.empty() && IsUnder(n.first, dir); });
}

class Generator {
 public:
  Generator(uint64_t seed, const RandomTreeOptions& options) : random_(seed), options_(options) {}

  std::vector<TreeLayer> Run() {
    std::vector<TreeLayer> layers;
    for (size_t i = 0; i < options_.layers; ++i) {
      layers.push_back(MakeLayer());
      // What the next layer sees below it.
      for (const std::string& dir : opaque_) EraseUnder(below_, dir);
      for (const std::string& gone : whiteouts_) {
        EraseUnder(below_, gone);
        below_.erase(gone);
      }
      for (const auto& [path, is_dir] : own_) {
        if (!is_dir) EraseUnder(below_, path);
        below_[path] = is_dir;
      }
    }
    return layers;
  }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Chance(int percent) { return Below(100) < static_cast<uint64_t>(percent); }

  TreeLayer MakeLayer() {
    layer_.clear();
    own_ = {{"", true}};
    whiteouts_.clear();
    opaque_.clear();
    linkable_.clear();
    if (!options_.implied_directories || Chance(70)) Push(Dir(""));
    for (size_t i = 0; i < options_.entries_per_layer; ++i) AddSomething();
    return std::move(layer_);
  }

  void AddSomething() {
    const uint64_t dice = Below(100);
    if (dice < 8) return AddWhiteout();
    if (dice < 11) return AddOpaque();
    if (dice < 19) return AddHardlink();
    if (dice < 23) return RepeatEntry();
    const std::string path = NewPath();
    if (path.empty()) return;
    if (dice < 45) return AddDirectory(path);
    AddOther(path, dice);
  }

  // A directory to put something into: one of this layer, or one that shows through from below (then listed,
  // or left implied).
  std::string SomeDirectory() {
    std::vector<std::string> dirs;
    for (const auto& [path, is_dir] : own_) {
      if (is_dir) dirs.push_back(path);
    }
    for (const auto& [path, is_dir] : below_) {
      if (is_dir && CanBeDirectory(path)) dirs.push_back(path);
    }
    std::string dir = dirs[Below(dirs.size())];
    if (Chance(10)) {
      const size_t levels = 1 + Below(6);
      for (size_t i = 0; i < levels && dir.size() < 1000; ++i) dir = Join(dir, RandomName());
    }
    return CanBeDirectory(dir) ? dir : "";
  }

  // No non-directory of this layer, and none of the layers below, is at the path or above it.
  bool CanBeDirectory(const std::string& dir) const {
    for (std::string at = dir;; at = ParentOf(at)) {
      auto own = own_.find(at);
      if (own != own_.end() && !own->second) return false;
      auto below = below_.find(at);
      if (own == own_.end() && below != below_.end() && !below->second) return false;
      if (at.empty()) return true;
    }
  }

  std::string NewPath() {
    const std::string dir = SomeDirectory();
    if (dir.size() > 1400) return "";
    std::string path;
    if (Chance(35)) {  // a name that a lower layer has: replaced, or merged
      std::vector<std::string> names;
      for (const auto& [name, is_dir] : below_) {
        if (!name.empty() && !own_.contains(name) && CanBeDirectory(ParentOf(name))) names.push_back(name);
      }
      if (!names.empty()) path = names[Below(names.size())];
    }
    if (path.empty()) path = Join(dir, RandomName());
    if (own_.contains(path)) return "";
    EnsureParents(path);
    return path;
  }

  void EnsureParents(const std::string& path) {
    const std::string parent = ParentOf(path);
    if (own_.contains(parent)) return;
    EnsureParents(parent);
    own_[parent] = true;
    if (!options_.implied_directories || Chance(60)) Push(WithMeta(Dir(parent)));
  }

  void AddDirectory(const std::string& path) {
    own_[path] = true;
    Push(WithMeta(Dir(path)));
  }

  void AddOther(const std::string& path, uint64_t dice) {
    own_[path] = false;
    TreeEntry entry;
    if (dice < 82) {
      entry = File(path, RandomContent());
    } else if (dice < 91) {
      entry = Symlink(path, Chance(50) ? "../" + RandomName() : "/" + RandomName() + "/x");
    } else if (dice < 94) {
      entry = Device(path, EntryType::kFifo, 0, 0);
    } else {
      const EntryType type = dice < 97 ? EntryType::kCharDevice : EntryType::kBlockDevice;
      entry = Device(path, type, static_cast<uint32_t>(1 + Below(400)), static_cast<uint32_t>(Below(70000)));
    }
    linkable_.push_back(path);
    Push(WithMeta(std::move(entry)));
  }

  void AddHardlink() {
    if (linkable_.empty()) return;
    const std::string target = linkable_[Below(linkable_.size())];
    const std::string path = NewPath();
    if (path.empty()) return;
    own_[path] = false;
    linkable_.push_back(path);
    Push(Hardlink(path, target));
  }

  // The same name once more: the last one wins; older hard links keep the old file.
  void RepeatEntry() {
    std::vector<std::string> names;
    for (const auto& [path, is_dir] : own_) {
      if (!path.empty()) names.push_back(path);
    }
    if (names.empty()) return;
    const std::string path = names[Below(names.size())];
    Push(WithMeta(own_[path] ? Dir(path) : File(path, RandomContent())));
  }

  void AddWhiteout() {
    std::vector<std::string> names;
    for (const auto& [path, is_dir] : below_) {
      if (!path.empty() && CanBeDirectory(ParentOf(path))) names.push_back(path);
    }
    std::string path = names.empty() || Chance(10) ? Join(SomeDirectory(), RandomName()) : names[Below(names.size())];
    const std::string base = path.substr(path.rfind('/') + 1);
    if (base.size() > 250) return;  // ".wh." would not fit
    EnsureParents(path);
    whiteouts_.push_back(path);
    Push(File(Join(ParentOf(path), ".wh." + base)));
  }

  void AddOpaque() {
    const std::string dir = SomeDirectory();
    if (dir.empty()) return;  // of the root, overlayfs ignores it
    const std::string marker = dir + "/.wh..wh..opq";
    EnsureParents(marker);
    opaque_.push_back(dir);
    Push(File(marker));
  }

  std::string RandomName() {
    static const char* const kOdd[] = {"with space", "new\nline", "tab\there", "\xff\xfe\x80", "\xc3\xa4\xc3\xb6",
                                       "-rf", "*", "quote\"'", "back\\slash", "...", ".wh", ".hidden", "wh.x",
                                       "a:b,c=d"};
    const uint64_t dice = Below(100);
    if (dice < 12) return kOdd[Below(std::size(kOdd))];
    if (dice < 14) return std::string(255, static_cast<char>('a' + Below(26)));
    return std::string(1, static_cast<char>('a' + Below(6))) + std::to_string(Below(30));
  }

  std::string RandomContent() {
    std::string content(Chance(20) ? 0 : Below(options_.file_bytes_max + 1), '\0');
    for (char& c : content) c = static_cast<char>(random_());
    return content;
  }

  TreeEntry WithMeta(TreeEntry entry) {
    static const uint32_t kIds[] = {0, 1, 1000, 65534, 65535, 70000, 2097152, 4000000000u};
    static const uint32_t kModes[] = {0755, 0700, 0644, 0600, 04755, 02755, 06711, 01777, 0, 07777, 0444};
    format::Entry& meta = entry.meta;
    meta.mode = kModes[Below(std::size(kModes))];
    meta.uid = kIds[Below(std::size(kIds))];
    meta.gid = kIds[Below(std::size(kIds))];
    meta.mtime_s = static_cast<int64_t>(Below(4'000'000'000)) - (Chance(10) ? 2'000'000'000 : 0);
    meta.mtime_ns = Chance(50) ? 0 : static_cast<uint32_t>(Below(1'000'000'000));
    const bool plain = meta.type == EntryType::kRegular || meta.type == EntryType::kDirectory;
    const std::string digit = std::to_string(Below(4));
    if (plain && Chance(20)) meta.xattrs.emplace_back("user.k" + digit, RandomContent().substr(0, 200));
    if (Chance(10)) meta.xattrs.emplace_back("trusted.t" + digit, "v" + digit);
    if (meta.type == EntryType::kRegular && Chance(10)) {
      // struct vfs_cap_data, revision 2: CAP_NET_BIND_SERVICE permitted, effective.
      std::string value(20, '\0');
      value.replace(0, 6, std::string("\x01\0\0\x02\0\x04", 6));
      meta.xattrs.emplace_back("security.capability", value);
    }
    if (Chance(5)) meta.xattrs.emplace_back("trusted.overlay.opaque", "y");  // an image must not be able to say that
    return entry;
  }

  void Push(TreeEntry entry) { layer_.push_back(std::move(entry)); }

  std::mt19937_64 random_;
  const RandomTreeOptions options_;
  Names below_ = {{"", true}};  // merged view of the finished layers
  TreeLayer layer_;
  Names own_;                   // of the layer in the making; implied directories included
  std::vector<std::string> whiteouts_, opaque_, linkable_;
};

TreeEntry Make(EntryType type, const std::string& name, uint32_t mode) {
  TreeEntry entry;
  entry.meta.type = type;
  entry.meta.name = name;
  entry.meta.mode = mode;
  return entry;
}

}  // namespace

std::vector<TreeLayer> RandomLayers(uint64_t seed, const RandomTreeOptions& options) {
  return Generator(seed, options).Run();
}

TreeEntry Dir(const std::string& name, uint32_t mode) { return Make(EntryType::kDirectory, name, mode); }

TreeEntry File(const std::string& name, const std::string& content, uint32_t mode) {
  TreeEntry entry = Make(EntryType::kRegular, name, mode);
  entry.content = content;
  entry.meta.size = content.size();
  return entry;
}

TreeEntry Symlink(const std::string& name, const std::string& target) {
  TreeEntry entry = Make(EntryType::kSymlink, name, 0777);
  entry.meta.link_target = target;
  return entry;
}

TreeEntry Hardlink(const std::string& name, const std::string& target) {
  TreeEntry entry = Make(EntryType::kHardlink, name, 0644);
  entry.meta.link_target = target;
  return entry;
}

TreeEntry Device(const std::string& name, EntryType type, uint32_t major, uint32_t minor) {
  TreeEntry entry = Make(type, name, 0644);
  entry.meta.dev_major = major;
  entry.meta.dev_minor = minor;
  return entry;
}

format::LayerIndex ToIndex(const TreeLayer& layer) {
  format::LayerIndex index;
  for (const TreeEntry& item : layer) {
    format::Entry entry = item.meta;
    entry.first_chunk = static_cast<uint32_t>(index.chunks.size());
    if (entry.type == EntryType::kRegular) {
      entry.size = item.content.size();
      entry.file_digest = Digest::Of(item.content);
      if (!item.content.empty()) {
        index.chunks.push_back({.file_offset = 0,
                                .size = entry.size,
                                .blob_offset = index.blob_size,
                                .blob_size = entry.size,
                                .kind = format::ChunkKind::kStored,
                                .digest = entry.file_digest});
        index.blob_size += entry.size;
        entry.chunk_count = 1;
      }
    }
    index.entries.push_back(std::move(entry));
  }
  return index;
}

}  // namespace headrace::test
