#include "fusefs/stream/block_fetcher.h"

#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"

namespace headrace::stream {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kAhead = 4;  // blocks behind one that a reader wants

}  // namespace

class BlockFetcher::Sink : public registry::RangeSink {
 public:
  Sink(std::shared_ptr<BlockFetcher> fetcher, uint64_t block) : fetcher_(std::move(fetcher)), block_(block) {}
  void OnSource(uint64_t source) override { from_ = source; }
  bool OnData(std::span<const uint8_t> data) override { return fetcher_->OnData(block_, from_, data); }
  void OnDone(Status status) override { fetcher_->OnDone(block_, std::move(status)); }

 private:
  const std::shared_ptr<BlockFetcher> fetcher_;
  const uint64_t block_;
  uint64_t from_ = 0;
};

BlockFetcher::BlockFetcher(registry::RangeSource& source, registry::BlobRef blob, const BlobReaderOptions& pauses, cache::ContentStore& cache, Timer& timer,
                           std::function<void(uint64_t block)> arrived)
    : source_(source),
      blob_(std::move(blob)),
      pauses_(pauses),
      cache_(cache),
      timer_(timer),
      arrived_(std::move(arrived)),
      blocks_((blob_.size + kBlockBytes - 1) / kBlockBytes) {}

BlockFetcher::~BlockFetcher() = default;

void BlockFetcher::StartOrder() {
  {
    MutexLock lock(mu_);
    in_order_ = true;
  }
  Pump();
}

void BlockFetcher::Close() {
  std::vector<std::shared_ptr<std::vector<uint8_t>>> freed;
  std::shared_ptr<cache::StagedFile> spill;
  {
    MutexLock lock(mu_);
    closed_ = true;
    for (Block& block : blocks_) {
      if (block.bytes) freed.push_back(std::exchange(block.bytes, nullptr));
    }
    spill.swap(spill_);
    moved_.NotifyAll();
  }
  gate_.Close();
}

uint64_t BlockFetcher::ArrivedBytes(uint64_t begin, uint64_t end) const {
  uint64_t total = 0;
  MutexLock lock(mu_);
  for (uint64_t at = begin; at < end;) {
    const uint64_t block = at / kBlockBytes;
    const uint64_t until = std::min(end, (block + 1) * kBlockBytes);
    const State state = blocks_[block].state;
    if (state == State::kHere || state == State::kSpilled || state == State::kDone) total += until - at;
    at = until;
  }
  return total;
}

Status BlockFetcher::last_error() const {
  MutexLock lock(mu_);
  return last_error_;
}

bool BlockFetcher::ReportWrong() {
  std::set<uint64_t> mirrors;
  {
    MutexLock lock(mu_);
    if (closed_) return false;
    mirrors = mirrors_;
  }
  for (const uint64_t mirror : mirrors) source_.ReportWrongBytes(blob_, mirror);
  return !mirrors.empty();
}

bool BlockFetcher::MayStart(uint64_t block) const {
  return blocks_[block].state == State::kAbsent && blocks_[block].again <= steady_clock::now();
}

uint64_t BlockFetcher::Choose() {
  if (closed_) return count();
  if (demand_active_ < kDemandMax) {
    for (std::deque<uint64_t>* queue : {&wanted_, &ahead_}) {
      std::erase_if(*queue, [&](uint64_t block) HR_REQUIRES(mu_) { return blocks_[block].state != State::kAbsent; });
      const auto found = std::find_if(queue->begin(), queue->end(), [&](uint64_t block) HR_REQUIRES(mu_) { return MayStart(block); });
      if (found == queue->end()) continue;
      const uint64_t block = *found;
      queue->erase(found);
      blocks_[block].demand = true;
      blocks_[block].state = State::kFetching;
      ++demand_active_;
      return block;
    }
  }
  if (!in_order_ || order_active_ >= kWindow) return count();
  const uint64_t end = std::min(count(), taken_ + kWindow);
  for (uint64_t block = taken_; block < end; ++block) {
    if (!MayStart(block)) continue;
    blocks_[block].demand = false;
    blocks_[block].state = State::kFetching;
    ++order_active_;
    return block;
  }
  return count();
}

