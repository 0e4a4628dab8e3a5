#include "integration/tools/bench/replay_session.h"

#include <fcntl.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "integration/tools/bench/common.h"

namespace headrace::bench {
namespace {

constexpr uint64_t kSampleMask = 15;  // one page in 16
constexpr uint64_t kPagesBits = 36;   // of a file: 256 TiB

uint64_t Mix(uint64_t z) {  // SplitMix64's finaliser
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

const Pattern kPatterns[] = {
    {"P1", 1, 16 * kMib, RunHeaders},          {"P2", 1, 16 * kMib, RunMappedForward},
    {"P2f", 1, 16 * kMib, RunMappedInterleaved}, {"P3", 4, 4 * kMib, RunMappedRandom},
    {"P3s", 32, 4 * kMib, RunMappedRandom},    {"P4", 8, 16 * kMib, RunFilePerThread},
    {"P5", 16, 2 * kMib, RunSlices},           {"P6", 16, 16 * kMib, RunBlocks},
    {"P7", 1, 64 * 8 * kMib, RunDirect},       {"P8", 1, kHugePage, RunPopulated},
    {"P9", 1, 16 * kMib, RunMappedForward},    {"P10", 1, 0, RunWhole},
};

}  // namespace

ReplaySession::ReplaySession(const ReplayOptions& options, unsigned number, unsigned threads, uint64_t block)
    : options_(options), number_(number), threads_(threads),
      model_(ListModel(options.like.empty() ? options.directory : options.like, options.limit)), random_(options.seed) {
  const uint64_t whole = std::min(options.ring, (model_.bytes() + kHugePage) / kHugePage * kHugePage);
  const uint64_t each = std::max({block, whole / threads / kHugePage * kHugePage, kHugePage});
  memory_ = HugeMemory(each * threads);
  for (unsigned i = 0; i < threads; ++i) rings_.emplace_back(memory_.data() + i * each, each);
  if (!options.like.empty()) MoveTo(options.directory, model_);
}

UniqueFd ReplaySession::Open(const ModelFile& file, int flags) {
  const double begin = Now();
  UniqueFd fd(open(file.path.c_str(), O_RDONLY | O_CLOEXEC | flags));
  const double end = Now();
  if (!fd.valid()) FailErrno("open " + file.path);
  const std::lock_guard lock(mutex_);
  open_s_ += end - begin;
  if (file.index == 0 && first_open_ == 0) first_open_ = begin;
  return fd;
}

void ReplaySession::Arrived(const ModelFile& file) {
  if (file.index != 0 || arrived_.load(std::memory_order_relaxed) || arrived_.exchange(true)) return;
  const double now = Now();
  const std::lock_guard lock(mutex_);
  first_byte_ = now;
}

void ReplaySession::Take(const ModelFile& file, uint64_t begin, const uint8_t* data, uint64_t size) {
  uint64_t sum = 0;
  for (uint64_t at = 0; at < size; at += kPage) {
    const uint64_t position = Mix((uint64_t{file.index} << kPagesBits) + (begin + at) / kPage + 1);
    if (options_.sampled && (position & kSampleMask) != 0) continue;
    sum += Mix(XXH3_64bits(data + at, std::min(kPage, size - at)) ^ position);
  }
  checksum_.fetch_add(sum, std::memory_order_relaxed);
  bytes_.fetch_add(size, std::memory_order_relaxed);
}

void ReplaySession::Parallel(const std::function<void(unsigned)>& work) { bench::Parallel(threads_, work); }

void ReplaySession::Count(ReplayReport& report) const {
  const std::lock_guard lock(mutex_);
  report.bytes = bytes_;
  report.checksum = checksum_;
  report.open_s = open_s_;
  report.first_byte_s = first_byte_ - first_open_;
}

const Pattern* FindPattern(const std::string& name) {
  for (const Pattern& pattern : kPatterns) {
    if (name == pattern.name) return &pattern;
  }
  return nullptr;
}

std::vector<std::string> PatternNames() {
  std::vector<std::string> names;
  for (const Pattern& pattern : kPatterns) names.emplace_back(pattern.name);
  return names;
}

}  // namespace headrace::bench
