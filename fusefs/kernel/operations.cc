#include "fusefs/kernel/operations.h"

#include <fcntl.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/log.h"
#include "fusefs/kernel/fuse_lowlevel.h"

namespace headrace::kernel {
namespace {

// Content is immutable: names and attributes may be cached for ever (the kernel clamps). Only the root's change, by mounts.
constexpr double kForever = 1e9;
constexpr double kRootAttrSeconds = 1.0;
constexpr size_t kReadDirBytesMax = 1 << 20;

thread_local RequestMark current_request;

OperationsContext& Context(fuse_req_t req) { return *static_cast<OperationsContext*>(fuse_req_userdata(req)); }

// The edge: nothing is thrown through libfuse's C frames. `handler` answers as its last step.
template <typename F>
void Guard(fuse_req_t req, F handler) {
  try {
    handler(Context(req));
  } catch (const std::bad_alloc&) {
    fuse_reply_err(req, ENOMEM);
  } catch (const std::exception& e) {
    log::Error("FUSE handler failed error=\"{}\"", e.what());
    fuse_reply_err(req, EIO);
  }
}

void ReplyError(fuse_req_t req, const Status& status) { fuse_reply_err(req, StatusToErrno(status)); }

double AttrTimeout(vfs::NodeId node) { return node == vfs::kRootNode ? kRootAttrSeconds : kForever; }

fuse_entry_param Entry(const struct stat& attr) {
  fuse_entry_param entry{};
  entry.ino = attr.st_ino;
  entry.attr = attr;
  entry.attr_timeout = AttrTimeout(attr.st_ino);
  entry.entry_timeout = kForever;
  return entry;
}

void OnLookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Guard(req, [&](OperationsContext& context) {
    auto attr = context.vfs.Lookup(parent, name);
    if (attr.ok()) {
      fuse_entry_param entry = Entry(*attr);
      // An answer that nobody takes (the request was aborted) leaves no reference with the kernel.
      if (fuse_reply_entry(req, &entry) == -ENOENT) context.vfs.Forget(attr->st_ino, 1);
      return;
    }
    if (StatusToErrno(attr.status()) == ENOENT && parent != vfs::kRootNode) {
      // Inside a mount a missing name stays missing: the kernel may remember that. In the root it may be mounted next.
      fuse_entry_param absent{};
      absent.entry_timeout = kForever;
      fuse_reply_entry(req, &absent);
      return;
    }
    ReplyError(req, attr.status());
  });
}

void OnForget(fuse_req_t req, fuse_ino_t node, uint64_t n) {
  Context(req).vfs.Forget(node, n);
  fuse_reply_none(req);
}

void OnForgetMulti(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  for (size_t i = 0; i < count; ++i) Context(req).vfs.Forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(req);
}

void OnGetAttr(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  Guard(req, [&](OperationsContext& context) {
    auto attr = context.vfs.GetAttr(node);
    if (!attr.ok()) return ReplyError(req, attr.status());
    fuse_reply_attr(req, &*attr, AttrTimeout(node));
  });
}

void OnReadLink(fuse_req_t req, fuse_ino_t node) {
  Guard(req, [&](OperationsContext& context) {
    auto target = context.vfs.ReadLink(node);
    if (!target.ok()) return ReplyError(req, target.status());
    fuse_reply_readlink(req, target->c_str());
  });
}

// How long an open may wait for the seal: a fraction of what reading the file through the page cache would cost more than passthrough does (about
// 0.3 s a GB, measured), and never long.
std::chrono::milliseconds OpenWait(uint64_t size) {
  constexpr uint64_t kBytesPerMs = 10'000'000;
  constexpr uint64_t kMostMs = 250;
  return std::chrono::milliseconds(std::min(size / kBytesPerMs, kMostMs));
}

void ReplyOpen(OperationsContext& context, fuse_req_t req, fuse_ino_t node, fuse_file_info info,
               const std::shared_ptr<stream::FileContent>& content, uint64_t unique) {
  Result<InodeModes::Opened> opened = context.modes.Open(node, content, unique);
  if (!opened.ok()) {
    log::Error("a file cannot be opened error=\"{}\"", opened.status().ToString());
    fuse_reply_err(req, ENFILE);
    return;
  }
  switch (opened->mode) {
    case IoMode::kPassthrough:
      info.backing_id = opened->backing_id;
      Metrics::Add(context.metrics.fuse_opens_passthrough);
      break;
    case IoMode::kDirect:
      info.direct_io = 1;
      Metrics::Add(context.metrics.fuse_opens_direct);
      break;
    case IoMode::kCached:
      info.keep_cache = 1;
      if (opened->first) opened->content->FetchAll();
      Metrics::Add(context.metrics.fuse_opens_cached);
      break;
  }
  info.noflush = 1;
  info.fh = 0;  // nothing: a handle must mean the same to a successor of this process
  if (!opened->claimed) Metrics::Add(context.metrics.open_files);
  if (fuse_reply_open(req, &info) == -ENOENT) {  // aborted: no release will come
    context.modes.TakeBack(node, opened->answer);
    Metrics::Add(context.metrics.open_files, -1);
  } else {
    context.modes.Answered(opened->answer);
  }
}

void OnOpen(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  const RequestMark mark = current_request;
  Guard(req, [&](OperationsContext& context) {
    if ((info->flags & O_ACCMODE) != O_RDONLY || (info->flags & O_TRUNC) != 0) {
      fuse_reply_err(req, EROFS);
      return;
    }
    auto content = context.vfs.Open(node);
    if (!content.ok()) return ReplyError(req, content.status());
    std::shared_ptr<stream::FileContent> file = std::move(*content);
    const std::chrono::milliseconds patience = OpenWait(file->size());
    if (file->sealed() || !file->complete() || patience.count() == 0) return ReplyOpen(context, req, node, *info, file, mark.unique);
    // A moment's patience makes it a passthrough file for as long as it is open. Not on this thread.
    std::shared_ptr<PendingRead> open = context.reads->Start(req, mark.resent);
    Metrics::Add(context.metrics.fuse_opens_waited);
    file->AwaitSeal(patience, [&context, open, node, info = *info, file, mark] {
      open->Complete([&](fuse_req_t waiting) { ReplyOpen(context, waiting, node, info, file, mark.unique); });
    });
  });
}

void OnRelease(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  Guard(req, [&](OperationsContext& context) {
    const InodeModes::Released released = context.modes.Release(node, current_request.unique);
    if (released.known && !released.claimed) Metrics::Add(context.metrics.open_files, -1);
    fuse_reply_err(req, 0);
    context.modes.Answered(released.answer);
  });
}

void OnRead(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info*) {
  Guard(req, [&](OperationsContext& context) {
    std::shared_ptr<stream::FileContent> content = context.modes.Content(node);
    if (!content) {  // opened before this process began
      auto reopened = context.vfs.Open(node);
      if (!reopened.ok()) return ReplyError(req, reopened.status());
      content = std::move(*reopened);
      context.modes.Keep(node, content);
    }
    context.reads->Start(req, current_request.resent)->ReadFrom(content, static_cast<uint64_t>(offset), size);
  });
}

void OnOpenDir(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  Guard(req, [&](OperationsContext& context) {
    auto attr = context.vfs.GetAttr(node);
    if (!attr.ok()) return ReplyError(req, attr.status());
    if (!S_ISDIR(attr->st_mode)) {
      fuse_reply_err(req, ENOTDIR);
      return;
    }
    if (node != vfs::kRootNode) {
      info->cache_readdir = 1;
      info->keep_cache = 1;
    }
    info->fh = 0;
    fuse_reply_open(req, info);
  });
}

// The kernel's directory buffer, filled until the next entry does not fit.
class DirBuffer {
 public:
  DirBuffer(fuse_req_t req, size_t size, bool plus) : req_(req), buffer_(std::min(size, kReadDirBytesMax)), plus_(plus) {}