void BlockFetcher::Pump() {
  for (;;) {
    Gate::Pass pass(gate_);
    if (!pass) return;
    uint64_t block = 0;
    {
      MutexLock lock(mu_);
      block = Choose();
    }
    if (block == count()) return;
    Ask(block);
  }
}

void BlockFetcher::Ask(uint64_t block) {
  uint64_t got = 0;
  {
    MutexLock lock(mu_);
    if (closed_) return;
    Block& asked = blocks_[block];
    if (!asked.bytes) asked.bytes = std::make_shared<std::vector<uint8_t>>(SizeOf(block));
    got = asked.got;
  }
  source_.Fetch(blob_, block * kBlockBytes + got, SizeOf(block) - got, std::make_shared<Sink>(shared_from_this(), block));
}

bool BlockFetcher::OnData(uint64_t block, uint64_t from, std::span<const uint8_t> data) {
  std::shared_ptr<std::vector<uint8_t>> bytes;
  uint64_t at = 0;
  {
    MutexLock lock(mu_);
    Block& growing = blocks_[block];
    if (closed_ || data.size() > SizeOf(block) - growing.got) return false;
    bytes = growing.bytes;
    at = growing.got;
    growing.got += data.size();
    if (from != 0) mirrors_.insert(from);
  }
  // Nobody else looks at a block that is being fetched.
  std::copy(data.begin(), data.end(), bytes->begin() + static_cast<ptrdiff_t>(at));
  return true;
}

// Its bytes are nowhere any more: fetched again by who wants it, or in its turn.
void BlockFetcher::Lose(uint64_t block) {
  blocks_[block].state = State::kAbsent;
  blocks_[block].got = 0;
}

void BlockFetcher::OnDone(uint64_t block, Status status) {
  Gate::Pass pass(gate_);
  if (!pass) return;
  bool here = false;
  std::chrono::milliseconds pause{0};
  {
    MutexLock lock(mu_);
    if (closed_) return;
    Block& done = blocks_[block];
    --(done.demand ? demand_active_ : order_active_);
    if (status.ok() && done.got < SizeOf(block)) status = UnavailableError("the registry sent less than was asked for");
    here = status.ok();
    last_error_ = status;
    if (here) {
      done.state = State::kHere;
      done.tries = 0;
      moved_.NotifyAll();
    } else {
      pause = PauseAfter(pauses_, done.tries++, status);
      done.again = steady_clock::now() + pause;
      done.state = State::kAbsent;
      if (done.demand) wanted_.push_back(block);
    }
  }
  if (here) {
    arrived_(block);
  } else {
    timer_.After(pause, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Pump();
    });
  }
  Pump();
}

Result<BlockFetcher::Bytes> BlockFetcher::Take(std::chrono::milliseconds most) {
  uint64_t block = 0;
  std::shared_ptr<cache::StagedFile> spill;
  {
    MutexLock lock(mu_);
    block = taken_;
    const auto ready = [&]() HR_REQUIRES(mu_) { return closed_ || blocks_[block].state == State::kHere || blocks_[block].state == State::kSpilled; };
    if (!moved_.WaitFor(mu_, most, ready) || closed_) return Bytes();
    if (blocks_[block].state == State::kHere) return Bytes(blocks_[block].bytes);
    spill = spill_;
  }
  auto bytes = std::make_shared<std::vector<uint8_t>>(SizeOf(block));
  const Status status = spill->Read(block * kBlockBytes, *bytes);
  if (status.ok()) return Bytes(std::move(bytes));
  {
    MutexLock lock(mu_);
    Lose(block);
  }
  Pump();
  return UnavailableError(status.message());
}

