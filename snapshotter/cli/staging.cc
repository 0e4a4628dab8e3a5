#include "snapshotter/cli/staging.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>

#include "fusefs/base/log.h"

namespace headrace::cli {

StagedBlob::~StagedBlob() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

Status StagedBlob::Append(std::span<const uint8_t> data) {
  Status status = WriteFull(fd_.get(), data);
  if (!status.ok()) {
    return status.Annotate("writing the temporary file " + path_ +
                           " (layers are compressed there first; choose another place with --tmp-dir)");
  }
  size_ += data.size();
  return {};
}

Status StagedBlob::Close(bool durable) {
  if (durable && ::fsync(fd_.get()) != 0) return Status::FromErrno(errno, "fsync " + path_);
  fd_.Reset();
  return {};
}

Result<std::unique_ptr<Staging>> Staging::Create(const std::string& parent, Interrupt* interrupt) {
  std::string path = parent + "/.headrace-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return Status::FromErrno(errno, "making a temporary directory in " + parent);
  }
  if (interrupt != nullptr) interrupt->Protect(path);
  return std::unique_ptr<Staging>(new Staging(path, interrupt));
}

Staging::~Staging() {
  if (Status s = RemoveAll(path_); !s.ok()) log::Warn("temporary directory left behind: {}", s.ToString());
  if (interrupt_ != nullptr) interrupt_->Release(path_);
}

Result<std::unique_ptr<StagedBlob>> Staging::NewBlob() {
  const std::string path = path_ + "/" + std::to_string(next_++);
  HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_EXCL, 0644));
  return std::make_unique<StagedBlob>(path, std::move(fd));
}

}  // namespace headrace::cli
