// Digest: a SHA-256 value as OCI writes it ("sha256:<64 lower-case hex digits>", OCI image-spec descriptor.md, "Digests"), and
// the incremental hasher that makes one. Digest is a value; Sha256 is used by one thread at a time. Nothing blocks.
#ifndef HEADRACE_FUSEFS_BASE_DIGEST_H_
#define HEADRACE_FUSEFS_BASE_DIGEST_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"

namespace headrace {

class Digest {
 public:
  static constexpr size_t kSize = 32;
  Digest() = default;  // all zeros; empty() is true
  explicit Digest(const std::array<uint8_t, kSize>& bytes) : bytes_(bytes) {}
  // Accepts only "sha256:" + 64 lower-case hex digits.
  static Result<Digest> Parse(std::string_view text);
  static Digest Of(std::span<const uint8_t> data);
  static Digest Of(std::string_view data);

  std::string ToString() const;  // "sha256:..."
  std::string Hex() const;       // 64 digits, safe as a file name
  const std::array<uint8_t, kSize>& bytes() const { return bytes_; }
  bool empty() const { return bytes_ == std::array<uint8_t, kSize>{}; }
  auto operator<=>(const Digest&) const = default;

 private:
  std::array<uint8_t, kSize> bytes_{};
};

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256& other);  // goes on from the bytes that `other` took
  Sha256& operator=(const Sha256& other);
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void Update(std::span<const uint8_t> data);
  void Update(std::string_view data);
  // The hasher starts anew afterwards.
  Digest Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace headrace

template <>
struct std::hash<headrace::Digest> {
  size_t operator()(const headrace::Digest& d) const noexcept {
    size_t h;
    std::memcpy(&h, d.bytes().data(), sizeof h);  // a cryptographic hash is its own hash
    return h;
  }
};

#endif  // HEADRACE_FUSEFS_BASE_DIGEST_H_