  bool Add(const std::string& name, const struct stat& attr, uint64_t cookie) {
    char* at = buffer_.data() + used_;
    size_t room = buffer_.size() - used_;
    size_t need;
    bool counted = plus_ && name != "." && name != "..";
    if (plus_) {
      fuse_entry_param entry = Entry(attr);
      // "." and ".." must not become a lookup: node 0 says so to the kernel, d_ino is still there.
      if (!counted) entry.ino = 0;
      need = fuse_add_direntry_plus(req_, at, room, name.c_str(), &entry, static_cast<off_t>(cookie));
    } else {
      need = fuse_add_direntry(req_, at, room, name.c_str(), &attr, static_cast<off_t>(cookie));
    }
    if (need > room) return false;  // Vfs counts only what was taken
    if (counted) looked_up_.push_back(attr.st_ino);
    used_ += need;
    return true;
  }

  int Reply() { return fuse_reply_buf(req_, buffer_.data(), used_); }
  const std::vector<vfs::NodeId>& looked_up() const { return looked_up_; }

 private:
  fuse_req_t req_;
  std::vector<char> buffer_;
  size_t used_ = 0;
  bool plus_;
  std::vector<vfs::NodeId> looked_up_;
};

void ReadDirectory(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, bool plus) {
  Guard(req, [&](OperationsContext& context) {
    DirBuffer buffer(req, size, plus);
    Status status = context.vfs.ReadDir(node, static_cast<uint64_t>(offset), plus,
                                        [&](const std::string& name, const struct stat& attr, uint64_t next) {
                                          return buffer.Add(name, attr, next);
                                        });
    if (!status.ok()) {
      for (vfs::NodeId id : buffer.looked_up()) context.vfs.Forget(id, 1);
      return ReplyError(req, status);
    }
    if (buffer.Reply() == -ENOENT) {
      for (vfs::NodeId id : buffer.looked_up()) context.vfs.Forget(id, 1);
    }
  });
}

void OnReadDir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info*) {
  ReadDirectory(req, node, size, offset, /*plus=*/false);
}

