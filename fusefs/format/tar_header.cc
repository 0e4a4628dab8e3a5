#include "fusefs/format/tar_header.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "fusefs/base/text.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/limits.h"

namespace headrace::format {
namespace {

constexpr std::string_view kXattrPrefix = "SCHILY.xattr.";

struct Field {
  size_t offset;
  size_t size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12},
    kMtime{136, 12}, kChecksum{148, 8}, kLink{157, 100}, kMagic{257, 8}, kDevMajor{329, 8},
    kDevMinor{337, 8}, kPrefix{345, 155}, kStarPrefix{345, 131}, kStarAtime{476, 12},
    kStarCtime{488, 12}, kStarTrailer{508, 4}, kGnuAtime{345, 12}, kGnuCtime{357, 12},
    kGnuSparse{386, 4 * 24}, kGnuExtended{482, 1}, kGnuRealSize{483, 12},
    kExtensionSparse{0, 21 * 24}, kExtensionExtended{504, 1};
constexpr size_t kTypeOffset = 156;

std::string_view Raw(std::span<const uint8_t> block, Field f) {
  return AsText(block.subspan(f.offset, f.size));
}

std::string Text(std::span<const uint8_t> block, Field f) {
  std::string_view raw = Raw(block, f);
  return std::string(raw.substr(0, raw.find('\0')));
}

Status BadNumber(std::string_view what) {
  return InvalidArgumentError("tar header: " + std::string(what) + " is not a number");
}

// Octal text, or big-endian two's complement with the top bit as the mark (GNU "base-256").
Result<int64_t> Number(std::string_view raw, std::string_view what) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(raw[i]); };
  if (!raw.empty() && (byte(0) & 0x80) != 0) {
    const uint8_t inverse = (byte(0) & 0x40) != 0 ? 0xff : 0;
    uint64_t value = 0;
    for (size_t i = 0; i < raw.size(); ++i) {
      const auto c = static_cast<uint8_t>((byte(i) ^ inverse) & (i == 0 ? 0x7f : 0xff));
      if ((value >> 56) != 0) return BadNumber(what);
      value = value << 8 | c;
    }
    if ((value >> 63) != 0) return BadNumber(what);
    return inverse != 0 ? static_cast<int64_t>(~value) : static_cast<int64_t>(value);
  }
  while (!raw.empty() && (raw.front() == ' ' || raw.front() == '\0')) raw.remove_prefix(1);
  raw = raw.substr(0, raw.find('\0'));
  while (!raw.empty() && raw.back() == ' ') raw.remove_suffix(1);
  if (raw.empty()) return int64_t{0};
  uint64_t value = 0;
  auto [end, error] = std::from_chars(raw.data(), raw.data() + raw.size(), value, 8);
  if (error != std::errc() || end != raw.data() + raw.size() || (value >> 63) != 0) {
    return BadNumber(what);
  }
  return static_cast<int64_t>(value);
}

Result<int64_t> Number(std::span<const uint8_t> block, Field f, std::string_view what) {
  return Number(Raw(block, f), what);
}

Result<int64_t> Decimal(std::string_view text, std::string_view what) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return BadNumber(what);
  return value;
}

// "[-]seconds[.fraction]"; the fraction is cut to nanoseconds.
Result<TarTime> PaxTime(std::string_view text, std::string_view what) {
  const size_t dot = text.find('.');
  std::string_view whole = text.substr(0, dot);
  std::string_view fraction = dot == std::string_view::npos ? "" : text.substr(dot + 1);
  if (fraction.find_first_not_of("0123456789") != std::string_view::npos) return BadNumber(what);
  HR_ASSIGN_OR_RETURN(int64_t seconds, Decimal(whole, what));
  uint32_t nanoseconds = 0;
  for (size_t i = 0; i < 9; ++i) {
    nanoseconds = nanoseconds * 10 +
                  (i < fraction.size() ? static_cast<uint32_t>(fraction[i] - '0') : 0);
  }
  if (whole.front() == '-' && nanoseconds != 0) {
    if (seconds == std::numeric_limits<int64_t>::min()) return BadNumber(what);
    return TarTime{seconds - 1, 1000000000 - nanoseconds};
  }
  return TarTime{seconds, nanoseconds};
}

