// The patterns that read with system calls into buffers of their own.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "integration/tools/bench/common.h"
#include "integration/tools/bench/replay_session.h"

namespace headrace::bench {
namespace {

// read(2) until `size` bytes are there, as every loader loops.
void ReadFull(int fd, uint8_t* out, uint64_t size, const std::string& name) {
  while (size > 0) {
    const ssize_t count = read(fd, out, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) FailErrno("read " + name);
    if (count == 0) Fail(name + " ends early");
    out += count;
    size -= static_cast<uint64_t>(count);
  }
}

// Reads with read(2) of `block` bytes into one thread's ring.
class ForwardReader {
 public:
  ForwardReader(ReplaySession& session, Ring& ring, uint64_t block) : session_(session), ring_(ring), block_(block) {}
  // From where fd stands, which is range.begin.
  void Read(const Piece& range, int fd) {
    const ModelFile& file = session_.model().shards[range.file];
    for (uint64_t at = range.begin; at < range.end; at += block_) {
      const uint64_t size = std::min(block_, range.end - at);
      uint8_t* const out = ring_.Next(size);
      ReadFull(fd, out, size, file.path);
      session_.Arrived(file);
      session_.Take(file, at, out, size);
    }
  }

 private:
  ReplaySession& session_;
  Ring& ring_;
  const uint64_t block_;
};

// Files that are opened when a thread first needs them, each once.
class SharedFiles {
 public:
  SharedFiles(ReplaySession& session, int flags)
      : session_(session), flags_(flags), fds_(session.model().shards.size()), once_(fds_.size()) {}
  int Fd(size_t file) {
    std::call_once(once_[file], [&] { fds_[file] = session_.Open(session_.model().shards[file], flags_); });
    return fds_[file].get();
  }

 private:
  ReplaySession& session_;
  int flags_;
  std::vector<UniqueFd> fds_;
  std::vector<std::once_flag> once_;
};

// libaio's interface without libaio: one context, one thread.
class AioContext {
 public:
  explicit AioContext(unsigned depth) {
    if (syscall(SYS_io_setup, depth, &context_) != 0) FailErrno("io_setup");
  }
  ~AioContext() { syscall(SYS_io_destroy, context_); }
  AioContext(const AioContext&) = delete;
  AioContext& operator=(const AioContext&) = delete;
  void Submit(iocb* request) {
    while (syscall(SYS_io_submit, context_, 1L, &request) != 1) {
      if (errno != EINTR && errno != EAGAIN) FailErrno("io_submit");
    }
  }
  // At least one.
  size_t Wait(std::vector<io_event>& events) {
    for (;;) {
      const long count = syscall(SYS_io_getevents, context_, 1L, static_cast<long>(events.size()), events.data(), nullptr);
      if (count > 0) return static_cast<size_t>(count);
      if (count < 0 && errno != EINTR) FailErrno("io_getevents");
    }
  }

