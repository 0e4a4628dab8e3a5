// Goal: what a node says is shown whole and right, to people and to machines, and names of files cannot drive the terminal.
#include "snapshotter/cli/node_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace headrace::cli {
namespace {

namespace pb = headrace::control::v1;

constexpr int64_t kMib = 1 << 20;

pb::FileStatus* AddFile(pb::LayerStatus* layer, const std::string& name, int64_t size, int64_t resident, const std::string& state) {
  pb::FileStatus* file = layer->add_file();
  file->set_name(name);
  file->set_size(size);
  file->set_resident(resident);
  file->set_state(state);
  return file;
}

pb::StatusResponse Status() {
  pb::StatusResponse status;
  status.set_version("0.1.0");
  status.set_mountpoint("/run/headrace/fs");
  status.mutable_cache()->set_used(300 * kMib);
  status.mutable_cache()->set_budget(1000 * kMib);
  status.mutable_cache()->set_low(900 * kMib);
  status.mutable_cache()->set_free(5000 * kMib);
  status.mutable_cache()->set_floor(1024 * kMib);
  status.mutable_cache()->set_counted(true);
  for (const bool second : {false, true}) {
    pb::LayerStatus* layer = status.add_layers();
    layer->set_blob_digest(second ? "sha256:bb" : "sha256:aa");
    layer->set_image_ref("registry/m:v1");
    layer->set_size(200 * kMib);
    layer->set_resident(second ? 200 * kMib : 50 * kMib);
    layer->set_files(1);
    layer->set_state(second ? "sealed" : "streaming");
    layer->set_pinned(second);
    layer->set_waiting(second ? 0 : 3);
    layer->add_ids(second ? "2" : "1");
  }
  pb::FileStatus* file = AddFile(status.mutable_layers(0), "models/a\033[2J.safetensors", 200 * kMib, 50 * kMib, "streaming");
  file->set_waiting(3);
  file->set_read_bytes(40 * kMib);
  file->set_stalls(7);
  file->set_stall_us(1'500'000);
  file->set_cause("retrying");
  file->set_last_error("UNAVAILABLE: 503");
  AddFile(status.mutable_layers(1), "models/b.safetensors", 200 * kMib, 200 * kMib, "sealed");
  (*status.mutable_metrics())["headrace_wire_bytes_total"] = 70 * kMib;
  return status;
}

TEST(NodeReportTest, StatusOfImagesAndFiles) {
  const std::string text = StatusText(Status(), true);
  EXPECT_NE(text.find("cache 300.0 MiB of 1000.0 MiB (evicts down to 900.0 MiB); 4.9 GiB free on its disk, of which 1.0 GiB stay free\n"), std::string::npos) << text;
  EXPECT_NE(text.find("registry/m:v1       2      2  400.0 MiB  250.0 MiB  62%  streaming        3       0  no\n"), std::string::npos) << text;
  EXPECT_NE(text.find("retrying: UNAVAILABLE: 503"), std::string::npos) << text;
  EXPECT_NE(text.find("1.5 s"), std::string::npos) << text;
  EXPECT_EQ(text.find('\033'), std::string::npos) << "a file's name drives the terminal";
  EXPECT_EQ(StatusText(Status(), false).find("models/"), std::string::npos);
  EXPECT_NE(StatusText(pb::StatusResponse(), false).find("nothing is mounted"), std::string::npos);
}

TEST(NodeReportTest, StatusJsonHasEverything) {
  const auto json = nlohmann::json::parse(StatusJson(Status()));
  EXPECT_EQ(json["cache"]["budget"], 1000 * kMib);
  ASSERT_EQ(json["layers"].size(), 2u);
  EXPECT_EQ(json["layers"][0]["mounts"], nlohmann::json::array({"1"}));
  EXPECT_EQ(json["layers"][1]["pinned"], true);
  const auto file = json["layers"][0]["file"][0];
  EXPECT_EQ(file["cause"], "retrying");
  EXPECT_EQ(file["stall_us"], 1'500'000);
  EXPECT_EQ(json["metrics"]["headrace_wire_bytes_total"], 70 * kMib);
}

TEST(NodeReportTest, TopSortsByTroubleThenRate) {
  const pb::StatusResponse before = Status();
  pb::StatusResponse now = Status();
  (*now.mutable_metrics())["headrace_wire_bytes_total"] += 100 * kMib;
  pb::FileStatus* fast = now.mutable_layers(1)->mutable_file(0);
  fast->set_read_bytes(90 * kMib);
  const std::string text = TopText({.before = before, .now = now, .seconds = 2});
  EXPECT_NE(text.find("wire   50.0 MiB/s"), std::string::npos) << text;
  const size_t waiting = text.find("models/a"), reading = text.find("models/b");
  ASSERT_NE(waiting, std::string::npos);
  ASSERT_NE(reading, std::string::npos);
  EXPECT_LT(waiting, reading);
  EXPECT_NE(text.find("45.0 MiB/s"), std::string::npos) << text;
  // A small terminal: no line wraps, no row is too many.
  const std::string small = TopText({.before = before, .now = now, .seconds = 2, .rows = 9, .columns = 40});
  EXPECT_LE(std::count(small.begin(), small.end(), '\n'), 9);
  for (size_t at = 0; at < small.size();) {
    const size_t end = small.find('\n', at);
    EXPECT_LE(end - at, 40u);
    at = end + 1;
  }
}

TEST(NodeReportTest, Cache) {
  pb::CacheResponse cache;
  *cache.mutable_space() = Status().cache();
  cache.set_contents(2);
  cache.set_unused_bytes(kMib);
  pb::CachePin* pin = cache.add_pins();
  pin->set_name("registry/m:v1");
  pin->set_contents(9);
  pin->set_disk_bytes(7 * kMib);
  pb::CachedContent* content = cache.add_content();
  content->set_id(std::string(64, 'a'));
  content->set_size(2 * kMib);
  content->set_disk_bytes(kMib);
  content->set_last_use(1000);
  content->set_pinned(true);
  content->set_open(true);
  const std::string text = CacheText(cache, 1000 + 3 * 3600);
  EXPECT_NE(text.find("registry/m:v1         9  7.0 MiB\n"), std::string::npos) << text;
  EXPECT_NE(text.find("3 h ago  pin, open\n"), std::string::npos) << text;
  const auto json = nlohmann::json::parse(CacheJson(cache));
  EXPECT_EQ(json["pins"][0]["disk_bytes"], 7 * kMib);
  EXPECT_EQ(json["content"][0]["last_use"], 1000);
  EXPECT_EQ(json["unused_bytes"], kMib);
}

}  // namespace
}  // namespace headrace::cli
