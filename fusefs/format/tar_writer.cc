#include "fusefs/format/tar_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace headrace::format {
namespace {

constexpr size_t kBlock = 512;
constexpr uint64_t kOctal11Max = (1ull << 33) - 1;  // 11 octal digits: sizes and times
constexpr uint64_t kOctal7Max = (1ull << 21) - 1;   // 7 octal digits: ids and device numbers
constexpr size_t kNameMax = 100;
constexpr size_t kPrefixMax = 155;

// Fields of a ustar header: offset and length (POSIX.1-2017, pax, "ustar Interchange Format").
struct Field {
  size_t offset;
  size_t size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12}, kMtime{136, 12},
    kChecksum{148, 8}, kType{156, 1}, kLink{157, 100}, kMagic{257, 8}, kDevMajor{329, 8}, kDevMinor{337, 8},
    kPrefix{345, 155};

class Header {
 public:
  Header() {
    block_.fill(0);
    SetText(kMagic, std::string_view("ustar\00000", 8));
  }
  void SetText(Field f, std::string_view text) {
    std::memcpy(block_.data() + f.offset, text.data(), std::min(text.size(), f.size));
  }
  // Digits up to the last byte of the field, which stays NUL.
  void SetOctal(Field f, uint64_t value) {
    for (size_t i = f.size - 1; i-- > 0; value >>= 3) {
      block_[f.offset + i] = static_cast<uint8_t>('0' + (value & 7));
    }
  }
  std::span<const uint8_t> Finish() {
    std::memset(block_.data() + kChecksum.offset, ' ', kChecksum.size);
    uint64_t sum = 0;
    for (uint8_t b : block_) sum += b;
    SetOctal({kChecksum.offset, 7}, sum);  // six digits, NUL, and the space that is already there
    return block_;
  }

