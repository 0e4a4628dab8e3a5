#include "snapshotter/cli/report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fusefs/base/text.h"

namespace headrace::cli {
namespace {

using nlohmann::json;

std::string Dump(const json& j) { return j.dump(2, ' ', false, json::error_handler_t::replace); }

std::string Seconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

uint64_t PerSecond(uint64_t bytes, double seconds) {
  return static_cast<uint64_t>(static_cast<double>(bytes) / std::max(seconds, 1e-3));
}

}  // namespace

std::string FormatTable(const std::vector<std::vector<std::string>>& rows, std::string_view alignment) {
  std::vector<size_t> width;
  for (const auto& row : rows) {
    width.resize(std::max(width.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(width[i] - row[i].size(), ' ');
      const bool right = i < alignment.size() && alignment[i] == 'r';
      line += (i == 0 ? "" : "  ") + (right ? pad + row[i] : row[i] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string FormatRatio(uint64_t uncompressed, uint64_t compressed) {
  if (compressed == 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.2fx", static_cast<double>(uncompressed) / static_cast<double>(compressed));
  return text;
}

std::string ShortDigest(const Digest& digest) { return digest.ToString().substr(0, 19); }

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7F) {
      out += c;
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
    out += escaped;
  }
  return out;
}

std::string BuildReportText(const BuildReport& report) {
  std::vector<std::vector<std::string>> rows = {{"LAYER", "DIGEST", "FILES", "SIZE", "STORED", "RATIO", "CONTENT"}};
  uint64_t size = 0;
  uint64_t tar_size = 0;
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const LayerReport& l = report.layers[i];
    size += l.size;
    tar_size += l.tar_size;
    rows.push_back({std::to_string(i), ShortDigest(l.digest), std::to_string(l.files), HumanBytes(l.tar_size), HumanBytes(l.size),
                    FormatRatio(l.tar_size, l.size), Printable(l.title) + (l.was_there ? " (was there)" : "")});
  }
  return FormatTable(rows, "rlrrrrl") + "\n" + report.target + "@" + report.digest.ToString() + "\n" +
         report.platform.ToString() + ", " + HumanBytes(tar_size) + " in " + HumanBytes(size) + ", " +
         Seconds(report.seconds) + " (" + HumanBytes(PerSecond(tar_size, report.seconds)) + "/s)\n";
}

std::string BuildReportJson(const BuildReport& report) {
  json layers = json::array();
  uint64_t size = 0;
  uint64_t tar_size = 0;
  for (const LayerReport& l : report.layers) {
    size += l.size;
    tar_size += l.tar_size;
    layers.push_back({{"digest", l.digest.ToString()},
                      {"diff_id", l.diff_id.ToString()},
                      {"size", l.size},
                      {"uncompressed_size", l.tar_size},
                      {"files", l.files},
                      {"chunks", l.chunks},
                      {"title", l.title},
                      {"was_there", l.was_there}});
  }
  return Dump({{"target", report.target},
               {"digest", report.digest.ToString()},
               {"config_digest", report.config_digest.ToString()},
               {"platform", report.platform.ToString()},
               {"layers", layers},
               {"size", size},
               {"uncompressed_size", tar_size},
               {"pushed_bytes", report.pushed},
               {"warnings", report.warnings},
               {"seconds", report.seconds},
               {"bytes_per_second", PerSecond(tar_size, report.seconds)}});
}

}  // namespace headrace::cli