enum class Dialect { kV7, kUstar, kStar, kGnu };

Result<Dialect> CheckBlock(std::span<const uint8_t> block) {
  HR_ASSIGN_OR_RETURN(int64_t stated, Number(block, kChecksum, "checksum"));
  int64_t as_unsigned = 0;
  int64_t as_signed = 0;  // some old archivers summed signed characters
  for (size_t i = 0; i < kTarBlock; ++i) {
    const uint8_t c =
        i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size ? uint8_t{' '} : block[i];
    as_unsigned += c;
    as_signed += static_cast<int8_t>(c);
  }
  if (stated != as_unsigned && stated != as_signed) {
    return InvalidArgumentError("tar header: wrong checksum (not a tar, or damaged)");
  }
  std::string_view magic = Raw(block, kMagic);
  if (magic == std::string_view("ustar  \0", 8)) return Dialect::kGnu;
  if (magic.substr(0, 6) == std::string_view("ustar\0", 6)) {
    return Raw(block, kStarTrailer) == std::string_view("tar\0", 4) ? Dialect::kStar : Dialect::kUstar;
  }
  return Dialect::kV7;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

// Times of a GNU header. Old versions of Go's writer put a name prefix there: text that is no number is taken as that.
Status GnuTimes(std::span<const uint8_t> block, TarEntry& entry, std::string& prefix) {
  std::optional<TarTime> times[2];
  const Field fields[2] = {kGnuAtime, kGnuCtime};
  for (int i = 0; i < 2; ++i) {
    if (block[fields[i].offset] == 0) continue;
    auto seconds = Number(block, fields[i], "time");
    if (!seconds.ok()) {
      std::string text = Text(block, kPrefix);
      if (IsAscii(text)) prefix = text;
      return OkStatus();
    }
    times[i] = TarTime{*seconds, 0};
  }
  entry.atime = times[0];
  entry.ctime = times[1];
  return OkStatus();
}

}  // namespace

Result<TarEntry> ParseTarBlock(std::span<const uint8_t> block) {
  HEADRACE_CHECK(block.size() == kTarBlock);
  HR_ASSIGN_OR_RETURN(Dialect dialect, CheckBlock(block));
  TarEntry entry;
  entry.type = static_cast<char>(block[kTypeOffset]);
  entry.name = Text(block, kName);
  entry.link_target = Text(block, kLink);
  HR_ASSIGN_OR_RETURN(int64_t size, Number(block, kSize, "size"));
  if (size < 0) return InvalidArgumentError("tar header: negative size");
  entry.size = static_cast<uint64_t>(size);
  HR_ASSIGN_OR_RETURN(entry.mode, Number(block, kMode, "mode"));
  HR_ASSIGN_OR_RETURN(entry.uid, Number(block, kUid, "uid"));
  HR_ASSIGN_OR_RETURN(entry.gid, Number(block, kGid, "gid"));
  HR_ASSIGN_OR_RETURN(entry.mtime.seconds, Number(block, kMtime, "mtime"));
  if (dialect == Dialect::kV7) return entry;
  HR_ASSIGN_OR_RETURN(entry.dev_major, Number(block, kDevMajor, "device major"));
  HR_ASSIGN_OR_RETURN(entry.dev_minor, Number(block, kDevMinor, "device minor"));
  std::string prefix;
  if (dialect == Dialect::kUstar) {
    prefix = Text(block, kPrefix);
  } else if (dialect == Dialect::kStar) {
    prefix = Text(block, kStarPrefix);
    HR_ASSIGN_OR_RETURN(int64_t atime, Number(block, kStarAtime, "atime"));
    HR_ASSIGN_OR_RETURN(int64_t ctime, Number(block, kStarCtime, "ctime"));
    entry.atime = TarTime{atime, 0};
    entry.ctime = TarTime{ctime, 0};
  } else {
    HR_RETURN_IF_ERROR(GnuTimes(block, entry, prefix));
  }
  if (!prefix.empty()) entry.name = prefix + "/" + entry.name;
  if (entry.type == 'S' && dialect != Dialect::kGnu) {
    return InvalidArgumentError("tar header of '" + entry.name + "': sparse file of an unknown format");
  }
  return entry;
}

