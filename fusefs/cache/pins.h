// Pins: contents that are never evicted, by name (an image, a layer), remembered on the disk (README.md, "Pins"). Internal to cache/.
//
// What a pin protects is the identities of contents, not their bytes: it holds for what is here and for what will come. Set and Remove are on the disk when they return. A content that several pins
// name is pinned until the last goes. What a damaged file still says clearly is pinned; the rest of it is logged.
// Any thread; Load once, first. Set and Remove block on the local disk and are serialised by the lock of their own, which no other code takes.
#ifndef HEADRACE_FUSEFS_CACHE_PINS_H_
#define HEADRACE_FUSEFS_CACHE_PINS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"

namespace headrace::cache {

inline constexpr size_t kPinNameMax = 4096;
inline constexpr uint64_t kPinFileSizeMax = uint64_t{1} << 30;

// What a pin file says. Pure; foreign bytes: damaged lines are left out and `damaged` is set.
struct PinRecord {
  std::string name;
  std::vector<Digest> contents;
  std::vector<std::string> notes;  // whatever the owner of the pin wants to find again; no control characters
  bool damaged = false;
};
std::string EncodePin(const PinRecord& pin);
PinRecord ParsePin(std::string_view text);

class Pins {
 public:
  explicit Pins(std::string directory) : directory_(std::move(directory)) {}

  // Reads what is remembered. Errors: the directory cannot be made or listed.
  Status Load();
  // The name pins these contents from now on, in addition to what it pinned before (the notes too). InvalidArgument: the name or a note is empty, too long or has control characters.
  Status Set(const std::string& name, const std::vector<Digest>& contents, const std::vector<std::string>& notes);
  // NotFound: there is no such pin.
  Status Remove(const std::string& name);
  bool IsPinned(const Digest& id) const;
  std::vector<PinRecord> List() const;

 private:
  std::string PathOf(const std::string& name) const;
  void Count(const std::vector<Digest>& contents) HR_REQUIRES(mu_);

  const std::string directory_;
  Mutex change_mu_;  // one change at a time, over its write to the disk; before mu_
  mutable Mutex mu_;
  std::map<std::string, PinRecord> pins_ HR_GUARDED_BY(mu_);
  std::unordered_map<Digest, uint32_t> counts_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_PINS_H_
