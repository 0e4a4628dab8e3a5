#include "fusefs/base/digest.h"

#include <openssl/evp.h>

namespace headrace {
namespace {

constexpr std::string_view kPrefix = "sha256:";
constexpr char kHexDigits[] = "0123456789abcdef";

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

Result<Digest> Digest::Parse(std::string_view text) {
  if (text.size() != kPrefix.size() + 2 * kSize || text.substr(0, kPrefix.size()) != kPrefix) {
    return InvalidArgumentError("not a sha256 digest: '" + std::string(text.substr(0, 100)) + "'");
  }
  std::string_view hex = text.substr(kPrefix.size());
  std::array<uint8_t, kSize> bytes{};
  for (size_t i = 0; i < kSize; ++i) {
    int hi = HexValue(hex[2 * i]);
    int lo = HexValue(hex[2 * i + 1]);
    if (hi < 0 || lo < 0) return InvalidArgumentError("not a sha256 digest: '" + std::string(text) + "'");
    bytes[i] = static_cast<uint8_t>(hi * 16 + lo);
  }
  return Digest(bytes);
}

Digest Digest::Of(std::span<const uint8_t> data) {
  Sha256 hasher;
  hasher.Update(data);
  return hasher.Finish();
}

Digest Digest::Of(std::string_view data) {
  Sha256 hasher;
  hasher.Update(data);
  return hasher.Finish();
}

std::string Digest::Hex() const {
  std::string out(2 * kSize, '0');
  for (size_t i = 0; i < kSize; ++i) {
    out[2 * i] = kHexDigits[bytes_[i] >> 4];
    out[2 * i + 1] = kHexDigits[bytes_[i] & 15];
  }
  return out;
}

std::string Digest::ToString() const { return std::string(kPrefix) + Hex(); }

struct Sha256::Impl {
  EVP_MD_CTX* ctx = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(ctx); }
  void Reset() { HEADRACE_CHECK(ctx != nullptr && EVP_DigestInit_ex(ctx, EVP_sha256(), nullptr) == 1); }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) { impl_->Reset(); }
Sha256::~Sha256() = default;
Sha256::Sha256(const Sha256& other) : impl_(std::make_unique<Impl>()) { *this = other; }
Sha256& Sha256::operator=(const Sha256& other) {
  HEADRACE_CHECK(impl_->ctx != nullptr && EVP_MD_CTX_copy_ex(impl_->ctx, other.impl_->ctx) == 1);
  return *this;
}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(std::span<const uint8_t> data) {
  HEADRACE_CHECK(EVP_DigestUpdate(impl_->ctx, data.data(), data.size()) == 1);
}

void Sha256::Update(std::string_view data) {
  HEADRACE_CHECK(EVP_DigestUpdate(impl_->ctx, data.data(), data.size()) == 1);
}

Digest Sha256::Finish() {
  std::array<uint8_t, Digest::kSize> bytes{};
  unsigned int size = 0;
  HEADRACE_CHECK(EVP_DigestFinal_ex(impl_->ctx, bytes.data(), &size) == 1 && size == Digest::kSize);
  impl_->Reset();
  return Digest(bytes);
}

}  // namespace headrace
