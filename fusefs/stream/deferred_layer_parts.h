// What the two halves of DeferredLayer share: deferred_layer.cc (hashing, the end) and deferred_read.cc. Internal to stream/.
#ifndef HEADRACE_FUSEFS_STREAM_DEFERRED_LAYER_PARTS_H_
#define HEADRACE_FUSEFS_STREAM_DEFERRED_LAYER_PARTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "fusefs/stream/deferred_layer.h"

namespace headrace::stream {

// One read on its way, and what of it is here.
struct DeferredLayer::Op {
  Op(std::shared_ptr<File> of, uint64_t offset, uint64_t size, FileContent::ReadDone done)
      : read(std::make_shared<ReadOp>(nullptr, offset, size, std::move(done))), file(std::move(of)) {}

  const std::shared_ptr<ReadOp> read;
  const std::shared_ptr<File> file;
  std::vector<uint8_t> buffer;
  bool listed = false;  // with the deadlines: it waited at least once. Of the one who continues it
};

class DeferredLayer::File : public FileContent, public std::enable_shared_from_this<File> {
 public:
  File(std::shared_ptr<DeferredLayer> layer, uint32_t entry, uint64_t size) : layer_(std::move(layer)), entry_(entry), size_(size) {}

  uint64_t size() const override { return size_; }
  bool sealed() const override {
    const auto settled = Settled();
    return settled && settled->sealed();
  }
  bool complete() const override {
    const auto settled = Settled();
    return settled && settled->complete();
  }
  void AwaitSeal(std::chrono::milliseconds most, std::function<void()> done) override {
    if (const auto settled = Settled()) return settled->AwaitSeal(most, std::move(done));
    done();
  }
  int backing_fd() const override {
    const auto settled = Settled();
    HEADRACE_CHECK(settled != nullptr);
    return settled->backing_fd();
  }
  void Read(uint64_t offset, uint64_t size, ReadDone done) override { layer_->Read(shared_from_this(), offset, size, std::move(done)); }
  uint64_t resident() const override {
    const auto settled = Settled();
    return settled ? settled->resident() : layer_->Resident(entry_);
  }
  // All of it comes anyway; afterwards the cache may have lost it.
  void FetchAll() override {
    if (const auto settled = Settled()) settled->FetchAll();
  }

  uint32_t entry() const { return entry_; }
  // The same file by its digests; set once, kept.
  std::shared_ptr<FileContent> learned() const {
    MutexLock lock(mu_);
    return learned_;
  }
  void set_learned(std::shared_ptr<FileContent> learned) {
    MutexLock lock(mu_);
    learned_ = std::move(learned);
  }

 private:
  std::shared_ptr<FileContent> Settled() const { return layer_->trust() == Trust::kVerified ? learned() : nullptr; }

  const std::shared_ptr<DeferredLayer> layer_;
  const uint32_t entry_;
  const uint64_t size_;
  mutable Mutex mu_;
  std::shared_ptr<FileContent> learned_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_DEFERRED_LAYER_PARTS_H_
