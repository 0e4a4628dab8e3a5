#include "snapshotter/cli/layout_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "fusefs/base/file.h"

namespace headrace::cli {
namespace {

constexpr std::string_view kMarker = R"({"imageLayoutVersion":"1.0.0"})";
constexpr size_t kReadSize = 256 << 10;  // stays in a core's cache until it is hashed or copied

std::string BlobPath(const std::string& root, const Digest& digest) { return root + "/blobs/sha256/" + digest.Hex(); }

Status CheckMarker(const std::string& root) {
  Result<std::string> marker = ReadFile(root + "/oci-layout", 4096);
  if (!marker.ok()) return marker.status().Annotate(root + " is not an OCI layout directory");
  if (marker->find("\"imageLayoutVersion\"") == std::string::npos || marker->find("\"1.") == std::string::npos) {
    return InvalidArgumentError(root + "/oci-layout: not a layout of version 1");
  }
  return {};
}

class LayoutReader : public ImageReader {
 public:
  explicit LayoutReader(LayoutLocation location) : location_(std::move(location)) {}
  std::string name() const override { return Location{location_}.ToString(); }
  const registry::Reference* reference() const override { return nullptr; }

  Result<Document> Root() override {
    HR_ASSIGN_OR_RETURN(std::string body, ReadFile(location_.path + "/index.json", kDocumentBytesMax));
    Result<Index> index = ParseIndex(body);
    if (!index.ok()) return index.status().Annotate(location_.path + "/index.json");
    HR_ASSIGN_OR_RETURN(Descriptor chosen, Choose(*index));
    return Child(chosen);
  }

  Result<Document> Child(const Descriptor& descriptor) override {
    HR_ASSIGN_OR_RETURN(std::string body, ReadBlob(*this, descriptor, kDocumentBytesMax));
    return Document{std::move(body), descriptor.media_type, descriptor.digest};
  }

  Status Blob(const Descriptor& d, Verified by, const Sink& sink) override {
    HR_ASSIGN_OR_RETURN(UniqueFd fd, Open(d));
    static_cast<void>(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL));  // only advice
    std::vector<uint8_t> buffer(std::min<uint64_t>(kReadSize, d.size + 1));
    Sha256 hash;
    for (uint64_t offset = 0; offset < d.size;) {
      const size_t want = static_cast<size_t>(std::min<uint64_t>(buffer.size(), d.size - offset));
      Result<size_t> got = PreadFull(fd.get(), std::span(buffer).first(want), offset);
      if (!got.ok()) return got.status().Annotate(Where(d));
      if (*got != want) return DataLossError(Where(d) + ": shorter than when it was opened");
      if (by == Verified::kHere) hash.Update(std::span(buffer).first(want));
      HR_RETURN_IF_ERROR(sink(std::span(buffer).first(want)));
      offset += want;
    }
    if (by == Verified::kByCaller) return {};
    if (const Digest actual = hash.Finish(); actual != d.digest) {
      return DataLossError(Where(d) + ": damaged, its digest is " + actual.ToString());
    }
    return {};
  }

  Result<std::string> BlobRange(const Descriptor& d, uint64_t offset, uint64_t size) override {
    HR_ASSIGN_OR_RETURN(UniqueFd fd, Open(d));
    if (offset > d.size || size > d.size - offset) return OutOfRangeError(Where(d) + ": range outside the blob");
    std::string out(size, '\0');
    Result<size_t> got = PreadFull(fd.get(), {reinterpret_cast<uint8_t*>(out.data()), out.size()}, offset);
    if (!got.ok()) return got.status().Annotate(Where(d));
    if (*got != size) return DataLossError(Where(d) + ": shorter than when it was opened");
    return out;
  }

 private:
  std::string Where(const Descriptor& d) const { return location_.path + ": blob " + d.digest.ToString(); }

  Result<UniqueFd> Open(const Descriptor& d) const {
    Result<UniqueFd> fd = OpenFile(BlobPath(location_.path, d.digest), O_RDONLY);
    if (!fd.ok()) return fd.status().Annotate(Where(d));
    struct stat st;
    if (::fstat(fd->get(), &st) != 0) return Status::FromErrno(errno, Where(d));
    if (!S_ISREG(st.st_mode) || static_cast<uint64_t>(st.st_size) != d.size) {
      return DataLossError(Where(d) + ": has " + std::to_string(st.st_size) + " bytes, its descriptor says " +
                           std::to_string(d.size));
    }
    return fd;
  }

  Result<Descriptor> Choose(const Index& index) const {
    std::string tags;
    std::vector<Descriptor> found;
    for (const Descriptor& d : index.manifests) {
      auto it = d.annotations.find(std::string(kRefNameAnnotation));
      const std::string tag = it == d.annotations.end() ? "" : it->second;
      if (!tag.empty()) tags += " " + tag;
      const bool tag_fits = location_.tag.empty() || tag == location_.tag;
      const bool digest_fits = !location_.digest || d.digest == *location_.digest;
      if (tag_fits && digest_fits) found.push_back(d);
    }
    if (found.size() == 1) return found[0];
    const std::string have = tags.empty() ? "; it has no tags" : "; it has the tags:" + tags;
    if (found.empty()) return NotFoundError(name() + ": no such image in the layout" + have);
    return InvalidArgumentError(name() + ": the layout has " + std::to_string(found.size()) +
                                " images for that; name one as oci:PATH:TAG or oci:PATH@DIGEST" + have);
  }

