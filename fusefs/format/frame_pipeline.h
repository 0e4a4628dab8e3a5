// FramePipeline: pieces of a tar in, compressed and hashed frames out in the same order. Internal to format/ (layer_writer.cc).
//
// A job goes through three steps on the pipeline's own threads: its place in the SHA-256 of the whole tar, its place in the SHA-256
// and CRC-64 of its file (both strictly in order, each by one thread at a time), and compression with the SHA-256 of the piece
// (any order). Finished jobs are handed to `done` in order, on the thread that calls Submit or Drain.
// One thread drives it. At most threads + 2 jobs are under way, each with one buffer of input and one of output; Submit waits.
#ifndef HEADRACE_FUSEFS_FORMAT_FRAME_PIPELINE_H_
#define HEADRACE_FUSEFS_FORMAT_FRAME_PIPELINE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/format/crc64.h"
#include "fusefs/format/zstd_frame.h"

namespace headrace::format {

struct FrameJob {
  struct Mark {  // raw jobs: the headers of entry `entry` end at byte `end` of `data`
    uint64_t end;
    uint64_t entry;
  };

  std::vector<uint8_t> data;
  bool is_content = false;     // a chunk of a file; otherwise headers, padding, trailer
  bool first_of_file = false;  // content only
  bool last_of_file = false;
  bool hash_file = true;       // false: the file's digest is not wanted (sparse)
  uint64_t entry = 0;          // content: whose
  uint64_t file_offset = 0;
  std::vector<Mark> marks;

  std::vector<uint8_t> frame;  // empty if `data` is; not cleared between uses: filling 4 MiB with zeros costs time
  Digest digest;               // content: of `data`
  Digest file_digest;          // last_of_file: of the file
  uint64_t file_crc = 0;
  Status status;

 private:
  friend class FramePipeline;
  int steps_left = 3;
  void Reset();
};

class FramePipeline {
 public:
  using Done = std::function<Status(FrameJob&)>;
  static Result<std::unique_ptr<FramePipeline>> Create(unsigned threads, int zstd_level, Done done);
  ~FramePipeline();  // drops what is under way
  FramePipeline(const FramePipeline&) = delete;
  FramePipeline& operator=(const FramePipeline&) = delete;

  // A cleared job; buffers are used again.
  std::unique_ptr<FrameJob> NewJob();
  Status Submit(std::unique_ptr<FrameJob> job);
  // Waits for all jobs and hands them out.
  Status Drain();
  // REQUIRES: drained; once.
  Digest TarDigest() { return tar_hash_.Finish(); }

 private:
  explicit FramePipeline(Done done) : done_(std::move(done)) {}
  void Run(FrameCompressor& compressor);
  bool StepLocked(std::unique_lock<std::mutex>& lock, FrameCompressor& compressor);
  void HashContent(FrameJob& job);
  static void CompressJob(FrameJob& job, FrameCompressor& compressor);
  FrameJob& At(uint64_t sequence) { return *jobs_[sequence - first_]; }
  uint64_t end() const { return first_ + jobs_.size(); }
  // Hands out finished jobs until at most `keep` are under way.
  Status HandOut(size_t keep);

  const Done done_;
  size_t capacity_ = 0;
  std::vector<std::unique_ptr<FrameJob>> free_;
  Sha256 tar_hash_;   // used by whoever has tar_busy_
  Sha256 file_hash_;  // used by whoever has content_busy_
  Crc64 file_crc_;

  std::mutex mu_;
  std::condition_variable work_;
  std::condition_variable finished_;
  std::deque<std::unique_ptr<FrameJob>> jobs_;  // guarded by mu_, as all below
  uint64_t first_ = 0;                          // sequence number of jobs_[0]
  uint64_t next_tar_ = 0;
  uint64_t next_content_ = 0;
  uint64_t next_compress_ = 0;
  bool tar_busy_ = false;
  bool content_busy_ = false;
  bool stopping_ = false;

  std::vector<std::unique_ptr<FrameCompressor>> compressors_;
  std::vector<std::thread> threads_;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_FRAME_PIPELINE_H_