void BlockFetcher::Done() {
  std::shared_ptr<std::vector<uint8_t>> freed;
  std::shared_ptr<cache::StagedFile> spill;
  uint64_t block = 0;
  {
    MutexLock lock(mu_);
    block = taken_;
    if (closed_ || block == count()) return;
    if (blocks_[block].state == State::kSpilled) spill = spill_;
    blocks_[block].state = State::kDone;
    freed.swap(blocks_[block].bytes);
    ++taken_;
  }
  // Only now: whoever reads the spilled block looks at its state again afterwards.
  if (spill) {
    if (Status status = spill->Punch(block * kBlockBytes, SizeOf(block)); !status.ok()) log::Debug("room is not given back error=\"{}\"", status.ToString());
  }
  Pump();
}

BlockFetcher::Have BlockFetcher::Copy(uint64_t offset, std::span<uint8_t> out) {
  const uint64_t block = offset / kBlockBytes;
  const uint64_t inside = offset % kBlockBytes;
  std::shared_ptr<std::vector<uint8_t>> bytes;
  std::shared_ptr<cache::StagedFile> spill;
  {
    MutexLock lock(mu_);
    if (blocks_[block].state == State::kDone) return Have::kDone;
    if (closed_) return Have::kLater;
    if (blocks_[block].state == State::kHere) {
      bytes = blocks_[block].bytes;
    } else if (blocks_[block].state == State::kSpilled) {
      spill = spill_;
    } else {
      return Have::kLater;
    }
  }
  if (bytes) {
    std::copy_n(bytes->begin() + static_cast<ptrdiff_t>(inside), out.size(), out.begin());
    return Have::kHere;
  }
  const Status status = spill->Read(offset, out);
  MutexLock lock(mu_);
  if (blocks_[block].state == State::kDone) return Have::kDone;  // perhaps given back while it was read
  if (status.ok()) return Have::kHere;
  if (blocks_[block].state == State::kSpilled) Lose(block);
  return Have::kLater;
}

void BlockFetcher::Want(uint64_t block) {
  {
    MutexLock lock(mu_);
    if (closed_) return;
    if (blocks_[block].state == State::kAbsent && std::find(wanted_.begin(), wanted_.end(), block) == wanted_.end()) wanted_.push_back(block);
    ahead_.clear();  // of readers before
    for (uint64_t next = block + 1; next < std::min(count(), block + 1 + kAhead); ++next) {
      if (blocks_[next].state == State::kAbsent) ahead_.push_back(next);
    }
  }
  Pump();
}

void BlockFetcher::Settle(uint64_t block) {
  std::shared_ptr<std::vector<uint8_t>> bytes;
  std::shared_ptr<cache::StagedFile> spill;
  Gate::Pass pass(gate_);
  if (!pass) return;
  {
    MutexLock lock(mu_);
    if (closed_ || blocks_[block].state != State::kHere || block < taken_ + kWindow) return;
    bytes = blocks_[block].bytes;
    spill = spill_;
  }
  Status status;
  if (!spill) {
    auto staged = cache_.Stage();
    status = staged.status();
    if (staged.ok()) {
      MutexLock lock(mu_);
      if (!spill_) spill_ = std::move(*staged);
      spill = spill_;
    }
  }
  if (status.ok()) status = spill->Write(block * kBlockBytes, *bytes, cache::StagedFile::Room::kNow);
  if (!status.ok()) log::Warn("a block that came early is not kept, it will be fetched again layer={} error=\"{}\"", blob_.digest.ToString(), status.ToString());
  std::shared_ptr<std::vector<uint8_t>> freed;
  MutexLock lock(mu_);
  if (blocks_[block].state != State::kHere) return;
  freed.swap(blocks_[block].bytes);
  if (status.ok()) {
    blocks_[block].state = State::kSpilled;
  } else {
    Lose(block);
  }
}

}  // namespace headrace::stream
