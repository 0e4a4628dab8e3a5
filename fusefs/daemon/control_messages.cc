#include "fusefs/daemon/control_messages.h"

#include <algorithm>
#include <string>

namespace headrace::daemon {
namespace {

namespace pb = headrace::control::v1;

int64_t Signed(uint64_t value) { return static_cast<int64_t>(value); }

const char* StateName(uint64_t size, uint64_t resident, bool sealed, bool busy) {
  if (sealed) return "sealed";
  if (resident >= size) return "complete";
  return resident > 0 || busy ? "streaming" : "lazy";
}

void FillFile(const LayerState& layer, const stream::FileState& state, pb::FileStatus* out) {
  const format::Entry& entry = layer.source->index->entries[state.entry];
  out->set_name(entry.name);
  out->set_size(Signed(entry.size));
  out->set_resident(Signed(state.resident));
  out->set_state(StateName(entry.size, state.resident, state.sealed, state.waiting > 0));
  out->set_reading(state.reading);
  out->set_waiting(Signed(state.waiting));
  out->set_read_bytes(Signed(state.read_bytes));
  out->set_stalls(Signed(state.stalls));
  out->set_stall_us(Signed(state.stall_us));
  out->set_errors(Signed(state.errors));
  out->set_cause(std::string(state.cause));
  out->set_last_error(state.last_error);
}

}  // namespace

void FillSpace(const cache::CacheUsage& usage, pb::CacheSpace* out) {
  out->set_used(Signed(usage.used));
  out->set_budget(Signed(usage.budget));
  out->set_low(Signed(usage.low));
  out->set_free(Signed(usage.free));
  out->set_floor(Signed(usage.floor));
  out->set_counted(usage.counted);
}

void FillLayer(const LayerState& layer, pb::StatusRequest::FileChoice files, pb::LayerStatus* out) {
  out->set_blob_digest(layer.blob_digest);
  out->set_image_ref(layer.image_ref);
  out->set_manifest_digest(layer.manifest_digest);
  out->set_format(std::string(layer.format));
  out->set_size(Signed(layer.size));
  out->set_resident(Signed(layer.resident));
  out->set_files(Signed(layer.files));
  out->set_pinned(layer.pinned);
  for (const std::string& id : layer.ids) out->add_ids(id);
  uint64_t waiting = 0, errors = 0;
  bool sealed = true;
  for (const stream::FileState& state : layer.file_states) {
    sealed = sealed && state.sealed;
    waiting += state.waiting;
    errors += state.errors;
    if (files == pb::StatusRequest::FILES_ALL || (files == pb::StatusRequest::FILES_OPEN && state.open)) FillFile(layer, state, out->add_file());
  }
  out->set_waiting(Signed(waiting));
  out->set_errors(Signed(errors));
  out->set_state(StateName(layer.size, layer.resident, sealed, waiting > 0));
}

void FillCache(std::vector<cache::StoredContent> contents, const std::vector<cache::PinRecord>& pins, bool list, pb::CacheResponse* out) {
  std::sort(contents.begin(), contents.end(), [](const auto& a, const auto& b) { return a.last_use < b.last_use; });
  std::unordered_map<Digest, uint64_t> bytes;
  uint64_t mounted = 0, pinned = 0, unused = 0;
  for (const cache::StoredContent& content : contents) {
    bytes[content.id] = content.bytes;
    mounted += content.mounted ? content.bytes : 0;
    pinned += content.pinned ? content.bytes : 0;
    unused += content.mounted || content.pinned ? 0 : content.bytes;
    if (!list) continue;
    pb::CachedContent* one = out->add_content();
    one->set_id(content.id.Hex());
    one->set_size(Signed(content.size));
    one->set_disk_bytes(Signed(content.bytes));
    one->set_last_use(content.last_use);
    one->set_open(content.open);
    one->set_pinned(content.pinned);
    one->set_mounted(content.mounted);
  }
  out->set_contents(Signed(contents.size()));
  out->set_mounted_bytes(Signed(mounted));
  out->set_pinned_bytes(Signed(pinned));
  out->set_unused_bytes(Signed(unused));
  for (const cache::PinRecord& pin : pins) {
    pb::CachePin* one = out->add_pins();
    one->set_name(pin.name);
    one->set_contents(Signed(pin.contents.size()));
    uint64_t here = 0;
    for (const Digest& id : pin.contents) {
      if (const auto it = bytes.find(id); it != bytes.end()) here += it->second;
    }
    one->set_disk_bytes(Signed(here));
  }
}

}  // namespace headrace::daemon
