// DeferredLayer: reads while the layer comes.
#include <algorithm>
#include <utility>

#include "fusefs/stream/deferred_layer_parts.h"

namespace headrace::stream {
namespace {

constexpr uint64_t kReadSizeMax = uint64_t{16} << 20;

using std::chrono::steady_clock;

}  // namespace

void DeferredLayer::Read(const std::shared_ptr<File>& file, uint64_t offset, uint64_t size, FileContent::ReadDone done) {
  if (offset >= file->size() || size == 0) return done(OkStatus(), {});
  if (size > kReadSizeMax) return done(InvalidArgumentError("a read of more than 16 MiB"), {});
  auto op = std::make_shared<Op>(file, offset, std::min(size, file->size() - offset), std::move(done));
  op->read->started = steady_clock::now();
  op->read->deadline = op->read->started + request_.read_deadline;
  deadlines_.Attach(*op->read);
  const auto self = shared_from_this();  // `done` may let go of the last other reference
  Continue(op);
}

void DeferredLayer::Continue(const std::shared_ptr<Op>& op) {
  Gate::Pass pass(gate_);
  if (!pass) return op->read->Fail(CancelledError("the layer is not shown any more"));
  for (;;) {
    if (trust() == Trust::kWrong) return op->read->Fail(Refusal());
    uint64_t seen = 0;
    {
      MutexLock lock(mu_);
      seen = events_;
    }
    uint64_t missing = 0;
    if (TryServe(op, &missing)) return;
    // Before others can see it.
    if (!std::exchange(op->listed, true) && deadlines_.Add(op->read)) ArmDeadline(op->read->deadline);
    {
      MutexLock lock(mu_);
      if (events_ != seen) continue;  // something came meanwhile
      if (op->read->answered()) return;
      waiting_.emplace(missing, op);
    }
    // Poisoned between the look above and the entry in the list.
    if (trust() == Trust::kWrong) FailAll(Refusal());
    return;
  }
}

bool DeferredLayer::TryServe(const std::shared_ptr<Op>& op, uint64_t* missing) {
  ReadOp& read = *op->read;
  const uint32_t number = op->file->entry();
  if (const auto learned = Learned(number)) {
    learned->Read(read.offset, read.size, [this, self = shared_from_this(), op](const Status& status, std::span<const uint8_t> bytes) {
      if (!status.ok()) return op->read->Fail(status);
      if (trust() == Trust::kWrong) return op->read->Fail(Refusal());
      HEADRACE_CHECK(bytes.size() == op->read->size);
      op->read->Supply(op->read->offset, bytes);
    });
    return true;
  }
  const format::LayerIndex& index = *request_.walked;
  const format::Entry& entry = index.entries[number];
  const auto begin = index.chunks.begin() + entry.first_chunk;
  auto chunk = std::upper_bound(begin, begin + entry.chunk_count, read.offset, [](uint64_t offset, const format::Chunk& c) { return offset < c.file_offset; }) - 1;
  op->buffer.resize(read.size);
  const uint64_t end = read.offset + read.size;
  bool all = true;
  for (uint64_t at = read.offset; at < end; ++chunk) {
    const uint64_t until = std::min(end, chunk->file_offset + chunk->size);
    const std::span<uint8_t> out = std::span(op->buffer).subspan(at - read.offset, until - at);
    if (chunk->kind == format::ChunkKind::kZeros) {
      std::fill(out.begin(), out.end(), uint8_t{0});
    } else {
      uint64_t lacking = 0;
      if (!ServePiece(number, *chunk, at, out, &lacking)) {
        if (all) *missing = lacking;
        all = false;
      }
    }
    at = until;
  }
  if (!all) return false;
  if (trust() == Trust::kWrong) {
    read.Fail(Refusal());
  } else {
    read.Supply(read.offset, op->buffer);
  }
  return true;
}

// A part of a stored chunk, block by block.
bool DeferredLayer::ServePiece(uint32_t entry, const format::Chunk& chunk, uint64_t file_offset, std::span<uint8_t> out, uint64_t* missing) {
  bool all = true;
  while (!out.empty()) {
    const uint64_t at = chunk.blob_offset + (file_offset - chunk.file_offset);
    const uint64_t block = at / BlockFetcher::kBlockBytes;
    const uint64_t n = std::min<uint64_t>(out.size(), (block + 1) * BlockFetcher::kBlockBytes - at);
    const BlockFetcher::Have have = blocks_->Copy(at, out.first(n));
    if (have == BlockFetcher::Have::kLater) {
      blocks_->Want(block);
      if (all) *missing = block;
      all = false;
    } else if (have == BlockFetcher::Have::kDone && !ReadStaged(entry, file_offset, out.first(n))) {
      // A small file that is being put together in memory, or one that the cache refused: to be had when its last byte was hashed.
      uint64_t last = 0;
      {
        MutexLock lock(mu_);
        last = (places_.at(entry).end - 1) / BlockFetcher::kBlockBytes;
      }
      if (all) *missing = last;
      all = false;
    }
    out = out.subspan(n);
    file_offset += n;
  }
  return all;
}

bool DeferredLayer::ReadStaged(uint32_t entry, uint64_t file_offset, std::span<uint8_t> out) {
  std::shared_ptr<const cache::StagedFile::Bytes> staged;
  {
    MutexLock lock(mu_);
    const Place& place = places_.at(entry);
    if (place.staged_to < file_offset + out.size()) return false;
    staged = place.staged;
  }
  return staged && staged->Read(file_offset, out).ok();
}

void DeferredLayer::Wake(uint64_t block) {
  Ops ready;
  {
    MutexLock lock(mu_);
    ++events_;
    const auto [begin, end] = waiting_.equal_range(block);
    for (auto it = begin; it != end; ++it) ready.push_back(it->second);
    waiting_.erase(begin, end);
  }
  for (const std::shared_ptr<Op>& op : ready) {
    if (!op->read->answered()) Continue(op);
  }
}

void DeferredLayer::ArmDeadline(TimePoint when) {
  const auto delay = std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(when - steady_clock::now()));
  tools_.timer.After(delay, [weak = weak_from_this(), &pool = tools_.pool] {
    pool.Post([weak] {
      if (const auto self = weak.lock()) self->OnDeadline();
    });
  });
}

void DeferredLayer::OnDeadline() {
  Gate::Pass pass(gate_);
  if (!pass) return;
  TimePoint next;
  const std::vector<std::shared_ptr<ReadOp>> expired = deadlines_.TakeExpired(steady_clock::now(), &next);
  Status why = blocks_->last_error();
  if (why.ok()) why = DeadlineExceededError("the block did not come in time");
  for (const std::shared_ptr<ReadOp>& read : expired) read->Fail(why.Annotate("layer " + request_.blob.digest.ToString()));
  {
    MutexLock lock(mu_);
    std::erase_if(waiting_, [](const auto& item) { return item.second->read->answered(); });
  }
  if (next != TimePoint::max()) ArmDeadline(next);
}

void DeferredLayer::FailAll(const Status& status) {
  std::multimap<uint64_t, std::shared_ptr<Op>> failed;
  {
    MutexLock lock(mu_);
    failed.swap(waiting_);
  }
  for (const auto& [block, op] : failed) op->read->Fail(status);
}

}  // namespace headrace::stream
