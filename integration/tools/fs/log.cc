#include "integration/tools/fs/log.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace headrace::fs {

std::string ErrnoName(int code) {
  const char* name = strerrorname_np(code);
  return name == nullptr ? "errno " + std::to_string(code) : name;
}

std::string Printable(std::string_view text) {
  constexpr size_t kShown = 120;
  std::string out;
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '\\') {
      char buffer[5];
      std::snprintf(buffer, sizeof buffer, "\\x%02x", byte);
      out += buffer;
    } else {
      out += c;
    }
  }
  if (text.size() > kShown) out += "... (" + std::to_string(text.size()) + " bytes)";
  return out;
}

void Log::Call(const std::string& what, int64_t result) {
  const int code = errno;
  Words(what, result < 0 ? ErrnoName(code) : std::to_string(result));
}

void Log::Done(const std::string& what, bool ok) {
  const int code = errno;
  Words(what, ok ? "ok" : ErrnoName(code));
}

void Log::Words(const std::string& what, const std::string& outcome) { lines_.push_back({what, outcome}); }

void Log::Bytes(const std::string& what, const void* data, size_t size) {
  lines_.push_back({what, std::string(static_cast<const char*>(data), size), /*is_data=*/true});
  bytes_ += size;
}

std::string Log::Difference(const Log& other) const {
  const size_t both = std::min(lines_.size(), other.lines_.size());
  for (size_t i = 0; i < both; ++i) {
    const Line& a = lines_[i];
    const Line& b = other.lines_[i];
    if (a.what != b.what) return Printable(a.what) + " instead of " + Printable(b.what);
    if (a.outcome == b.outcome) continue;
    if (!a.is_data) return Printable(a.what) + ": " + Printable(a.outcome) + " instead of " + Printable(b.outcome);
    if (a.outcome.size() != b.outcome.size()) {
      return Printable(a.what) + ": " + std::to_string(a.outcome.size()) + " bytes instead of " + std::to_string(b.outcome.size());
    }
    const auto at = std::mismatch(a.outcome.begin(), a.outcome.end(), b.outcome.begin()).first - a.outcome.begin();
    return Printable(a.what) + ": another byte, " + std::to_string(at) + " after the first";
  }
  if (lines_.size() == other.lines_.size()) return "";
  const Line& odd = lines_.size() > both ? lines_[both] : other.lines_[both];
  return "only " + std::string(lines_.size() > both ? "the mount" : "the reference") + " has: " + Printable(odd.what) + ": " + Printable(odd.outcome);
}

void* Nowhere() { return reinterpret_cast<void*>(8); }

void Die(const std::string& what) {
  const int code = errno;
  std::fprintf(stderr, "%s (%s)\n", what.c_str(), std::strerror(code));
  std::_Exit(2);
}

Descriptor::~Descriptor() { Close(); }

void Descriptor::Close() {
  if (fd_ < 0) return;
  const int code = errno;
  ::close(fd_);
  errno = code;
  fd_ = -1;
}

}  // namespace headrace::fs
