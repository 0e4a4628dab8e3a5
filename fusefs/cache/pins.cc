#include "fusefs/cache/pins.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/base/text.h"

namespace headrace::cache {
namespace {

constexpr std::string_view kFirstLine = "headrace pin 1";
constexpr std::string_view kNameKey = "name ";
constexpr std::string_view kNoteKey = "note ";
constexpr std::string_view kEndKey = "end ";

std::optional<Digest> ParseId(std::string_view hex) {
  auto digest = Digest::Parse("sha256:" + std::string(hex));
  return digest.ok() ? std::optional(*digest) : std::nullopt;
}

bool ValidName(std::string_view name) {
  return !name.empty() && name.size() <= kPinNameMax && std::all_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
}

}  // namespace

std::string EncodePin(const PinRecord& pin) {
  std::string out = std::string(kFirstLine) + "\n" + std::string(kNameKey) + pin.name + "\n";
  out.reserve(out.size() + pin.contents.size() * 65 + 32);
  for (const std::string& note : pin.notes) out += std::string(kNoteKey) + note + "\n";
  for (const Digest& id : pin.contents) out += id.Hex() + "\n";
  return out + std::string(kEndKey) + Digest::Of(out).Hex() + "\n";
}

PinRecord ParsePin(std::string_view text) {
  PinRecord record;
  record.damaged = true;
  const std::vector<std::string_view> lines = Split(text, '\n');
  for (const std::string_view line : lines) {
    if (line == kFirstLine || line.empty()) continue;
    if (line.starts_with(kNameKey) && record.name.empty() && ValidName(line.substr(kNameKey.size()))) {
      record.name = line.substr(kNameKey.size());
    } else if (line.starts_with(kNoteKey) && ValidName(line.substr(kNoteKey.size()))) {
      record.notes.emplace_back(line.substr(kNoteKey.size()));
    } else if (line.starts_with(kEndKey)) {
      const std::string_view before = text.substr(0, static_cast<size_t>(line.data() - text.data()));
      record.damaged = Digest::Of(before).Hex() != line.substr(kEndKey.size()) || lines.front() != kFirstLine || record.name.empty();
    } else if (const auto id = ParseId(line)) {
      record.contents.push_back(*id);
    }
  }
  return record;
}

std::string Pins::PathOf(const std::string& name) const { return directory_ + "/" + Digest::Of(name).Hex(); }

void Pins::Count(const std::vector<Digest>& contents) {
  for (const Digest& id : contents) ++counts_[id];
}

Status Pins::Load() {
  HR_RETURN_IF_ERROR(MakeDirs(directory_));
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    const std::string file = entry.path().filename();
    if (!ParseId(file)) continue;  // a temporary file that a crash left
    Result<std::string> text = ReadFile(entry.path(), kPinFileSizeMax);
    if (!text.ok()) {
      log::Error("a pin cannot be read, what it protects is not known file={} error=\"{}\"", entry.path().string(), text.status().ToString());
      continue;
    }
    PinRecord record = ParsePin(*text);
    if (record.damaged) log::Error("a pin is damaged, what is readable of it is pinned file={} contents={}", entry.path().string(), record.contents.size());
    // Found by its file's name again, whatever became of the name inside.
    if (record.name.empty() || Digest::Of(record.name).Hex() != file) record.name = file;
    MutexLock lock(mu_);
    Count(record.contents);
    pins_[record.name] = std::move(record);
  }
  return error ? Status::FromErrno(error.value(), "list " + directory_) : OkStatus();
}

Status Pins::Set(const std::string& name, const std::vector<Digest>& contents, const std::vector<std::string>& notes) {
  if (!ValidName(name) || !std::all_of(notes.begin(), notes.end(), [](const std::string& note) { return ValidName(note); })) {
    return InvalidArgumentError("a pin's name must be 1 to " + std::to_string(kPinNameMax) + " characters without control characters");
  }
  MutexLock change(change_mu_);
  PinRecord pin;
  {
    MutexLock lock(mu_);
    PinRecord& known = pins_[name];
    known.name = name;
    std::set<Digest> added(contents.begin(), contents.end());
    for (const Digest& id : known.contents) added.erase(id);
    Count({added.begin(), added.end()});  // before it is durable: what is about to be pinned is not to be evicted meanwhile
    known.contents.insert(known.contents.end(), added.begin(), added.end());
    for (const std::string& note : notes) {
      if (std::find(known.notes.begin(), known.notes.end(), note) == known.notes.end()) known.notes.push_back(note);
    }
    pin = known;
  }
  return WriteFileAtomic(PathOf(name), EncodePin(pin)).Annotate("pin " + name);
}

Status Pins::Remove(const std::string& name) {
  MutexLock change(change_mu_);
  {
    MutexLock lock(mu_);
    if (!pins_.contains(name)) return NotFoundError("there is no pin \"" + name + "\"");
  }
  // A damaged one may be known by the name of its file only.
  for (const std::string& path : {PathOf(name), directory_ + "/" + (ParseId(name) ? name : Digest::Of(name).Hex())}) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "unlink " + path);
  }
  HR_RETURN_IF_ERROR(FsyncDir(directory_));
  MutexLock lock(mu_);
  for (const Digest& id : pins_[name].contents) {
    if (auto it = counts_.find(id); it != counts_.end() && --it->second == 0) counts_.erase(it);
  }
  pins_.erase(name);
  return OkStatus();
}

bool Pins::IsPinned(const Digest& id) const {
  MutexLock lock(mu_);
  return counts_.contains(id);
}

std::vector<PinRecord> Pins::List() const {
  MutexLock lock(mu_);
  std::vector<PinRecord> pins;
  for (const auto& [name, pin] : pins_) pins.push_back(pin);
  return pins;
}

}  // namespace headrace::cache
