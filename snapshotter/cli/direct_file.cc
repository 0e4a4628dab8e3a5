#include "snapshotter/cli/direct_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace headrace::cli {
namespace {

constexpr size_t kBufferSize = 4 << 20;
constexpr size_t kAlignment = 4096;  // of memory, offsets and sizes; no disk asks for more

Status LeaveDirect(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags & ~O_DIRECT) != 0) return Status::FromErrno(errno, "fcntl");
  return {};
}

}  // namespace

Result<std::unique_ptr<DirectFile>> DirectFile::Create(const std::string& path) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL;
  Result<UniqueFd> fd = OpenFile(path, kFlags | O_DIRECT, 0644);
  // Not every file system can; some make the file before they say so.
  if (!fd.ok() && fd.status().code() == StatusCode::kInvalidArgument) {
    ::unlink(path.c_str());
    fd = OpenFile(path, kFlags, 0644);
  }
  if (!fd.ok()) return fd.status();
  return std::unique_ptr<DirectFile>(new DirectFile(std::move(*fd)));
}

Status DirectFile::Append(std::span<const uint8_t> data) {
  while (!data.empty()) {
    if (filling_ == nullptr) {
      filling_.reset(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kBufferSize)));
      if (filling_ == nullptr) return ResourceExhaustedError("no memory for a buffer of 4 MiB");
    }
    const size_t n = std::min(data.size(), kBufferSize - filled_);
    std::copy_n(data.begin(), n, filling_.get() + filled_);
    filled_ += n;
    data = data.subspan(n);
    if (filled_ == kBufferSize) HR_RETURN_IF_ERROR(SwapBuffers());
  }
  return {};
}

Status DirectFile::SwapBuffers() {
  HR_RETURN_IF_ERROR(WaitForWriter());
  std::swap(filling_, writing_);
  filled_ = 0;
  if (!writer_) writer_.emplace("staging", 1);
  auto done = std::make_shared<std::promise<Status>>();
  written_ = done->get_future();
  writer_->Post([done, fd = fd_.get(), buffer = writing_.get()] { done->set_value(WriteBuffer(fd, {buffer, kBufferSize})); });
  return {};
}

// Only the disk is waited for; its errors end the wait too.
Status DirectFile::WaitForWriter() { return written_.valid() ? written_.get() : OkStatus(); }

Status DirectFile::WriteBuffer(int fd, std::span<const uint8_t> data) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n >= 0) {
      data = data.subspan(static_cast<size_t>(n));
    } else if (errno == EINVAL) {
      // The file system took the flag and not the write, or a short write left us between two blocks.
      HR_RETURN_IF_ERROR(LeaveDirect(fd));
      return WriteFull(fd, data);
    } else if (errno != EINTR) {
      return Status::FromErrno(errno, "write");
    }
  }
  return {};
}

Status DirectFile::Finish(Durable durable) {
  HR_RETURN_IF_ERROR(WaitForWriter());
  HR_RETURN_IF_ERROR(LeaveDirect(fd_.get()));
  HR_RETURN_IF_ERROR(WriteFull(fd_.get(), {filling_.get(), filled_}));
  filled_ = 0;
  if (durable == Durable::kYes && ::fsync(fd_.get()) != 0) return Status::FromErrno(errno, "fsync");
  fd_.Reset();
  return {};
}

}  // namespace headrace::cli