 private:
  std::array<uint8_t, kBlock> block_;
};

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Length of the UTF-8 sequence at the start of `text`, 0 if there is no valid one. Overlong forms and surrogates are let through:
// the question is only whether a reader that decodes would stumble over plain garbage.
size_t Utf8Length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  size_t n = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (n == 0 || n > text.size()) return 0;
  for (size_t i = 1; i < n; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) return 0;
  }
  return n;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    size_t n = Utf8Length(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

// PAX values are UTF-8, so bytes that are not go into the header raw, as every tar did before PAX.
bool WantsPaxForCharset(std::string_view text) { return !IsAscii(text) && IsUtf8(text); }

// Where to cut `name` into prefix and name; npos if ustar cannot hold it.
size_t PrefixCut(std::string_view name) {
  size_t cut = name.substr(0, std::min(name.size(), kPrefixMax + 1)).rfind('/', kPrefixMax);
  if (cut != std::string_view::npos && cut + 1 == name.size()) cut = name.rfind('/', cut - 1);  // slash of a directory
  if (cut == std::string_view::npos || cut == 0 || cut > kPrefixMax) return std::string_view::npos;
  return name.size() - cut - 1 <= kNameMax ? cut : std::string_view::npos;
}

char TypeFlag(EntryType type) {
  switch (type) {
    case EntryType::kRegular: return '0';
    case EntryType::kHardlink: return '1';
    case EntryType::kSymlink: return '2';
    case EntryType::kCharDevice: return '3';
    case EntryType::kBlockDevice: return '4';
    case EntryType::kDirectory: return '5';
    case EntryType::kFifo: return '6';
  }
  return '0';
}

// "<length> <key>=<value>\n", where the length counts its own digits.
std::string PaxRecord(const std::string& key, const std::string& value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t size = rest + 1;
  while (rest + std::to_string(size).size() != size) size = rest + std::to_string(size).size();
  return std::to_string(size) + " " + key + "=" + value + "\n";
}

// Decimal seconds with nanoseconds, rounded towards minus infinity as time_t is: -1.25 is (-2, 750000000).
std::string PaxTime(int64_t seconds, uint32_t ns) {
  if (ns == 0) return std::to_string(seconds);
  const bool negative = seconds < 0;
  const int64_t whole = negative ? -(seconds + 1) : seconds;
  std::string fraction = std::to_string(negative ? 1'000'000'000u - ns : ns);
  fraction.insert(0, 9 - fraction.size(), '0');
  fraction.erase(fraction.find_last_not_of('0') + 1);
  return (negative ? "-" : "") + std::to_string(whole) + "." + fraction;
}

Status CheckEntry(const Entry& entry) {
  auto bad = [&](std::string_view why) {
    return InvalidArgumentError("tar entry '" + entry.name + "': " + std::string(why));
  };
  if (entry.name.find('\0') != std::string::npos || entry.link_target.find('\0') != std::string::npos) {
    return bad("NUL in a name");
  }
  const bool link = entry.type == EntryType::kSymlink || entry.type == EntryType::kHardlink;
  if (link && entry.link_target.empty()) return bad("a link without a target");
  if (entry.mtime_ns >= 1'000'000'000) return bad("nanoseconds above 999999999");
  if (entry.dev_major > kOctal7Max || entry.dev_minor > kOctal7Max) return bad("device number above 2097151");
  for (const auto& [key, value] : entry.xattrs) {
    if (key.empty() || key.find('=') != std::string::npos || key.find('\0') != std::string::npos) {
      return bad("extended attribute name that PAX cannot hold: '" + key + "'");
    }
  }
  return {};
}

std::string TarName(const Entry& entry) {
  if (entry.name.empty()) return "./";
  return entry.type == EntryType::kDirectory ? entry.name + "/" : entry.name;
}

// Fills `header` and `pax` from the entry.
void Describe(const Entry& entry, Header& header, std::map<std::string, std::string>& pax) {
  const std::string name = TarName(entry);
  const size_t cut = name.size() <= kNameMax ? std::string::npos : PrefixCut(name);
  if (WantsPaxForCharset(name) || (name.size() > kNameMax && cut == std::string::npos)) {
    pax["path"] = name;
    header.SetText(kName, name);  // cut short: only for readers without PAX
  } else if (cut != std::string::npos) {
    header.SetText(kPrefix, std::string_view(name).substr(0, cut));
    header.SetText(kName, std::string_view(name).substr(cut + 1));
  } else {
    header.SetText(kName, name);
  }
  if (entry.type == EntryType::kSymlink || entry.type == EntryType::kHardlink) {
    header.SetText(kLink, entry.link_target);
    if (entry.link_target.size() > kNameMax || WantsPaxForCharset(entry.link_target)) {
      pax["linkpath"] = entry.link_target;
    }
  }
  // A number that does not fit is 0 in the header, and its PAX record counts.
  auto number = [&](Field field, const char* key, uint64_t value, uint64_t most) {
    if (value > most) pax[key] = std::to_string(value);
    header.SetOctal(field, value > most ? 0 : value);
  };
  header.SetOctal(kMode, entry.mode & 07777);
  number(kUid, "uid", entry.uid, kOctal7Max);
  number(kGid, "gid", entry.gid, kOctal7Max);
  number(kSize, "size", entry.type == EntryType::kRegular ? entry.size : 0, kOctal11Max);
  const bool plain_time = entry.mtime_s >= 0 && static_cast<uint64_t>(entry.mtime_s) <= kOctal11Max;
  header.SetOctal(kMtime, plain_time ? static_cast<uint64_t>(entry.mtime_s) : 0);
  if (!plain_time || entry.mtime_ns != 0) pax["mtime"] = PaxTime(entry.mtime_s, entry.mtime_ns);
  const char type = TypeFlag(entry.type);
  header.SetText(kType, {&type, 1});
  header.SetOctal(kDevMajor, entry.dev_major);
  header.SetOctal(kDevMinor, entry.dev_minor);
  for (const auto& [key, value] : entry.xattrs) pax["SCHILY.xattr." + key] = value;
}

}  // namespace

Status TarWriter::Add(const Entry& entry) {
  HR_RETURN_IF_ERROR(CheckEntry(entry));
  HR_RETURN_IF_ERROR(CloseEntry());
  Header header;
  std::map<std::string, std::string> pax;
  Describe(entry, header, pax);
  if (!pax.empty()) HR_RETURN_IF_ERROR(WritePax(pax, entry));
  HR_RETURN_IF_ERROR(sink_(header.Finish()));
  current_ = entry.name;
  data_left_ = entry.type == EntryType::kRegular ? entry.size : 0;
  padding_ = (kBlock - data_left_ % kBlock) % kBlock;
  return {};
}

Status TarWriter::WritePax(const std::map<std::string, std::string>& records, const Entry& entry) {
  std::string body;
  for (const auto& [key, value] : records) body += PaxRecord(key, value);
  std::string base = entry.name.substr(entry.name.rfind('/') + 1).substr(0, kNameMax - 11);
  std::replace_if(base.begin(), base.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '_');
  const char type = 'x';
  Header header;
  header.SetText(kName, "PaxHeaders/" + base);
  header.SetText(kType, {&type, 1});
  header.SetOctal(kMode, 0644);
  header.SetOctal(kUid, 0);
  header.SetOctal(kGid, 0);
  header.SetOctal(kSize, body.size());
  header.SetOctal(kMtime, 0);
  HR_RETURN_IF_ERROR(sink_(header.Finish()));
  body.resize((body.size() + kBlock - 1) / kBlock * kBlock, '\0');
  return sink_({reinterpret_cast<const uint8_t*>(body.data()), body.size()});
}

Status TarWriter::Data(std::span<const uint8_t> bytes) {
  if (bytes.size() > data_left_) {
    return FailedPreconditionError("tar entry '" + current_ + "': more bytes than its size");
  }
  data_left_ -= bytes.size();
  return bytes.empty() ? OkStatus() : sink_(bytes);
}

Status TarWriter::CloseEntry() {
  if (data_left_ != 0) {
    return FailedPreconditionError("tar entry '" + current_ + "': " + std::to_string(data_left_) +
                                   " bytes fewer than its size");
  }
  static constexpr std::array<uint8_t, kBlock> kZeros{};
  const uint64_t padding = std::exchange(padding_, 0);
  return padding == 0 ? OkStatus() : sink_(std::span(kZeros).first(padding));
}

Status TarWriter::Finish() {
  HR_RETURN_IF_ERROR(CloseEntry());
  static constexpr std::array<uint8_t, 2 * kBlock> kEnd{};
  return sink_(kEnd);
}

}  // namespace headrace::format
