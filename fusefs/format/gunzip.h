// Gunzip: gzip (RFC 1952) in pieces, with ISA-L: two to three times as fast as zlib. Any number of members; checksums and sizes are compared.
// Headers are read here and not by the library: version 2.30 (Debian 12) takes the header's bytes into the checksum of the data when a header with a name comes in two pieces.
// Internal to format/. One thread at a time; CPU only; 90 KiB of memory.
#ifndef HEADRACE_FUSEFS_FORMAT_GUNZIP_H_
#define HEADRACE_FUSEFS_FORMAT_GUNZIP_H_

#include <cstdint>
#include <memory>
#include <span>

#include "fusefs/base/status.h"

struct inflate_state;

namespace headrace::format {

class Gunzip {
 public:
  Gunzip();
  ~Gunzip();
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;

  // Takes bytes from the front of `in` and writes to `out`; how many were written. Returns when `out` is full or `in` is empty; at the end of a member the next one
  // begins. DataLoss: damaged.
  Result<size_t> Decode(std::span<const uint8_t>& in, std::span<uint8_t> out);
  // The same, but it returns at the end of a member as well (at_boundary() then).
  Result<size_t> DecodeMember(std::span<const uint8_t>& in, std::span<uint8_t> out);
  // Between members, and nothing that was decoded waits for room: the input may end here.
  bool at_boundary() const { return at_boundary_; }
  // Begins anew.
  void Reset();

 private:
  enum class Header : uint8_t { kFixed, kExtraSize, kExtra, kName, kComment, kChecksum, kDone };
  // Takes the header's bytes; the stage is kDone at its end.
  Status ReadHeader(std::span<const uint8_t>& in);
  // The first part after `done` that this header has.
  void NextStage();

  std::unique_ptr<inflate_state> state_;
  Header header_ = Header::kFixed;
  uint8_t flags_ = 0;
  uint32_t stage_bytes_ = 0;  // of the stage that were taken
  uint32_t extra_size_ = 0;
  bool at_boundary_ = true;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_GUNZIP_H_
