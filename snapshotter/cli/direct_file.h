// DirectFile: a new file that is written once, from its beginning to its end, past the page cache where the file system can do that.
//
// A layer of gigabytes that goes through the page cache costs a copy and a fresh page for each 4 KiB (a fifth of the CPU time of a
// conversion), drives out what others have there, and waits in one fsync for the disk. Here a thread of the file's own writes one
// buffer while the next one is filled; small files never start it. What does not fill a buffer is written the ordinary way.
// One thread at a time; Append and Finish block on the disk. Memory: two buffers of 4 MiB, once the file has more than one.
#ifndef HEADRACE_SNAPSHOTTER_CLI_DIRECT_FILE_H_
#define HEADRACE_SNAPSHOTTER_CLI_DIRECT_FILE_H_

#include <cstdint>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "fusefs/base/executor.h"
#include "fusefs/base/file.h"
#include "fusefs/base/status.h"

namespace headrace::cli {

enum class Durable { kNo, kYes };

class DirectFile {
 public:
  // What makes the file; AlreadyExists if it is there.
  static Result<std::unique_ptr<DirectFile>> Create(const std::string& path);
  Status Append(std::span<const uint8_t> data);
  // No Append follows. kYes: on the disk when the call returns.
  Status Finish(Durable durable);

 private:
  explicit DirectFile(UniqueFd fd) : fd_(std::move(fd)) {}
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  using Buffer = std::unique_ptr<uint8_t[], Free>;
  Status SwapBuffers();
  Status WaitForWriter();
  static Status WriteBuffer(int fd, std::span<const uint8_t> data);

  UniqueFd fd_;
  Buffer filling_;
  Buffer writing_;
  size_t filled_ = 0;
  std::future<Status> written_;        // of what is in writing_; not valid(): nothing is
  std::optional<ThreadPool> writer_;   // last: its end waits for a write that is under way
};

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_DIRECT_FILE_H_
