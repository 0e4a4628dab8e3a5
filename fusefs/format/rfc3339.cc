#include "fusefs/format/rfc3339.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace headrace::format {
namespace {

// Reads `digits` digits at `at`; -1 if there are others.
int Digits(std::string_view text, size_t at, size_t digits) {
  if (text.size() < at + digits) return -1;
  int value = 0;
  for (size_t i = at; i < at + digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

Status Bad(std::string_view text) {
  return InvalidArgumentError("not an RFC 3339 time: '" + std::string(text.substr(0, 64)) + "'");
}

}  // namespace

std::string FormatRfc3339(TarTime time) {
  if (time.seconds < kRfc3339Min) time = {kRfc3339Min, 0};
  if (time.seconds > kRfc3339Max) time = {kRfc3339Max, 0};
  using std::chrono::days;
  const std::chrono::sys_seconds point{std::chrono::seconds(time.seconds)};
  const auto day = std::chrono::floor<days>(point);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(point - day);
  char text[48];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  std::string out = text;
  if (time.nanoseconds != 0) {
    std::snprintf(text, sizeof text, ".%09u", time.nanoseconds);
    out += text;
    out.erase(out.find_last_not_of('0') + 1);
  }
  return out + "Z";
}

Result<TarTime> ParseRfc3339(std::string_view text) {
  if (text.size() < 20 || text.size() > 64 || text[4] != '-' || text[7] != '-' ||
      (text[10] != 'T' && text[10] != 't') || text[13] != ':' || text[16] != ':') {
    return Bad(text);
  }
  const int year = Digits(text, 0, 4), month = Digits(text, 5, 2), day = Digits(text, 8, 2);
  const int hour = Digits(text, 11, 2), minute = Digits(text, 14, 2), second = Digits(text, 17, 2);
  if (std::min({year, month, day, hour, minute, second}) < 0 || hour > 23 || minute > 59 || second > 60) {
    return Bad(text);
  }
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return Bad(text);
  size_t at = 19;
  uint32_t nanoseconds = 0;
  if (text[at] == '.') {
    uint32_t unit = 100000000;
    size_t digits = 0;
    for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, ++digits) {
      nanoseconds += unit * static_cast<uint32_t>(text[at] - '0');
      unit /= 10;
    }
    if (digits == 0) return Bad(text);
  }
  std::string_view zone = text.substr(at);
  int64_t offset = 0;
  if (zone.size() == 6 && (zone[0] == '+' || zone[0] == '-') && zone[3] == ':') {
    const int zone_hour = Digits(zone, 1, 2), zone_minute = Digits(zone, 4, 2);
    if (zone_hour < 0 || zone_hour > 23 || zone_minute < 0 || zone_minute > 59) return Bad(text);
    offset = (zone[0] == '-' ? -60 : 60) * int64_t{zone_hour * 60 + zone_minute};
  } else if (zone != "Z" && zone != "z") {
    return Bad(text);
  }
  const std::chrono::sys_days days(date);
  const int64_t seconds = std::chrono::sys_seconds(days).time_since_epoch().count() +
                          int64_t{hour} * 3600 + int64_t{minute} * 60 + second - offset;
  return TarTime{seconds, nanoseconds};
}

}  // namespace headrace::format
