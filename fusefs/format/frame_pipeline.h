// FramePipeline: pieces of a tar in, compressed and hashed frames out in the same order. Internal to format/ (layer_writer.cc).
//
// A job is a stretch of the tar, about 1 MiB or one chunk, of one or many pieces; every piece becomes a frame of its own. A job goes through
// three steps on the pipeline's own threads: the digests of its bytes (strictly in order, by one thread at a time: SHA-256 of the
// whole tar, SHA-256 and CRC-64 of each file, SHA-256 of each chunk), compression (any order), and the SHA-256 of the blob (in order,
// after compression). Finished jobs are handed to `done` in order, on the thread that calls Submit or Drain.
// One thread drives it. At most threads + 4 jobs are under way, each with one buffer of input and one of output; Submit waits.
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
#include "fusefs/base/sha256_lane.h"
#include "fusefs/base/status.h"
#include "fusefs/format/crc64.h"
#include "fusefs/format/zstd_frame.h"

namespace headrace::format {

struct FramePiece {
  uint64_t size = 0;           // bytes of the job's data; the pieces stand there one after the other. Never 0 for content
  bool is_content = false;     // a chunk of a file; otherwise headers, padding, trailer
  bool first_of_file = false;  // content only
  bool last_of_file = false;
  bool hash_file = true;       // false: the file's digest is not wanted (sparse)
  uint64_t entry = 0;          // content: whose
  uint64_t file_offset = 0;
  size_t marks = 0;            // raw: how many of the job's marks, after those of the pieces before it

  uint64_t frame_size = 0;     // bytes of the job's frames; 0 if `size` is
  Digest digest;               // content: of its bytes
  Digest file_digest;          // last_of_file: of the file
  uint64_t file_crc = 0;
};

struct FrameJob {
  struct Mark {  // raw pieces: the headers of entry `entry` end at byte `end` of `data`
    uint64_t end;
    uint64_t entry;
  };

  std::vector<uint8_t> data;
  std::vector<FramePiece> pieces;
  std::vector<Mark> marks;
  std::span<const uint8_t> frames() const { return {frames_.get(), frames_size_}; }
  Status status;

 private:
  friend class FramePipeline;
  void Reset();
  // Filled by compression only: clearing it first would cost time. Kept for the next job.
  std::unique_ptr<uint8_t[]> frames_;
  size_t frames_capacity_ = 0;
  size_t frames_size_ = 0;
  bool compressed_ = false;
  int steps_left_ = 3;
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
  // Of all frames, for what follows them in the blob. REQUIRES: drained.
  Sha256Lane& blob_hash() { return blob_hash_; }

 private:
  explicit FramePipeline(Done done) : done_(std::move(done)) {}
  void Run(FrameCompressor& compressor);
  bool StepLocked(std::unique_lock<std::mutex>& lock, FrameCompressor& compressor);
  void HashJob(FrameJob& job);
  void HashContent(FramePiece& piece, std::span<const uint8_t> data);
  static Status CompressJob(FrameJob& job, FrameCompressor& compressor);
  FrameJob& At(uint64_t sequence) { return *jobs_[sequence - first_]; }
  uint64_t end() const { return first_ + jobs_.size(); }
  // Hands out finished jobs until at most `keep` are under way.
  Status HandOut(size_t keep);

  const Done done_;
  size_t capacity_ = 0;
  std::vector<std::unique_ptr<FrameJob>> free_;
  Sha256Lane tar_hash_;   // used by whoever has hash_busy_, as the next two
  Sha256Lane file_hash_;
  Crc64 file_crc_;
  Sha256Lane blob_hash_;  // used by whoever has blob_busy_

  std::mutex mu_;
  std::condition_variable work_;
  std::condition_variable finished_;
  std::deque<std::unique_ptr<FrameJob>> jobs_;  // guarded by mu_, as all below
  uint64_t first_ = 0;                          // sequence number of jobs_[0]
  uint64_t next_hash_ = 0;
  uint64_t next_compress_ = 0;
  uint64_t next_blob_ = 0;
  bool hash_busy_ = false;
  bool blob_busy_ = false;
  bool stopping_ = false;

  std::vector<std::unique_ptr<FrameCompressor>> compressors_;
  std::vector<std::thread> threads_;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_FRAME_PIPELINE_H_