Result<PaxRecords> ParsePax(std::string_view data) {
  PaxRecords records;
  std::string sparse_map;
  size_t sparse_values = 0;
  while (!data.empty()) {
    // "length key=value\n", where length counts the whole record.
    const size_t space = data.find(' ');
    uint64_t length = 0;
    if (space != std::string_view::npos) {
      auto parsed = ParseU64(data.substr(0, space));
      if (parsed.ok()) length = *parsed;
    }
    if (length < space + 4 || length > data.size() || data[length - 1] != '\n') {
      return InvalidArgumentError("tar: malformed PAX record");
    }
    std::string_view record = data.substr(space + 1, length - space - 2);
    data.remove_prefix(length);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return InvalidArgumentError("tar: PAX record without a key");
    }
    std::string_view key = record.substr(0, equals);
    std::string_view value = record.substr(equals + 1);
    const bool is_name = key == "path" || key == "linkpath" || key == "uname" || key == "gname";
    if (key.find('\0') != std::string_view::npos ||
        (is_name && value.find('\0') != std::string_view::npos)) {
      return InvalidArgumentError("tar: NUL byte in the PAX record '" + std::string(key) + "'");
    }
    const bool is_offset = key == "GNU.sparse.offset";
    if (is_offset || key == "GNU.sparse.numbytes") {
      if ((sparse_values % 2 == 0) != is_offset || value.find(',') != std::string_view::npos) {
        return InvalidArgumentError("tar: PAX sparse records are out of order");
      }
      if (sparse_values++ != 0) sparse_map += ',';
      sparse_map += value;
      continue;
    }
    records[std::string(key)] = std::string(value);
  }
  if (sparse_values != 0) records["GNU.sparse.map"] = sparse_map;
  return records;
}

Status ApplyPax(const PaxRecords& records, TarEntry& entry) {
  for (const auto& [key, value] : records) {
    if (key.starts_with(kXattrPrefix)) {
      entry.xattrs.emplace_back(key.substr(kXattrPrefix.size()), value);
      continue;
    }
    if (value.empty()) continue;  // keeps what the block says
    if (key == "path") {
      entry.name = value;
    } else if (key == "linkpath") {
      entry.link_target = value;
    } else if (key == "uid") {
      HR_ASSIGN_OR_RETURN(entry.uid, Decimal(value, "PAX uid"));
    } else if (key == "gid") {
      HR_ASSIGN_OR_RETURN(entry.gid, Decimal(value, "PAX gid"));
    } else if (key == "size") {
      HR_ASSIGN_OR_RETURN(int64_t size, Decimal(value, "PAX size"));
      if (size < 0) return InvalidArgumentError("tar: negative PAX size");
      entry.size = static_cast<uint64_t>(size);
    } else if (key == "mtime") {
      HR_ASSIGN_OR_RETURN(entry.mtime, PaxTime(value, "PAX mtime"));
    } else if (key == "atime") {
      HR_ASSIGN_OR_RETURN(entry.atime, PaxTime(value, "PAX atime"));
    } else if (key == "ctime") {
      HR_ASSIGN_OR_RETURN(entry.ctime, PaxTime(value, "PAX ctime"));
    }
  }
  return OkStatus();
}