  LayoutLocation location_;
};

class LayoutWriter : public ImageWriter {
 public:
  LayoutWriter(LayoutLocation location, std::unique_ptr<Staging> staging)
      : location_(std::move(location)), staging_(std::move(staging)) {}
  std::string name() const override { return Location{location_}.ToString(); }
  Staging& staging() override { return *staging_; }

  Result<bool> Has(const Descriptor& blob) override {
    struct stat st;
    if (::stat(BlobPath(location_.path, blob.digest).c_str(), &st) != 0) {
      if (errno == ENOENT) return false;
      return Status::FromErrno(errno, "stat " + BlobPath(location_.path, blob.digest));
    }
    return S_ISREG(st.st_mode) && static_cast<uint64_t>(st.st_size) == blob.size;
  }

  Status PutStaged(StagedBlob& staged, const Digest& digest, const Progress& progress) override {
    HR_RETURN_IF_ERROR(staged.Close(Durable::kYes));
    const std::string path = BlobPath(location_.path, digest);
    if (::rename(staged.path().c_str(), path.c_str()) != 0) {
      if (errno != EXDEV) return Status::FromErrno(errno, "rename to " + path);
      return InvalidArgumentError("--tmp-dir is on another file system than the layout " + location_.path +
                                  "; leave it out");
    }
    staged.Disown();
    if (progress) progress(staged.size());
    return FsyncDir(location_.path + "/blobs/sha256");
  }

  Status PutBlob(const Digest& digest, std::string_view content) override {
    return WriteFileAtomic(BlobPath(location_.path, digest), content, 0644);
  }

  // Within one file system this could be a hard link, but a layout whose blobs change with another one's is a trap.
  Result<bool> TakeOver(const Descriptor& blob, const ImageReader&) override { return Has(blob); }

  Status PutChild(const Document& document) override { return PutBlob(document.digest, document.body); }

  Status PutRoot(const Document& document) override {
    HR_RETURN_IF_ERROR(PutChild(document));
    HR_ASSIGN_OR_RETURN(UniqueFd lock, OpenFile(location_.path, O_RDONLY | O_DIRECTORY));
    while (::flock(lock.get(), LOCK_EX) != 0) {
      if (errno != EINTR) return Status::FromErrno(errno, "lock " + location_.path);
    }
    const std::string path = location_.path + "/index.json";
    std::string old;
    if (::access(path.c_str(), F_OK) == 0) {
      HR_ASSIGN_OR_RETURN(old, ReadFile(path, kDocumentBytesMax));
    }
    Descriptor entry{document.media_type, document.digest, document.body.size(), {}, {}, false};
    HR_ASSIGN_OR_RETURN(std::string index, PutLayoutEntry(old, entry, location_.tag));
    return WriteFileAtomic(path, index, 0644);
  }

 private:
  LayoutLocation location_;
  std::unique_ptr<Staging> staging_;
};

bool IsEmptyDir(const std::string& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), [](DIR* d) { return ::closedir(d); });
  if (!dir) return false;
  while (dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") return false;
  }
  return true;
}

// A directory that is there must be a layout or empty: a mistyped path is not to be filled with blobs.
Status Prepare(const std::string& root) {
  HR_RETURN_IF_ERROR(MakeDirs(root, 0755));
  const std::string marker = root + "/oci-layout";
  if (::access(marker.c_str(), F_OK) == 0) {
    HR_RETURN_IF_ERROR(CheckMarker(root));
  } else if (IsEmptyDir(root)) {
    HR_RETURN_IF_ERROR(WriteFileAtomic(marker, kMarker, 0644));
  } else {
    return AlreadyExistsError(root + " has files and is not an OCI layout; name an empty or new directory");
  }
  return MakeDirs(root + "/blobs/sha256", 0755);
}

}  // namespace

Result<std::unique_ptr<ImageReader>> OpenLayoutReader(const LayoutLocation& location) {
  HR_RETURN_IF_ERROR(CheckMarker(location.path));
  return std::unique_ptr<ImageReader>(new LayoutReader(location));
}

Result<std::unique_ptr<ImageWriter>> OpenLayoutWriter(const LayoutLocation& location, const StoreOptions& options) {
  LayoutLocation target = location;
  if (target.digest) {
    return InvalidArgumentError(Location{target}.ToString() + ": a target is named by a tag, its digest is the outcome");
  }
  if (target.tag.empty()) target.tag = "latest";
  HR_RETURN_IF_ERROR(Prepare(target.path));
  const std::string parent = options.tmp_dir.empty() ? target.path : options.tmp_dir;
  HR_ASSIGN_OR_RETURN(std::unique_ptr<Staging> staging, Staging::Create(parent, Staging::ReadBack::kNever, options.interrupt));
  return std::unique_ptr<ImageWriter>(new LayoutWriter(std::move(target), std::move(staging)));
}

}  // namespace headrace::cli
