#include "test/vfs/vfs_fixture.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace headrace::test {
namespace {

class FakeContent : public stream::FileContent {
 public:
  explicit FakeContent(std::string bytes) : bytes_(std::move(bytes)) {}
  uint64_t size() const override { return bytes_.size(); }
  bool sealed() const override { return false; }
  int backing_fd() const override { return -1; }
  void Read(uint64_t offset, uint64_t size, ReadDone done) override {
    const std::string part = offset < bytes_.size() ? bytes_.substr(offset, size) : "";
    done(OkStatus(), {reinterpret_cast<const uint8_t*>(part.data()), part.size()});
  }
  void FetchAll() override {}

 private:
  const std::string bytes_;
};

}  // namespace

void FakeStreamer::Know(const Digest& blob, const TreeLayer& layer) { layers_[blob] = layer; }

Result<std::shared_ptr<stream::FileContent>> FakeStreamer::Open(std::shared_ptr<const stream::LayerSource> layer,
                                                                uint32_t entry_index) {
  last_image_ref = layer->blob.image_ref;
  const TreeLayer& entries = layers_.at(layer->blob.digest);
  return std::shared_ptr<stream::FileContent>(std::make_shared<FakeContent>(entries.at(entry_index).content));
}

vfs::MountSpec VfsFixture::Spec(uint32_t number, const std::string& id, const std::string& parent,
                                const TreeLayer& layer) {
  const Digest blob = Digest::Of("layer " + std::to_string(number));
  streamer.Know(blob, layer);
  auto source = std::make_shared<stream::LayerSource>();
  source->blob = {"registry.test/model:" + id, blob};
  source->index = std::make_shared<const format::LayerIndex>(ToIndex(layer));
  return {.id = id,
          .parent_id = parent,
          .above_foreign = false,
          .layer_slot = 2 * number,
          .view_slot = 2 * number + 1,
          .layer = std::move(source)};
}

std::string VfsFixture::MountChain(const std::vector<TreeLayer>& layers, uint32_t first, bool above_foreign) {
  std::string id;
  for (uint32_t i = 0; i < layers.size(); ++i) {
    vfs::MountSpec spec = Spec(first + i, std::to_string(first + i), id, layers[i]);
    spec.above_foreign = above_foreign;
    EXPECT_OK(vfs->AddMount(spec));
    id = spec.id;
  }
  return id;
}

Result<struct stat> VfsFixture::Stat(const std::string& path) {
  HR_ASSIGN_OR_RETURN(struct stat st, vfs->GetAttr(vfs::kRootNode));
  for (size_t at = 0; at < path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    HR_ASSIGN_OR_RETURN(st, vfs->Lookup(st.st_ino, std::string_view(path).substr(at, slash - at)));
    at = slash + 1;
  }
  return st;
}

vfs::NodeId VfsFixture::Node(const std::string& path) {
  Result<struct stat> st = Stat(path);
  EXPECT_TRUE(st.ok()) << path << ": " << st.status().ToString();
  return st.ok() ? st->st_ino : 0;
}

std::vector<std::string> VfsFixture::Names(vfs::NodeId node) {
  std::vector<std::string> names;
  EXPECT_OK(vfs->ReadDir(node, 0, false, [&](const std::string& name, const struct stat&, uint64_t) {
    if (name != "." && name != "..") names.push_back(name);
    return true;
  }));
  return names;
}

NodeDump VfsFixture::DumpNode(const struct stat& st) {
  NodeDump node;
  node.mode = st.st_mode;
  node.uid = st.st_uid;
  node.gid = st.st_gid;
  node.rdev = st.st_rdev;
  node.mtime_s = st.st_mtim.tv_sec;
  node.mtime_ns = st.st_mtim.tv_nsec;
  Result<std::string> names = vfs->ListXattr(st.st_ino);
  EXPECT_OK(names);
  for (size_t at = 0; at < names->size(); at += std::string(names->c_str() + at).size() + 1) {
    const std::string name = names->c_str() + at;
    Result<std::string> value = vfs->GetXattr(st.st_ino, name);
    EXPECT_OK(value);
    node.xattrs[name] = *value;
  }
  if (S_ISDIR(st.st_mode)) return node;
  node.size = static_cast<uint64_t>(st.st_size);
  node.nlink = st.st_nlink;
  if (S_ISLNK(st.st_mode)) node.content = *vfs->ReadLink(st.st_ino);
  if (S_ISREG(st.st_mode)) {
    Result<std::shared_ptr<stream::FileContent>> file = vfs->Open(st.st_ino);
    EXPECT_OK(file);
    (*file)->Read(0, node.size, [&](Status status, std::span<const uint8_t> bytes) {
      EXPECT_OK(status);
      node.content.assign(bytes.begin(), bytes.end());
    });
  }
  return node;
}

// The walk checks by the way that ReadDir, Lookup and GetAttr say the same of every node.
TreeDump VfsFixture::Dump(const std::string& id) {
  TreeDump dump;
  std::map<vfs::NodeId, std::string> first;
  std::vector<std::pair<std::string, vfs::NodeId>> todo{{"", Node(id)}};
  std::vector<std::pair<std::string, vfs::NodeId>> files;
  while (!todo.empty()) {
    const auto [path, node] = todo.back();
    todo.pop_back();
    dump[path] = DumpNode(*vfs->GetAttr(node));
    EXPECT_OK(vfs->ReadDir(node, 0, true, [&](const std::string& name, const struct stat& st, uint64_t) {
      if (name == "." || name == "..") return true;
      const std::string child = path.empty() ? name : path + "/" + name;
      Result<struct stat> found = vfs->Lookup(node, name);
      EXPECT_TRUE(found.ok() && std::memcmp(&*found, &st, sizeof st) == 0) << child;
      found = vfs->GetAttr(st.st_ino);
      EXPECT_TRUE(found.ok() && std::memcmp(&*found, &st, sizeof st) == 0) << child;
      if (S_ISDIR(st.st_mode)) {
        todo.emplace_back(child, st.st_ino);
      } else {
        dump[child] = DumpNode(st);
        files.emplace_back(child, st.st_ino);
      }
      return true;
    }));
  }
  std::sort(files.begin(), files.end());
  for (const auto& [path, node] : files) dump[path].group = first.emplace(node, path).first->second;
  return dump;
}

}  // namespace headrace::test
