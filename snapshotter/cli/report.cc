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

namespace {

std::string_view ActionName(LayerAction action) {
  switch (action) {
    case LayerAction::kConverted: return "converted";
    case LayerAction::kKept: return "kept";
    case LayerAction::kForeign: return "foreign";
  }
  return "";
}

json ConvertedLayerJson(const ConvertedLayer& layer) {
  json j = {{"source_digest", layer.source.ToString()},
            {"source_size", layer.source_size},
            {"digest", layer.descriptor.digest.ToString()},
            {"size", layer.descriptor.size},
            {"action", ActionName(layer.action)}};
  if (layer.diff_id) {
    j["diff_id"] = layer.diff_id->ToString();
    j["uncompressed_size"] = layer.tar_size;
  }
  return j;
}

char TypeLetter(format::EntryType type) {
  switch (type) {
    case format::EntryType::kRegular: return '-';
    case format::EntryType::kDirectory: return 'd';
    case format::EntryType::kSymlink: return 'l';
    case format::EntryType::kHardlink: return 'h';
    case format::EntryType::kCharDevice: return 'c';
    case format::EntryType::kBlockDevice: return 'b';
    case format::EntryType::kFifo: return 'p';
  }
  return '?';
}

std::string ModeText(const format::Entry& entry) {
  std::string out(1, TypeLetter(entry.type));
  for (int shift = 6; shift >= 0; shift -= 3) {
    const uint32_t bits = entry.mode >> shift;
    out += (bits & 4) != 0 ? 'r' : '-';
    out += (bits & 2) != 0 ? 'w' : '-';
    out += (bits & 1) != 0 ? 'x' : '-';
  }
  return out;
}

uint64_t StoredSize(const format::LayerIndex& index, const format::Entry& entry) {
  uint64_t size = 0;
  for (uint32_t i = 0; i < entry.chunk_count; ++i) size += index.chunks[entry.first_chunk + i].blob_size;
  return size;
}

std::string FilesText(const format::LayerIndex& index) {
  std::vector<std::vector<std::string>> rows = {{"MODE", "OWNER", "SIZE", "STORED", "CHUNKS", "NAME"}};
  for (const format::Entry& e : index.entries) {
    const bool regular = e.type == format::EntryType::kRegular;
    std::string name = "/" + Printable(e.name);
    if (!e.link_target.empty()) name += " -> " + Printable(e.link_target);
    rows.push_back({ModeText(e), std::to_string(e.uid) + ":" + std::to_string(e.gid), regular ? std::to_string(e.size) : "",
                    regular ? std::to_string(StoredSize(index, e)) : "", regular ? std::to_string(e.chunk_count) : "",
                    std::move(name)});
  }
  return FormatTable(rows, "llrrrl");
}

json FilesJson(const format::LayerIndex& index) {
  static constexpr const char* kTypes[] = {"file", "directory", "symlink", "hardlink", "char", "block", "fifo"};
  json files = json::array();
  for (const format::Entry& e : index.entries) {
    json j = {{"name", e.name}, {"type", kTypes[static_cast<size_t>(e.type)]}, {"mode", e.mode}, {"uid", e.uid},
              {"gid", e.gid},   {"mtime", e.mtime_s}};
    if (!e.link_target.empty()) j["link"] = e.link_target;
    if (e.type == format::EntryType::kRegular) {
      j["size"] = e.size;
      j["stored_size"] = StoredSize(index, e);
      j["chunks"] = e.chunk_count;
      if (!e.file_digest.empty()) j["digest"] = e.file_digest.ToString();
    }
    files.push_back(std::move(j));
  }
  return files;
}

std::string LayerKind(const InspectedLayer& layer) {
  if (layer.lazy) return "lazy";
  return layer.problem.empty() ? "whole" : "BROKEN";
}

std::string ImageText(const InspectedImage& image, bool files) {
  std::string out = (image.is_image ? image.platform.ToString() : std::string("artifact")) + "  " + image.digest.ToString() + "\n";
  std::vector<std::vector<std::string>> rows = {{"LAYER", "DIGEST", "KIND", "FILES", "CHUNKS", "SIZE", "STORED", "RATIO"}};
  for (const InspectedLayer& l : image.layers) {
    const bool lazy = l.lazy;
    rows.push_back({std::to_string(l.number), ShortDigest(l.descriptor.digest), image.is_image ? LayerKind(l) : "blob",
                    lazy ? std::to_string(l.files) : "-", lazy ? std::to_string(l.chunks) : "-",
                    lazy ? HumanBytes(l.file_bytes) : "-", HumanBytes(l.descriptor.size),
                    lazy ? FormatRatio(l.file_bytes, l.descriptor.size) : "-"});
  }
  out += FormatTable(rows, "rllrrrrr");
  for (const InspectedLayer& l : image.layers) {
    if (!l.problem.empty()) out += "layer " + std::to_string(l.number) + " is not lazy: " + Printable(l.problem) + "\n";
    if (files && l.lazy) out += "\nlayer " + std::to_string(l.number) + ":\n" + FilesText(l.index);
  }
  return out;
}

json InspectedLayerJson(const InspectedLayer& l, bool files) {
  json j = {{"layer", l.number},
            {"digest", l.descriptor.digest.ToString()},
            {"media_type", l.descriptor.media_type},
            {"size", l.descriptor.size},
            {"lazy", l.lazy}};
  if (l.diff_id) j["diff_id"] = l.diff_id->ToString();
  if (!l.problem.empty()) j["problem"] = l.problem;
  if (!l.lazy) return j;
  j["file_bytes"] = l.file_bytes;
  j["files"] = l.files;
  j["entries"] = l.entries;
  j["chunks"] = l.chunks;
  j["ratio"] = l.descriptor.size == 0 ? 0 : static_cast<double>(l.file_bytes) / static_cast<double>(l.descriptor.size);
  j["toc"] = {{"digest", l.toc_digest.ToString()}, {"size", l.toc_bytes}, {"uncompressed_size", l.toc_json_bytes}};
  if (files) j["file_list"] = FilesJson(l.index);
  return j;
}

}  // namespace

