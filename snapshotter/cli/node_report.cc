#include "snapshotter/cli/node_report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "fusefs/base/text.h"
#include "snapshotter/cli/report.h"

namespace headrace::cli {
namespace {

namespace pb = headrace::control::v1;
using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

std::string Dump(const json& j) { return j.dump(2, ' ', false, json::error_handler_t::replace); }

std::string Bytes(int64_t bytes) { return HumanBytes(static_cast<uint64_t>(std::max<int64_t>(0, bytes))); }

std::string Percent(int64_t part, int64_t whole) { return whole == 0 ? "-" : std::to_string(part * 100 / whole) + "%"; }

std::string Rate(double bytes, double seconds) { return Bytes(static_cast<int64_t>(bytes / std::max(seconds, 1e-3))) + "/s"; }

std::string Ago(int64_t seconds) {
  if (seconds < 120) return std::to_string(std::max<int64_t>(0, seconds)) + " s ago";
  if (seconds < 7200) return std::to_string(seconds / 60) + " min ago";
  if (seconds < 172'800) return std::to_string(seconds / 3600) + " h ago";
  return std::to_string(seconds / 86'400) + " d ago";
}

int64_t MetricOf(const pb::StatusResponse& status, const std::string& name) {
  const auto it = status.metrics().find(name);
  return it == status.metrics().end() ? 0 : it->second;
}

// The layers of one image together.
struct Image {
  int64_t layers = 0, files = 0, size = 0, resident = 0, waiting = 0, errors = 0;
  bool sealed = true, streaming = false, pinned = true;

  void Add(const pb::LayerStatus& layer) {
    ++layers;
    files += layer.files();
    size += layer.size();
    resident += layer.resident();
    waiting += layer.waiting();
    errors += layer.errors();
    sealed = sealed && (layer.state() == "sealed" || layer.size() == 0);
    streaming = streaming || layer.state() == "streaming";
    pinned = pinned && layer.pinned();
  }
  std::string State() const {
    if (sealed) return "sealed";
    if (resident >= size) return "complete";
    return streaming || resident > 0 ? "streaming" : "lazy";
  }
};

std::map<std::string, Image> ByImage(const pb::StatusResponse& status) {
  std::map<std::string, Image> images;
  for (const pb::LayerStatus& layer : status.layers()) images[layer.image_ref()].Add(layer);
  return images;
}

std::string CacheLine(const pb::CacheSpace& space) {
  std::string line = "cache " + Bytes(space.used());
  line += space.budget() > 0 ? " of " + Bytes(space.budget()) + " (evicts down to " + Bytes(space.low()) + ")" : ", no budget";
  line += "; " + Bytes(space.free()) + " free on its disk";
  if (space.floor() > 0) line += ", of which " + Bytes(space.floor()) + " stay free";
  return line + (space.counted() ? "\n" : "; still being counted\n");
}

// Why readers of a file wait, or what went wrong last.
std::string Trouble(const pb::FileStatus& file) {
  if (!file.cause().empty()) return file.cause() + (file.last_error().empty() ? "" : ": " + Printable(file.last_error()));
  return file.errors() > 0 ? Printable(file.last_error()) : "";
}

json FileJson(const pb::FileStatus& file) {
  return {{"name", file.name()},       {"size", file.size()},     {"resident", file.resident()}, {"state", file.state()},   {"reading", file.reading()},
          {"waiting", file.waiting()}, {"read_bytes", file.read_bytes()}, {"stalls", file.stalls()},     {"stall_us", file.stall_us()}, {"errors", file.errors()},
          {"cause", file.cause()},     {"last_error", file.last_error()}};
}

json SpaceJson(const pb::CacheSpace& space) {
  return {{"used", space.used()}, {"budget", space.budget()}, {"low", space.low()}, {"free", space.free()}, {"floor", space.floor()}, {"counted", space.counted()}};
}

std::string Cut(std::string line, unsigned columns) {
  if (columns > 0 && line.size() > columns) line.resize(columns);
  return line;
}

}  // namespace

std::string StatusText(const pb::StatusResponse& status, bool files) {
  std::string out = "headrace-fused " + status.version() + " at " + status.mountpoint() + "\n" + CacheLine(status.cache());
  out += "from registries " + Bytes(MetricOf(status, "headrace_wire_bytes_total")) + " in " + std::to_string(MetricOf(status, "headrace_wire_requests_total")) + " requests; reads " +
         Bytes(MetricOf(status, "headrace_fuse_read_bytes_total")) + ", waiting now " + std::to_string(MetricOf(status, "headrace_reads_waiting")) + ", failed " +
         std::to_string(MetricOf(status, "headrace_fuse_read_errors_total")) + "\n\n";
  if (status.layers().empty()) return out + "nothing is mounted\n";
  Rows rows = {{"IMAGE", "LAYERS", "FILES", "SIZE", "HERE", "", "STATE", "WAITING", "ERRORS", "PINNED"}};
  for (const auto& [name, image] : ByImage(status)) {
    rows.push_back({Printable(name), std::to_string(image.layers), std::to_string(image.files), Bytes(image.size), Bytes(image.resident), Percent(image.resident, image.size), image.State(),
                    std::to_string(image.waiting), std::to_string(image.errors), image.pinned ? "yes" : "no"});
  }
  out += FormatTable(rows, "lrrrrrlrrl");
  if (!files) return out;
  rows = {{"FILE", "SIZE", "HERE", "", "STATE", "WAITING", "READ", "STALLS", "STALLED", "TROUBLE"}};
  for (const pb::LayerStatus& layer : status.layers()) {
    for (const pb::FileStatus& file : layer.file()) {
      char stalled[32];
      std::snprintf(stalled, sizeof stalled, "%.1f s", static_cast<double>(file.stall_us()) / 1e6);
      rows.push_back({Printable(file.name()), Bytes(file.size()), Bytes(file.resident()), Percent(file.resident(), file.size()), file.state(), std::to_string(file.waiting()),
                      Bytes(file.read_bytes()), std::to_string(file.stalls()), stalled, Trouble(file)});
    }
  }
  return out + "\n" + FormatTable(rows, "lrrrlrrrrl");
}

std::string StatusJson(const pb::StatusResponse& status) {
  json layers = json::array();
  for (const pb::LayerStatus& layer : status.layers()) {
    json one = {{"blob_digest", layer.blob_digest()}, {"image_ref", layer.image_ref()}, {"manifest_digest", layer.manifest_digest()}, {"format", layer.format()}, {"state", layer.state()},
                {"size", layer.size()}, {"resident", layer.resident()}, {"files", layer.files()}, {"pinned", layer.pinned()}, {"waiting", layer.waiting()}, {"errors", layer.errors()},
                {"mounts", json::array()}, {"file", json::array()}};
    for (const std::string& id : layer.ids()) one["mounts"].push_back(id);
    for (const pb::FileStatus& file : layer.file()) one["file"].push_back(FileJson(file));
    layers.push_back(std::move(one));
  }
  json metrics = json::object();
  for (const auto& [name, value] : status.metrics()) metrics[name] = value;
  return Dump({{"version", status.version()}, {"mountpoint", status.mountpoint()}, {"cache", SpaceJson(status.cache())}, {"layers", layers}, {"metrics", metrics}});
}

std::string CacheText(const pb::CacheResponse& cache, int64_t now) {
  std::string out = CacheLine(cache.space());
  out += std::to_string(cache.contents()) + " contents: " + Bytes(cache.mounted_bytes()) + " in mounted images, " + Bytes(cache.pinned_bytes()) + " pinned, " +
         Bytes(cache.unused_bytes()) + " neither\n";
  if (!cache.pins().empty()) {
    Rows rows = {{"PIN", "CONTENTS", "HERE"}};
    for (const pb::CachePin& pin : cache.pins()) rows.push_back({Printable(pin.name()), std::to_string(pin.contents()), Bytes(pin.disk_bytes())});
    out += "\n" + FormatTable(rows, "lrr");
  }
  if (cache.content().empty()) return out;
  Rows rows = {{"CONTENT", "SIZE", "HERE", "USED", "KEPT BY"}};
  for (const pb::CachedContent& content : cache.content()) {
    std::string kept = content.pinned() ? "pin" : "";
    if (content.open()) kept += kept.empty() ? "open" : ", open";
    if (content.mounted()) kept += kept.empty() ? "mount" : ", mount";
    rows.push_back({content.id().substr(0, 16), Bytes(content.size()), Bytes(content.disk_bytes()), Ago(now - content.last_use()), kept});
  }
  return out + "\n" + FormatTable(rows, "lrrrl");
}

std::string CacheJson(const pb::CacheResponse& cache) {
  json pins = json::array(), contents = json::array();
  for (const pb::CachePin& pin : cache.pins()) pins.push_back({{"name", pin.name()}, {"contents", pin.contents()}, {"disk_bytes", pin.disk_bytes()}});
  for (const pb::CachedContent& content : cache.content()) {
    contents.push_back({{"id", content.id()}, {"size", content.size()}, {"disk_bytes", content.disk_bytes()}, {"last_use", content.last_use()}, {"open", content.open()},
                        {"pinned", content.pinned()}, {"mounted", content.mounted()}});
  }
  return Dump({{"space", SpaceJson(cache.space())}, {"contents", cache.contents()}, {"mounted_bytes", cache.mounted_bytes()}, {"pinned_bytes", cache.pinned_bytes()},
               {"unused_bytes", cache.unused_bytes()}, {"pins", pins}, {"content", contents}});
}

std::string TopText(const TopScreen& screen) {
  const auto change = [&](const char* name) { return static_cast<double>(MetricOf(screen.now, name) - MetricOf(screen.before, name)); };
  const auto now = [&](const char* name) { return MetricOf(screen.now, name); };
  const double s = std::max(screen.seconds, 1e-3);
  std::vector<std::string> lines;
  lines.push_back("headrace top: " + screen.now.mountpoint() + ", headrace-fused " + screen.now.version());
  lines.push_back("wire   " + Rate(change("headrace_wire_bytes_total"), s) + ", " + std::to_string(now("headrace_ranges_active")) + " ranges under way, " +
                  std::to_string(now("headrace_ranges_queued")) + " queued, " + Bytes(now("headrace_inflight_bytes")) + " in memory");
  lines.push_back("reads  " + Rate(change("headrace_fuse_read_bytes_total"), s) + " through FUSE, " + std::to_string(now("headrace_reads_waiting")) + " waiting, " +
                  std::to_string(static_cast<int64_t>(change("headrace_reads_stalled_total") / s)) + " stalls/s, " + std::to_string(now("headrace_fuse_read_errors_total")) + " failed");
  std::string cache = CacheLine(screen.now.cache());
  cache.pop_back();
  lines.push_back(cache + "; evicting " + Rate(change("headrace_cache_evicted_bytes_total"), s));
  std::map<std::pair<std::string, std::string>, int64_t> read_before;
  for (const pb::LayerStatus& layer : screen.before.layers()) {
    for (const pb::FileStatus& file : layer.file()) read_before[{layer.blob_digest(), file.name()}] = file.read_bytes();
  }
  std::vector<std::pair<double, std::vector<std::string>>> files;
  for (const pb::LayerStatus& layer : screen.now.layers()) {
    for (const pb::FileStatus& file : layer.file()) {
      const auto before = read_before.find({layer.blob_digest(), file.name()});
      const double rate = static_cast<double>(file.read_bytes() - (before == read_before.end() ? 0 : std::min(before->second, file.read_bytes()))) / s;
      files.push_back({rate + static_cast<double>(file.waiting()) * 1e12,
                       {file.state(), Bytes(file.size()), Percent(file.resident(), file.size()), Rate(rate, 1), std::to_string(file.waiting()), std::to_string(file.stalls()),
                        std::to_string(file.errors()), Printable(file.name()), Trouble(file)}});
    }
  }
  std::stable_sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const size_t room = screen.rows > lines.size() + 3 ? screen.rows - lines.size() - 3 : files.size();
  Rows rows = {{"STATE", "SIZE", "HERE", "READ", "WAIT", "STALLS", "ERR", "FILE", "TROUBLE"}};
  for (size_t i = 0; i < std::min(files.size(), screen.rows == 0 ? files.size() : room); ++i) rows.push_back(files[i].second);
  std::string out;
  for (const std::string& line : lines) out += Cut(line, screen.columns) + "\n";
  out += "\n";
  const std::string table = FormatTable(rows, "lrrrrrrll");
  for (const std::string_view line : Split(table, '\n')) {
    if (!line.empty()) out += Cut(std::string(line), screen.columns) + "\n";
  }
  return out;
}

}  // namespace headrace::cli
