#include "fusefs/format/frame_pipeline.h"

#include <string>
#include <system_error>

#include "fusefs/base/executor.h"

namespace headrace::format {

void FrameJob::Reset() {
  data.clear();
  marks.clear();
  is_content = first_of_file = last_of_file = false;
  hash_file = true;
  entry = file_offset = file_crc = 0;
  digest = file_digest = Digest();
  status = OkStatus();
  steps_left = 3;
}

Result<std::unique_ptr<FramePipeline>> FramePipeline::Create(unsigned threads, int zstd_level, Done done) {
  std::unique_ptr<FramePipeline> pipeline(new FramePipeline(std::move(done)));
  pipeline->capacity_ = threads + 2;
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
        if (jobs_.empty() || jobs_.front()->steps_left > 0) return OkStatus();
      } else {
        // Only our own threads' computing is waited for; it always ends.
        finished_.wait(lock, [this] { return jobs_.front()->steps_left == 0; });
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
  bool* busy = nullptr;
  if (!tar_busy_ && next_tar_ < end()) {
    job = &At(next_tar_++);
    busy = &tar_busy_;
    tar_busy_ = true;
    lock.unlock();
    tar_hash_.Update(job->data);
  } else if (!content_busy_ && next_content_ < end()) {
    job = &At(next_content_++);
    busy = &content_busy_;
    content_busy_ = true;
    lock.unlock();
    if (job->is_content && job->hash_file) HashContent(*job);
  } else if (next_compress_ < end()) {
    job = &At(next_compress_++);
    lock.unlock();
    CompressJob(*job, compressor);
  } else {
    return false;
  }
  lock.lock();
  if (busy != nullptr) {
    *busy = false;
    work_.notify_one();
  }
  // A file in one piece: its digest is the chunk's (CompressJob left it to HashContent).
  if (--job->steps_left == 0) {
    if (job->first_of_file && job->last_of_file && job->hash_file) job->digest = job->file_digest;
    finished_.notify_one();
  }
  return true;
}

void FramePipeline::HashContent(FrameJob& job) {
  file_hash_.Update(job.data);
  file_crc_.Update(job.data);
  if (!job.last_of_file) return;
  job.file_digest = file_hash_.Finish();
  job.file_crc = file_crc_.value();
  file_crc_.Reset();
}

void FramePipeline::CompressJob(FrameJob& job, FrameCompressor& compressor) {
  if (job.data.empty()) {
    job.frame.clear();
    return;
  }
  if (job.is_content && !(job.first_of_file && job.last_of_file && job.hash_file)) {
    job.digest = Digest::Of(std::span<const uint8_t>(job.data));
  }
  job.status = compressor.Compress(job.data, job.frame);
}

}  // namespace headrace::format