void OnReadDirPlus(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info*) {
  ReadDirectory(req, node, size, offset, /*plus=*/true);
}

// getxattr(2) and listxattr(2): size 0 asks for the length, a buffer that is too small is ERANGE.
void ReplyXattr(fuse_req_t req, const Result<std::string>& value, size_t size) {
  if (!value.ok()) return ReplyError(req, value.status());
  if (size == 0) {
    fuse_reply_xattr(req, value->size());
  } else if (value->size() > size) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, value->data(), value->size());
  }
}

void OnGetXattr(fuse_req_t req, fuse_ino_t node, const char* name, size_t size) {
  Guard(req, [&](OperationsContext& context) { ReplyXattr(req, context.vfs.GetXattr(node, name), size); });
}

void OnListXattr(fuse_req_t req, fuse_ino_t node, size_t size) {
  Guard(req, [&](OperationsContext& context) { ReplyXattr(req, context.vfs.ListXattr(node), size); });
}

void OnStatFs(fuse_req_t req, fuse_ino_t) {
  Guard(req, [&](OperationsContext& context) {
    struct statvfs st {};
    st.f_bsize = 4096;
    st.f_frsize = 4096;
    st.f_namemax = 255;
    st.f_flag = ST_RDONLY;
    for (const vfs::MountInfo& mount : context.vfs.ListMounts()) {
      st.f_blocks += (mount.size + 4095) / 4096;
      st.f_files += mount.files;
    }
    fuse_reply_statfs(req, &st);
  });
}

void ReadOnly(fuse_req_t req) { fuse_reply_err(req, EROFS); }

void SetReadOnlyHandlers(fuse_lowlevel_ops& ops) {
  ops.setattr = [](fuse_req_t req, fuse_ino_t, struct stat*, int, fuse_file_info*) { ReadOnly(req); };
  ops.mknod = [](fuse_req_t req, fuse_ino_t, const char*, mode_t, dev_t) { ReadOnly(req); };
  ops.mkdir = [](fuse_req_t req, fuse_ino_t, const char*, mode_t) { ReadOnly(req); };
  ops.unlink = [](fuse_req_t req, fuse_ino_t, const char*) { ReadOnly(req); };
  ops.rmdir = [](fuse_req_t req, fuse_ino_t, const char*) { ReadOnly(req); };
  ops.symlink = [](fuse_req_t req, const char*, fuse_ino_t, const char*) { ReadOnly(req); };
  ops.rename = [](fuse_req_t req, fuse_ino_t, const char*, fuse_ino_t, const char*, unsigned) { ReadOnly(req); };
  ops.link = [](fuse_req_t req, fuse_ino_t, fuse_ino_t, const char*) { ReadOnly(req); };
  ops.create = [](fuse_req_t req, fuse_ino_t, const char*, mode_t, fuse_file_info*) { ReadOnly(req); };
  ops.tmpfile = [](fuse_req_t req, fuse_ino_t, mode_t, fuse_file_info*) { ReadOnly(req); };
  ops.write = [](fuse_req_t req, fuse_ino_t, const char*, size_t, off_t, fuse_file_info*) { ReadOnly(req); };
  ops.setxattr = [](fuse_req_t req, fuse_ino_t, const char*, const char*, size_t, int) { ReadOnly(req); };
  ops.removexattr = [](fuse_req_t req, fuse_ino_t, const char*) { ReadOnly(req); };
  ops.fallocate = [](fuse_req_t req, fuse_ino_t, int, off_t, off_t, fuse_file_info*) { ReadOnly(req); };
  ops.copy_file_range = [](fuse_req_t req, fuse_ino_t, off_t, fuse_file_info*, fuse_ino_t, off_t, fuse_file_info*, size_t,
                           int) { ReadOnly(req); };
  ops.ioctl = [](fuse_req_t req, fuse_ino_t, unsigned, void*, fuse_file_info*, unsigned, const void*, size_t, size_t) {
    fuse_reply_err(req, ENOTTY);
  };
}

}  // namespace

void BeginRequest(RequestMark mark) { current_request = mark; }

std::unique_ptr<fuse_lowlevel_ops> MakeOperations() {
  auto ops = std::make_unique<fuse_lowlevel_ops>();
  ops->lookup = OnLookup;
  ops->forget = OnForget;
  ops->forget_multi = OnForgetMulti;
  ops->getattr = OnGetAttr;
  ops->readlink = OnReadLink;
  ops->open = OnOpen;
  ops->read = OnRead;
  ops->release = OnRelease;
  ops->opendir = OnOpenDir;
  ops->readdir = OnReadDir;
  ops->readdirplus = OnReadDirPlus;
  ops->releasedir = [](fuse_req_t req, fuse_ino_t, fuse_file_info*) { fuse_reply_err(req, 0); };
  ops->getxattr = OnGetXattr;
  ops->listxattr = OnListXattr;
  ops->statfs = OnStatFs;
  SetReadOnlyHandlers(*ops);
  return ops;
}

}  // namespace headrace::kernel
