#include "fusefs/format/frame_pipeline.h"

#include <array>
#include <span>
#include <string>
#include <system_error>

#include "fusefs/base/executor.h"

namespace headrace::format {

void FrameJob::Reset() {
  data.clear();
  pieces.clear();
  marks.clear();
  status = OkStatus();
  frames_size_ = 0;
  compressed_ = false;
  steps_left_ = 3;
}

Result<std::unique_ptr<FramePipeline>> FramePipeline::Create(unsigned threads, int zstd_level, Done done) {
  std::unique_ptr<FramePipeline> pipeline(new FramePipeline(std::move(done)));
  pipeline->capacity_ = size_t{threads} + 4;
  for (unsigned i = 0; i < threads; ++i) {
    HR_ASSIGN_OR_RETURN(auto compressor, FrameCompressor::Create(zstd_level));
    pipeline->compressors_.push_back(std::move(compressor));
  }
  try {
    for (unsigned i = 0; i < threads; ++i) {
      pipeline->threads_.emplace_back([p = pipeline.get(), i] {
        SetThreadName("layer-" + std::to_string(i));
        p->Run(*p->compressors_[i]);
      });
    }
  } catch (const std::system_error& e) {
    return ResourceExhaustedError(std::string("starting compression threads: ") + e.what());
  }
  return pipeline;
}

FramePipeline::~FramePipeline() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::unique_ptr<FrameJob> FramePipeline::NewJob() {
  if (free_.empty()) return std::make_unique<FrameJob>();
  std::unique_ptr<FrameJob> job = std::move(free_.back());
  free_.pop_back();
  job->Reset();
  return job;
}

Status FramePipeline::Submit(std::unique_ptr<FrameJob> job) {
  HR_RETURN_IF_ERROR(HandOut(capacity_ - 1));
  {
    std::lock_guard lock(mu_);
    jobs_.push_back(std::move(job));
  }
  work_.notify_all();
  return OkStatus();
}

Status FramePipeline::Drain() { return HandOut(0); }

Status FramePipeline::HandOut(size_t keep) {
  for (;;) {
    std::unique_ptr<FrameJob> job;
    {
      std::unique_lock lock(mu_);
      if (jobs_.size() <= keep) {
        if (jobs_.empty() || jobs_.front()->steps_left_ > 0) return OkStatus();
      } else {
        // Only our own threads' computing is waited for; it always ends.
        finished_.wait(lock, [this] { return jobs_.front()->steps_left_ == 0; });
      }
      job = std::move(jobs_.front());
      jobs_.pop_front();
      ++first_;
    }
    HR_RETURN_IF_ERROR(job->status);
    HR_RETURN_IF_ERROR(done_(*job));
    free_.push_back(std::move(job));
  }
}

void FramePipeline::Run(FrameCompressor& compressor) {
  std::unique_lock lock(mu_);
  while (!stopping_) {
    if (!StepLocked(lock, compressor)) work_.wait(lock);
  }
}

// The steps that must go in order come first: everything behind them waits for them.
bool FramePipeline::StepLocked(std::unique_lock<std::mutex>& lock, FrameCompressor& compressor) {
  FrameJob* job = nullptr;
  Status status;
  if (!hash_busy_ && next_hash_ < end()) {
    job = &At(next_hash_++);
    hash_busy_ = true;
    lock.unlock();
    HashJob(*job);
    lock.lock();
    hash_busy_ = false;
  } else if (!blob_busy_ && next_blob_ < end() && At(next_blob_).compressed_) {
    job = &At(next_blob_++);
    blob_busy_ = true;
    lock.unlock();
    blob_hash_.Update(job->frames());
    lock.lock();
    blob_busy_ = false;
  } else if (next_compress_ < end()) {
    job = &At(next_compress_++);
    lock.unlock();
    status = CompressJob(*job, compressor);
    lock.lock();
    job->status = std::move(status);
    job->compressed_ = true;
  } else {
    return false;
  }
  // This thread looks for work again at once, and takes what its step made possible; nobody else need wake up for that.
  if (--job->steps_left_ == 0) finished_.notify_one();
  return true;
}

void FramePipeline::HashJob(FrameJob& job) {
  std::span<const uint8_t> rest = job.data;
  for (FramePiece& piece : job.pieces) {
    const std::span<const uint8_t> data = rest.first(piece.size);
    rest = rest.subspan(piece.size);
    if (piece.is_content) {
      HashContent(piece, data);
    } else {
      tar_hash_.Update(data);
    }
  }
}

// The digests of tar, file and chunk in one pass (sha256_lane.h): three of them are most of what a layer costs beside compression.
void FramePipeline::HashContent(FramePiece& piece, std::span<const uint8_t> data) {
  Sha256Lane chunk_hash;
  if (!piece.hash_file) {
    UpdateLanes(std::array{&tar_hash_, &chunk_hash}, data);
    piece.digest = chunk_hash.Finish();
    return;
  }
  file_crc_.Update(data);
  if (piece.first_of_file) {
    UpdateLanes(std::array{&tar_hash_, &file_hash_}, data);
    if (!piece.last_of_file) chunk_hash = file_hash_;
  } else {
    UpdateLanes(std::array{&tar_hash_, &file_hash_, &chunk_hash}, data);
  }
  if (piece.last_of_file) {
    piece.file_digest = file_hash_.Finish();
    piece.file_crc = file_crc_.value();
    file_crc_.Reset();
  }
  // A file in one piece: its digest is the chunk's.
  piece.digest = piece.first_of_file && piece.last_of_file ? piece.file_digest : chunk_hash.Finish();
}

Status FramePipeline::CompressJob(FrameJob& job, FrameCompressor& compressor) {
  size_t bound = 0;
  for (const FramePiece& piece : job.pieces) bound += FrameCompressor::FrameSizeMax(piece.size);
  if (job.frames_capacity_ < bound) {
    job.frames_ = std::make_unique_for_overwrite<uint8_t[]>(bound);
    job.frames_capacity_ = bound;
  }
  std::span<uint8_t> room(job.frames_.get(), job.frames_capacity_);
  std::span<const uint8_t> rest = job.data;
  for (FramePiece& piece : job.pieces) {
    const std::span<const uint8_t> data = rest.first(piece.size);
    rest = rest.subspan(piece.size);
    piece.frame_size = 0;
    if (data.empty()) continue;
    HR_ASSIGN_OR_RETURN(piece.frame_size, compressor.Compress(data, room.subspan(job.frames_size_)));
    job.frames_size_ += piece.frame_size;
  }
  return OkStatus();
}

}  // namespace headrace::format
