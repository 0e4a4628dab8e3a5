// Staging: where blobs stand between being made and being known by their digest. Each StagedBlob is a file without a name in the
// image yet; the writer of the destination (image_store.h) renames or pushes it, or it is removed with the object.
// A Staging directory is removed with everything in it by its destructor, and by Interrupt. StagedBlobs must not outlive it.
// It is locked (flock) as long as its process lives: Create removes directories of processes that were killed from the same parent.
// NewBlob may be called from any thread; a StagedBlob is used by one thread at a time. All block on the local disk.
#ifndef HEADRACE_SNAPSHOTTER_CLI_STAGING_H_
#define HEADRACE_SNAPSHOTTER_CLI_STAGING_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "fusefs/base/file.h"
#include "fusefs/base/status.h"
#include "snapshotter/cli/direct_file.h"
#include "snapshotter/cli/interrupt.h"

namespace headrace::cli {

class StagedBlob {
 public:
  StagedBlob(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  StagedBlob(std::string path, std::unique_ptr<DirectFile> file) : path_(std::move(path)), direct_(std::move(file)) {}
  ~StagedBlob();
  StagedBlob(const StagedBlob&) = delete;
  StagedBlob& operator=(const StagedBlob&) = delete;
  Status Append(std::span<const uint8_t> data);
  // No Append follows.
  Status Close(Durable durable);
  // The file has another name now and stays.
  void Disown() { path_.clear(); }
  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

 private:
  Status Where(Status status) const;
  std::string path_;
  UniqueFd fd_;                         // kSoon
  std::unique_ptr<DirectFile> direct_;  // kNever
  uint64_t size_ = 0;
};

class Staging {
 public:
  // When this process will read the blobs back: kSoon goes through the page cache, kNever past it.
  enum class ReadBack { kSoon, kNever };
  // Makes a directory with a name of its own in `parent`, which must be there. `interrupt` may be null (tests).
  static Result<std::unique_ptr<Staging>> Create(const std::string& parent, ReadBack read_back, Interrupt* interrupt);
  ~Staging();
  Result<std::unique_ptr<StagedBlob>> NewBlob();
  const std::string& path() const { return path_; }

 private:
  Staging(std::string path, UniqueFd lock, ReadBack read_back, Interrupt* interrupt)
      : path_(std::move(path)), lock_(std::move(lock)), read_back_(read_back), interrupt_(interrupt) {}
  std::string path_;
  UniqueFd lock_;  // of the directory, locked where the file system can do that
  ReadBack read_back_;
  Interrupt* interrupt_;
  std::atomic<uint64_t> next_{0};
};

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_STAGING_H_