Result<PaxSparse> ApplyPaxSparse(const PaxRecords& records, TarEntry& entry) {
  const auto find = [&](const char* key) {
    auto it = records.find(key);
    return it == records.end() ? std::string() : it->second;
  };
  const std::string major = find("GNU.sparse.major");
  const std::string minor = find("GNU.sparse.minor");
  PaxSparse kind = PaxSparse::kMapInRecords;
  if (major == "1" && minor == "0") {
    kind = PaxSparse::kMapInData;
  } else if (major == "0" && (minor == "0" || minor == "1")) {
    kind = PaxSparse::kMapInRecords;
  } else if (!major.empty() || !minor.empty() || find("GNU.sparse.map").empty()) {
    return PaxSparse::kNone;
  }
  if (std::string name = find("GNU.sparse.name"); !name.empty()) entry.name = name;
  std::string size = find("GNU.sparse.size");
  if (size.empty()) size = find("GNU.sparse.realsize");
  if (!size.empty()) {
    HR_ASSIGN_OR_RETURN(int64_t value, Decimal(size, "sparse size"));
    if (value < 0) return InvalidArgumentError("tar: negative sparse size");
    entry.size = static_cast<uint64_t>(value);
  }
  entry.is_sparse = true;
  return kind;
}

Status ParseSparseMapText(std::string_view map, char separator, TarEntry& entry) {
  if (map.empty()) return OkStatus();
  std::vector<std::string_view> parts = Split(map, separator);
  if (parts.size() % 2 != 0) return InvalidArgumentError("tar: odd sparse map");
  if (parts.size() / 2 > limits::kTarSparseRegionsMax) {
    return ResourceExhaustedError("tar: sparse map of " + std::to_string(parts.size() / 2) + " regions");
  }
  for (size_t i = 0; i < parts.size(); i += 2) {
    HR_ASSIGN_OR_RETURN(uint64_t offset, ParseU64(parts[i]));
    HR_ASSIGN_OR_RETURN(uint64_t size, ParseU64(parts[i + 1]));
    entry.sparse.push_back({offset, size});
  }
  return OkStatus();
}

Status ParseOldGnuSparse(std::span<const uint8_t> block, bool extension, TarEntry& entry, bool& more) {
  if (!extension) {
    HR_ASSIGN_OR_RETURN(int64_t real_size, Number(block, kGnuRealSize, "real size"));
    if (real_size < 0) return InvalidArgumentError("tar header: negative real size");
    entry.size = static_cast<uint64_t>(real_size);
    entry.is_sparse = true;
  }
  const Field regions = extension ? kExtensionSparse : kGnuSparse;
  for (size_t at = regions.offset; at < regions.offset + regions.size; at += 24) {
    if (block[at] == 0) break;
    HR_ASSIGN_OR_RETURN(int64_t offset, Number(block, {at, 12}, "sparse offset"));
    HR_ASSIGN_OR_RETURN(int64_t size, Number(block, {at + 12, 12}, "sparse size"));
    if (offset < 0 || size < 0) return InvalidArgumentError("tar: negative sparse region");
    entry.sparse.push_back({static_cast<uint64_t>(offset), static_cast<uint64_t>(size)});
  }
  if (entry.sparse.size() > limits::kTarSparseRegionsMax) {
    return ResourceExhaustedError("tar: sparse file with too many regions");
  }
  more = block[(extension ? kExtensionExtended : kGnuExtended).offset] > 0;
  return OkStatus();
}

Status CheckSparse(const TarEntry& entry) {
  uint64_t end = 0;
  uint64_t total = 0;
  for (const SparseRegion& region : entry.sparse) {
    if (region.offset < end || region.offset > entry.size || region.size > entry.size - region.offset) {
      return InvalidArgumentError("tar: sparse map of '" + entry.name + "' is out of order or too long");
    }
    end = region.offset + region.size;
    total += region.size;
  }
  if (total != entry.stored_size) {
    return InvalidArgumentError("tar: sparse map of '" + entry.name + "' covers " + std::to_string(total) +
                                " bytes, the archive has " + std::to_string(entry.stored_size));
  }
  return OkStatus();
}

}  // namespace headrace::format
