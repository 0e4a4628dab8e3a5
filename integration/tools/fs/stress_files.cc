// Operations that read files through descriptors.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "integration/tools/fs/stress.h"

namespace headrace::fs {
namespace {

constexpr size_t kPage = 4096;

std::string At(const char* call, const TreeEntry& entry, const Piece& piece) {
  return std::string(call) + " " + entry.path + " [" + std::to_string(piece.offset) + ", +" + std::to_string(piece.size) + ")";
}

// The piece by pread until it is whole or the file ends; for looking at another way to read it.
std::string Plain(int fd, const Piece& piece) {
  std::string out(piece.size, '\0');
  size_t have = 0;
  while (have < piece.size) {
    const ssize_t got = ::pread(fd, out.data() + have, piece.size - have, static_cast<off_t>(piece.offset + have));
    if (got <= 0) break;
    have += static_cast<size_t>(got);
  }
  out.resize(have);
  return out;
}

void LogRead(Scene& scene, const std::string& what, const std::string& buffer, ssize_t got) {
  scene.log->Call(what, got);
  if (got > 0) scene.log->Bytes(what, buffer.data(), static_cast<size_t>(got));
}

void Pread(Scene& scene, int fd, const TreeEntry& entry) {
  const Piece piece = DrawPiece(scene, entry.size);
  std::string buffer(piece.size + 1, '#');
  const ssize_t got = ::pread(fd, buffer.data(), piece.size, static_cast<off_t>(piece.offset));
  LogRead(scene, At("pread", entry, piece), buffer, got);
  if (buffer.back() != '#') scene.log->Words(At("pread", entry, piece), "wrote behind the buffer's end");
}

void Preadv(Scene& scene, int fd, const TreeEntry& entry) {
  const Piece piece = DrawPiece(scene, entry.size);
  std::string buffer(piece.size, '#');
  const size_t first = piece.size == 0 ? 0 : scene.random.Below(piece.size);
  const size_t second = piece.size == first ? 0 : scene.random.Below(piece.size - first);
  const iovec parts[] = {{buffer.data(), first}, {nullptr, 0}, {buffer.data() + first, second}, {buffer.data() + first + second, piece.size - first - second}};
  LogRead(scene, At("preadv", entry, piece), buffer, ::preadv(fd, parts, 4, static_cast<off_t>(piece.offset)));
}

// What is at hand may be less than asked for, or nothing at all; it must be right.
void PreadNoWait(Scene& scene, int fd, const TreeEntry& entry) {
  const Piece piece = DrawPiece(scene, entry.size);
  std::string buffer(piece.size, '#');
  const iovec part{buffer.data(), buffer.size()};
  const ssize_t got = ::preadv2(fd, &part, 1, static_cast<off_t>(piece.offset), RWF_NOWAIT);
  const bool right = got < 0 ? errno == EAGAIN || errno == EOPNOTSUPP
                             : Plain(fd, piece).compare(0, static_cast<size_t>(got), buffer, 0, static_cast<size_t>(got)) == 0;
  scene.log->Words(At("preadv2(RWF_NOWAIT)", entry, piece), right ? "right" : "wrong");
}

void SeekAndRead(Scene& scene, int fd, const TreeEntry& entry) {
  const int whences[] = {SEEK_SET, SEEK_CUR, SEEK_END};
  const int whence = scene.random.Of(whences);
  const auto by = static_cast<off_t>(scene.random.Below(entry.size + 1000)) - (whence == SEEK_SET ? 0 : static_cast<off_t>(entry.size / 2));
  const Piece piece{0, scene.random.Below(20'000)};
  scene.log->Call("lseek " + entry.path + " by " + std::to_string(by) + ", " + std::to_string(whence), ::lseek(fd, by, whence));
  std::string buffer(piece.size, '#');
  LogRead(scene, At("read", entry, piece), buffer, ::read(fd, buffer.data(), buffer.size()));
  const iovec parts[] = {{buffer.data(), buffer.size() / 2}, {buffer.data() + buffer.size() / 2, buffer.size() - buffer.size() / 2}};
  LogRead(scene, At("readv", entry, piece), buffer, ::readv(fd, parts, 2));
  scene.log->Call("where " + entry.path, ::lseek(fd, 0, SEEK_CUR));
}

void Oddities(Scene& scene, int fd, const TreeEntry& entry) {
  char byte = 0;
  scene.log->Call("pread -1 " + entry.path, ::pread(fd, &byte, 1, -1));
  scene.log->Call("lseek -1 " + entry.path, ::lseek(fd, -1, SEEK_SET));
  scene.log->Call("write " + entry.path, ::write(fd, &byte, 1));
  scene.log->Call("ftruncate " + entry.path, ::ftruncate(fd, 0));
  scene.log->Call("pread into nowhere " + entry.path, ::pread(fd, Nowhere(), 1, 0));
}

// Where a file has holes is the file system's to say, but what it calls a hole reads as zeros, and every file ends with one.
void Holes(Scene& scene, int fd, const TreeEntry& entry) {
  const uint64_t from = scene.random.Below(entry.size + 10);
  const std::string what = "holes of " + entry.path + " from " + std::to_string(from);
  const off_t data = ::lseek(fd, static_cast<off_t>(from), SEEK_DATA);
  if (from >= entry.size) {
    scene.log->Call(what, data);
    scene.log->Call(what, ::lseek(fd, static_cast<off_t>(from), SEEK_HOLE));
    return;
  }
  const off_t hole = ::lseek(fd, static_cast<off_t>(from), SEEK_HOLE);
  bool right = hole >= static_cast<off_t>(from) && hole <= static_cast<off_t>(entry.size);
  const uint64_t end = data < 0 ? entry.size : static_cast<uint64_t>(data);
  right = right && (data >= static_cast<off_t>(from) || (data < 0 && errno == ENXIO));
  const std::string skipped = right ? Plain(fd, {from, end - from}) : "";
  right = right && std::all_of(skipped.begin(), skipped.end(), [](char c) { return c == '\0'; });
  scene.log->Words(what, right ? "right" : "wrong");
}

void ReadSome(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  for (uint64_t left = 1 + scene.random.Below(6); left > 0; --left) {
    switch (scene.random.Below(8)) {
      case 0: Preadv(scene, fd.get(), entry); break;
      case 1: PreadNoWait(scene, fd.get(), entry); break;
      case 2: SeekAndRead(scene, fd.get(), entry); break;
      case 3: Oddities(scene, fd.get(), entry); break;
      case 4: Holes(scene, fd.get(), entry); break;
      default: Pread(scene, fd.get(), entry);
    }
  }
}

// From begin to end in blocks of one size, as most programs do.
void ReadAll(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  const size_t blocks[] = {1000, kPage, 65'536, 1 << 20};
  std::string buffer(scene.random.Of(blocks), '#');
  constexpr size_t kMost = size_t{2} << 20;  // of a big file only the begin: the others want their turn
  size_t total = 0;
  while (total < kMost) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    LogRead(scene, "read on " + entry.path, buffer, got);
    if (got <= 0) return;
    total += static_cast<size_t>(got);
  }
}

// Without the page cache, where the kernel lets us: whether unaligned pieces may be read so is the file system's to say.
void ReadDirect(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor plain(OpenForReading(scene, entry));
  if (!plain.ok()) return;
  const Descriptor fd(::open(entry.path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK));
  Piece piece = DrawPiece(scene, entry.size);
  const bool aligned = !scene.random.OneIn(4);
  if (aligned) piece = {piece.offset / kPage * kPage, (piece.size / kPage + 1) * kPage};
  const size_t skew = aligned ? 0 : scene.random.Below(kPage);
  const std::unique_ptr<char, void (*)(void*)> buffer(static_cast<char*>(std::aligned_alloc(kPage, (piece.size / kPage + 3) * kPage)), std::free);
  const ssize_t got = fd.ok() ? ::pread(fd.get(), buffer.get() + skew, piece.size, static_cast<off_t>(piece.offset)) : -1;
  bool right = got < 0 && errno == EINVAL && (!aligned || !fd.ok());
  if (got >= 0) right = Plain(plain.get(), piece) == std::string_view(buffer.get() + skew, static_cast<size_t>(got));
  scene.log->Words(At("direct", entry, piece), right ? "right" : "wrong: " + std::to_string(got) + " " + ErrnoName(got < 0 ? errno : 0));
}

// What the kernel moves out of a file by itself.
void SendFile(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  const Piece piece = DrawPiece(scene, entry.size);
  const Descriptor out(::memfd_create("out", MFD_CLOEXEC));
  off_t offset = static_cast<off_t>(piece.offset);
  const ssize_t sent = ::sendfile(out.get(), fd.get(), &offset, piece.size);
  scene.log->Call(At("sendfile", entry, piece), sent);
  scene.log->Call(At("sendfile to", entry, piece), offset);
  const std::string got = Plain(out.get(), {0, piece.size});
  scene.log->Bytes(At("sendfile", entry, piece), got.data(), got.size());
  off_t from = static_cast<off_t>(piece.offset);
  scene.log->Call(At("copy_file_range", entry, piece), ::copy_file_range(fd.get(), &from, out.get(), nullptr, piece.size, 0));
}

void Splice(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  const Piece piece = DrawPiece(scene, entry.size);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) Die("pipe2");
  const Descriptor reader(ends[0]), writer(ends[1]);
  off_t offset = static_cast<off_t>(piece.offset);
  std::string all, buffer(65'536, '#');
  while (all.size() < piece.size) {  // how much comes at a time is the kernel's to say
    const ssize_t moved = ::splice(fd.get(), &offset, writer.get(), nullptr, std::min(piece.size - all.size(), buffer.size()), 0);
    if (moved < 0) scene.log->Call(At("splice", entry, piece), moved);
    if (moved <= 0) break;
    const ssize_t got = ::read(reader.get(), buffer.data(), static_cast<size_t>(moved));
    if (got != moved) Die("a pipe that loses bytes");
    all.append(buffer, 0, static_cast<size_t>(got));
  }
  scene.log->Bytes(At("splice", entry, piece), all.data(), all.size());
}

void Advise(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  const Piece piece = DrawPiece(scene, entry.size);
  const int advices[] = {POSIX_FADV_NORMAL, POSIX_FADV_RANDOM, POSIX_FADV_SEQUENTIAL, POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED, POSIX_FADV_NOREUSE, 77};
  const int advice = scene.random.Of(advices);
  const std::string what = At("advice", entry, piece) + " " + std::to_string(advice);
  scene.log->Words(what, ErrnoName(::posix_fadvise(fd.get(), static_cast<off_t>(piece.offset), static_cast<off_t>(piece.size), advice)));
  scene.log->Call("readahead " + what, ::readahead(fd.get(), static_cast<off_t>(piece.offset), piece.size));
  scene.log->Call("fsync " + what, ::fsync(fd.get()));
  scene.log->Call("fdatasync " + what, ::fdatasync(fd.get()));
  Pread(scene, fd.get(), entry);
}

// Only locks that others can have as well: what is logged must not hang on when they come.
void Lock(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  scene.log->Call("flock " + entry.path, ::flock(fd.get(), LOCK_SH | LOCK_NB));
  struct flock lock {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(scene.random.Below(entry.size));
  lock.l_len = static_cast<off_t>(scene.random.Below(entry.size));
  scene.log->Call("F_SETLK " + entry.path, ::fcntl(fd.get(), F_SETLK, &lock));
  scene.log->Call("F_OFD_SETLK " + entry.path, ::fcntl(fd.get(), F_OFD_SETLK, &lock));
  Pread(scene, fd.get(), entry);
  lock.l_type = F_WRLCK;
  scene.log->Call("F_SETLK for writing " + entry.path, ::fcntl(fd.get(), F_SETLK, &lock));
  lock.l_type = F_UNLCK;
  scene.log->Call("unlock " + entry.path, ::fcntl(fd.get(), F_OFD_SETLK, &lock));
  scene.log->Call("unlock " + entry.path, ::flock(fd.get(), LOCK_UN));
}

// Two descriptors of one open file share the offset, and outlive each other.
void Duplicate(Scene& scene) {
  const TreeEntry& entry = scene.File();
  Descriptor fd(OpenForReading(scene, entry));
  if (!fd.ok()) return;
  const Descriptor twin(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 100));
  scene.log->Done("dup " + entry.path, twin.ok());
  SeekAndRead(scene, fd.get(), entry);
  fd.Close();
  std::string buffer(3000, '#');
  LogRead(scene, "read the twin of " + entry.path, buffer, ::read(twin.get(), buffer.data(), buffer.size()));
  // Opened anew by its descriptor.
  const Descriptor again(::open(("/proc/self/fd/" + std::to_string(twin.get())).c_str(), O_RDONLY | O_CLOEXEC));
  if (again.ok()) Pread(scene, again.get(), entry);
}

// On a writable overlay: the file is copied up under those who read it.
void OpenForWriting(Scene& scene) {
  const TreeEntry& entry = scene.File();
  const Descriptor before(::open(entry.path.c_str(), O_RDONLY | O_CLOEXEC));
  const Descriptor fd(::open(entry.path.c_str(), O_RDWR | O_CLOEXEC));
  scene.log->Done("open for writing " + entry.path, fd.ok());
  if (before.ok()) Pread(scene, before.get(), entry);
  if (fd.ok()) Pread(scene, fd.get(), entry);
}

}  // namespace

Piece DrawPiece(Scene& scene, uint64_t file_size) {
  Random& random = scene.random;
  const size_t sizes[] = {0, 1, random.Below(100), random.Below(10'000), kPage, 65'536, random.Below(400'000), 1 << 20};
  const size_t size = random.Of(sizes);
  switch (random.Below(5)) {
    case 0: return {random.Below(file_size + kPage) / kPage * kPage, size};
    case 1: return {file_size - std::min<uint64_t>(file_size, random.Below(10'000)), size};  // around the end
    case 2: return {file_size + random.Below(100'000), size};
    default: return {random.Below(file_size), size};
  }
}

int OpenForReading(Scene& scene, const TreeEntry& entry) {
  const int extra[] = {0, 0, O_CLOEXEC, O_NOATIME, O_NOFOLLOW, O_NONBLOCK, O_LARGEFILE, O_SYNC};
  const int flags = scene.random.Of(extra);
  int fd = ::open(entry.path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  scene.log->Done("open " + entry.path + " " + std::to_string(flags), fd >= 0);
  return fd;
}

std::vector<Operation> FileOperations() {
  return {{"read", 30, ReadSome}, {"read-all", 6, ReadAll},   {"direct", 6, ReadDirect}, {"sendfile", 5, SendFile},
          {"splice", 5, Splice},  {"advice", 4, Advise},      {"lock", 3, Lock},         {"dup", 3, Duplicate},
          {"write", 2, OpenForWriting}};
}

}  // namespace headrace::fs