 private:
  aio_context_t context_ = 0;
};

struct DirectRead {
  iocb request{};
  Piece piece;
  uint8_t* buffer = nullptr;
};

uint64_t UpToPage(uint64_t size) { return (size + kPage - 1) / kPage * kPage; }

}  // namespace

void RunFilePerThread(ReplaySession& session) {
  const std::vector<ModelFile>& files = session.model().shards;
  std::atomic<size_t> next{0};
  session.Parallel([&](unsigned thread) {
    ForwardReader reader(session, session.ring(thread), 16 * kMib);
    for (size_t i; (i = next++) < files.size();) {
      const UniqueFd fd = session.Open(files[i], 0);
      reader.Read({i, 0, files[i].size}, fd.get());
    }
  });
}

void RunSlices(ReplaySession& session) {
  const uint64_t total = session.model().bytes();
  session.Parallel([&](unsigned thread) {
    const uint64_t begin = total / session.threads() * thread;
    const uint64_t end = thread + 1 == session.threads() ? total : total / session.threads() * (thread + 1);
    ForwardReader reader(session, session.ring(thread), 2 * kMib);
    uint64_t base = 0;  // of the file within the whole
    for (const ModelFile& file : session.model().shards) {
      const auto cut = [&](uint64_t at) {
        if (at <= base) return uint64_t{0};
        return at - base >= file.size ? file.size : (at - base) / kPage * kPage;
      };
      const Piece range{file.index, cut(begin), cut(end)};
      base += file.size;
      if (range.size() == 0) continue;
      const UniqueFd fd = session.Open(file, 0);
      if (lseek(fd.get(), static_cast<off_t>(range.begin), SEEK_SET) < 0) FailErrno("lseek " + file.path);
      reader.Read(range, fd.get());
    }
  });
}

void RunBlocks(ReplaySession& session) {
  const std::vector<Piece> blocks = CutIntoBlocks(session.model().shards, 16 * kMib);
  SharedFiles fds(session, 0);
  std::atomic<size_t> next{0};
  session.Parallel([&](unsigned thread) {
    for (size_t i; (i = next++) < blocks.size();) {
      const Piece& block = blocks[i];
      const ModelFile& file = session.model().shards[block.file];
      uint8_t* const out = session.ring(thread).Next(block.size());
      if (Get(PreadFull(fds.Fd(block.file), {out, block.size()}, block.begin)) != block.size()) Fail(file.path + " ends early");
      session.Arrived(file);
      session.Take(file, block.begin, out, block.size());
    }
  });
}

void RunDirect(ReplaySession& session) {
  constexpr unsigned kDepth = 64;
  const std::vector<Piece> blocks = CutIntoBlocks(session.model().shards, 8 * kMib);
  SharedFiles fds(session, O_DIRECT);
  std::vector<DirectRead> reads(std::min<size_t>(kDepth, blocks.size()));
  AioContext aio(kDepth);
  size_t next = 0;
  const auto submit = [&](DirectRead& read) {
    read.piece = blocks[next++];
    read.request = {};
    read.request.aio_data = reinterpret_cast<uintptr_t>(&read);
    read.request.aio_lio_opcode = IOCB_CMD_PREAD;
    read.request.aio_fildes = static_cast<uint32_t>(fds.Fd(read.piece.file));
    read.request.aio_buf = reinterpret_cast<uintptr_t>(read.buffer);
    read.request.aio_nbytes = UpToPage(read.piece.size());  // whole pages: O_DIRECT takes no odd ends
    read.request.aio_offset = static_cast<int64_t>(read.piece.begin);
    aio.Submit(&read.request);
  };
  for (DirectRead& read : reads) {
    read.buffer = session.ring(0).Next(8 * kMib);  // its own: requests end in any order
    submit(read);
  }
  std::vector<io_event> events(kDepth);
  for (size_t done = 0; done < blocks.size();) {
    const size_t count = aio.Wait(events);
    for (size_t i = 0; i < count; ++i) {
      DirectRead& read = *reinterpret_cast<DirectRead*>(static_cast<uintptr_t>(events[i].data));
      const ModelFile& file = session.model().shards[read.piece.file];
      if (events[i].res < 0) Fail("read " + file.path + ": " + strerror(static_cast<int>(-events[i].res)));
      if (static_cast<uint64_t>(events[i].res) < read.piece.size()) Fail(file.path + ": short direct read");
      if (read.piece.begin == 0) session.Arrived(file);
      session.Take(file, read.piece.begin, read.buffer, read.piece.size());
      ++done;
      if (next < blocks.size()) submit(read);
    }
  }
}

void RunWhole(ReplaySession& session) {
  Ring& ring = session.ring(0);
  for (const ModelFile& file : session.model().shards) {
    const UniqueFd fd = session.Open(file, 0);
    ForwardReader(session, ring, std::min(ring.size(), UpToPage(file.size))).Read({file.index, 0, file.size}, fd.get());
  }
}

}  // namespace headrace::bench