std::string ConvertReportText(const ConvertReport& report) {
  std::string out;
  for (const ConvertedImage& image : report.images) {
    out += image.platform.ToString() + "  " + image.digest.ToString() + "\n";
    std::vector<std::vector<std::string>> rows = {{"LAYER", "FROM", "TO", "WAS", "IS", ""}};
    for (size_t i = 0; i < image.layers.size(); ++i) {
      const ConvertedLayer& l = image.layers[i];
      rows.push_back({std::to_string(i), ShortDigest(l.source), ShortDigest(l.descriptor.digest), HumanBytes(l.source_size),
                      HumanBytes(l.descriptor.size), std::string(ActionName(l.action))});
    }
    out += FormatTable(rows, "rllrrl") + "\n";
  }
  if (report.copied_manifests > 0) out += std::to_string(report.copied_manifests) + " artifacts copied as they are\n";
  out += report.target + "@" + report.digest.ToString() + (report.digest == report.source_digest ? " (unchanged)" : "") + "\n" +
         Seconds(report.seconds) + "\n";
  return out;
}

std::string ConvertReportJson(const ConvertReport& report) {
  json images = json::array();
  for (const ConvertedImage& image : report.images) {
    json layers = json::array();
    for (const ConvertedLayer& layer : image.layers) layers.push_back(ConvertedLayerJson(layer));
    images.push_back({{"platform", image.platform.ToString()},
                      {"source_digest", image.source.ToString()},
                      {"digest", image.digest.ToString()},
                      {"config_digest", image.config_digest.ToString()},
                      {"layers", layers}});
  }
  return Dump({{"source", report.source},
               {"target", report.target},
               {"source_digest", report.source_digest.ToString()},
               {"digest", report.digest.ToString()},
               {"images", images},
               {"copied_manifests", report.copied_manifests},
               {"pushed_bytes", report.pushed},
               {"seconds", report.seconds}});
}

std::string InspectReportText(const InspectReport& report, bool files) {
  std::string out = report.image + "@" + report.digest.ToString() + "\n" + Printable(report.media_type) + "\n";
  for (const InspectedImage& image : report.images) out += "\n" + ImageText(image, files);
  return out;
}

std::string InspectReportJson(const InspectReport& report, bool files) {
  json images = json::array();
  for (const InspectedImage& image : report.images) {
    json layers = json::array();
    for (const InspectedLayer& layer : image.layers) layers.push_back(InspectedLayerJson(layer, files));
    json j = {{"digest", image.digest.ToString()},
              {"media_type", image.media_type},
              {"config_digest", image.config_digest.ToString()},
              {"artifact", !image.is_image},
              {"layers", layers}};
    if (image.is_image) j["platform"] = image.platform.ToString();
    images.push_back(std::move(j));
  }
  return Dump({{"image", report.image},
               {"digest", report.digest.ToString()},
               {"media_type", report.media_type},
               {"images", images}});
}

std::string VerifyReportText(const VerifyReport& report) {
  std::string out;
  for (const Finding& finding : report.findings) out += "WRONG  " + finding.where + ": " + Printable(finding.what) + "\n";
  out += report.image + ": " + std::to_string(report.images) + (report.images == 1 ? " image, " : " images, ") +
         std::to_string(report.layers) + " layers (" + std::to_string(report.lazy_layers) + " lazy), " +
         std::to_string(report.chunks) + " chunks, " + HumanBytes(report.bytes) + " checked in " + Seconds(report.seconds) + ": ";
  if (report.findings.empty()) return out + "all right\n";
  return out + std::to_string(report.findings.size()) + (report.findings.size() == 1 ? " finding\n" : " findings\n");
}

std::string VerifyReportJson(const VerifyReport& report) {
  json findings = json::array();
  for (const Finding& finding : report.findings) findings.push_back({{"where", finding.where}, {"what", finding.what}});
  return Dump({{"image", report.image},
               {"digest", report.digest.ToString()},
               {"ok", report.findings.empty()},
               {"findings", findings},
               {"images", report.images},
               {"artifacts", report.artifacts},
               {"layers", report.layers},
               {"lazy_layers", report.lazy_layers},
               {"chunks", report.chunks},
               {"bytes", report.bytes},
               {"uncompressed_bytes", report.tar_bytes},
               {"seconds", report.seconds}});
}

}  // namespace headrace::cli
