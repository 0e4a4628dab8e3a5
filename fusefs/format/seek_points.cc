#include "fusefs/format/seek_points.h"

#include <utility>

#include "fusefs/base/text.h"
#include "fusefs/format/limits.h"

namespace headrace::format {

void SeekPointCollector::Add(SeekPoint boundary) {
  if (!FarEnough(boundary, points_.empty() ? SeekPoint() : points_.back())) return;
  points_.push_back(boundary);
  if (points_.size() <= limits::kSeekPointsMax) return;
  apart_ *= 2;
  SeekPoints all;
  all.swap(points_);
  for (const SeekPoint& point : all) {
    if (FarEnough(point, points_.empty() ? SeekPoint() : points_.back())) points_.push_back(point);
  }
}

SeekPoints SeekPointCollector::Below(uint64_t decoded_size) const {
  SeekPoints below = points_;
  while (!below.empty() && below.back().decoded_offset >= decoded_size) below.pop_back();
  return below;
}

std::string WriteSeekPoints(const SeekPoints& points) {
  std::string text;
  SeekPoint before;
  for (const SeekPoint& point : points) {
    text += " " + std::to_string(point.blob_offset - before.blob_offset) + ":" + std::to_string(point.decoded_offset - before.decoded_offset);
    before = point;
  }
  return text;
}

Result<SeekPoints> ReadSeekPoints(std::string_view text, uint64_t decoded_size) {
  SeekPoints points;
  SeekPoint point;
  while (!text.empty()) {
    if (text.front() != ' ') return DataLossError("seek points: no space before a point");
    text.remove_prefix(1);
    const std::string_view item = text.substr(0, text.find(' '));
    text.remove_prefix(item.size());
    const size_t colon = item.find(':');
    if (colon == std::string_view::npos) return DataLossError("seek points: a point without ':'");
    const Result<uint64_t> blob_step = ParseU64(item.substr(0, colon)), decoded_step = ParseU64(item.substr(colon + 1));
    if (!blob_step.ok() || !decoded_step.ok()) return DataLossError("seek points: a point that is not two numbers");
    const bool fits = *blob_step > 0 && *decoded_step > 0 && *blob_step < limits::kBlobSizeMax - point.blob_offset &&
                      point.decoded_offset < decoded_size && *decoded_step < decoded_size - point.decoded_offset;
    if (!fits) return DataLossError("seek points: point " + std::to_string(points.size()) + " does not ascend, or is outside the blob");
    if (points.size() >= limits::kSeekPointsMax) return DataLossError("seek points: more than " + std::to_string(limits::kSeekPointsMax));
    point.blob_offset += *blob_step;
    point.decoded_offset += *decoded_step;
    points.push_back(point);
  }
  return points;
}

}  // namespace headrace::format
