#include "snapshotter/cli/node/install_record.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"

namespace headrace::cli {
namespace {

using Json = nlohmann::json;

constexpr int kRecordVersion = 1;
constexpr uint64_t kRecordMax = 32 << 20;

unsigned ModeOf(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0644;
}

Json Encode(const std::optional<std::string>& text) { return text ? Json(Base64Encode(*text)) : Json(nullptr); }

Result<std::optional<std::string>> Decode(const Json& json) {
  if (json.is_null()) return std::optional<std::string>();
  HR_ASSIGN_OR_RETURN(std::string text, Base64Decode(json.get<std::string>()));
  return std::optional<std::string>(std::move(text));
}

// Those that MakeDirs will have to make, deepest first.
std::vector<std::string> MissingDirectories(const NodeRoot& root, const std::string& file) {
  std::vector<std::string> missing;
  for (std::string at = DirectoryOf(file); at != "/" && !root.Exists(at); at = DirectoryOf(at)) missing.push_back(at);
  return missing;
}

Status WriteOrRemove(const NodeRoot& root, const std::string& path, const std::optional<std::string>& text, unsigned mode) {
  const std::string real = root.At(path);
  if (!text) {
    if (::unlink(real.c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "remove " + real);
    return OkStatus();
  }
  HR_RETURN_IF_ERROR(MakeDirs(root.At(DirectoryOf(path)), 0755));
  return WriteFileAtomic(real, *text, mode);
}

struct RecordedFile {
  FileChange change;
  unsigned mode = 0644;
  std::vector<std::string> made;
};

Result<std::vector<RecordedFile>> ReadRecord(const NodeRoot& root) {
  Result<std::string> text = ReadFile(root.At(kInstallRecord), kRecordMax);
  if (!text.ok()) return text.status().code() == StatusCode::kNotFound ? NotFoundError("headrace install changed nothing on this node") : text.status();
  try {
    const Json json = Json::parse(*text);
    if (json.at("version") != kRecordVersion) return FailedPreconditionError(std::string(kInstallRecord) + " was written by another version of headrace");
    std::vector<RecordedFile> files;
    for (const Json& one : json.at("files")) {
      RecordedFile file;
      file.change.path = one.at("path").get<std::string>();
      HR_ASSIGN_OR_RETURN(file.change.before, Decode(one.at("before")));
      HR_ASSIGN_OR_RETURN(file.change.after, Decode(one.at("after")));
      file.mode = one.at("mode").get<unsigned>();
      file.made = one.at("made_directories").get<std::vector<std::string>>();
      files.push_back(std::move(file));
    }
    return files;
  } catch (const Json::exception& error) {
    return InvalidArgumentError(std::string(kInstallRecord) + ": " + error.what());
  }
}

}  // namespace

Status ApplyInstall(const NodeRoot& root, const InstallPlan& plan) {
  Json files = Json::array();
  for (const FileChange& change : plan.changes) {
    files.push_back({{"path", change.path}, {"before", Encode(change.before)}, {"after", Encode(change.after)},
                     {"mode", ModeOf(root.At(change.path))}, {"made_directories", MissingDirectories(root, change.path)}});
  }
  HR_RETURN_IF_ERROR(MakeDirs(root.At(DirectoryOf(kInstallRecord))));
  HR_RETURN_IF_ERROR(WriteFileAtomic(root.At(kInstallRecord), Json({{"version", kRecordVersion}, {"files", files}}).dump(1)));
  for (const FileChange& change : plan.changes) HR_RETURN_IF_ERROR(WriteOrRemove(root, change.path, change.after, ModeOf(root.At(change.path))));
  return OkStatus();
}

Result<RestoreReport> RestoreInstall(const NodeRoot& root, bool only_look) {
  HR_ASSIGN_OR_RETURN(const std::vector<RecordedFile> files, ReadRecord(root));
  RestoreReport report;
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    HR_ASSIGN_OR_RETURN(const std::optional<std::string> now, root.Read(file->change.path));
    if (now == file->change.before) continue;
    if (now != file->change.after) {
      report.kept.push_back(file->change.path);
      continue;
    }
    report.done.push_back({file->change.path, now, file->change.before});
    if (only_look) continue;
    HR_RETURN_IF_ERROR(WriteOrRemove(root, file->change.path, file->change.before, file->mode));
    for (const std::string& directory : file->made) ::rmdir(root.At(directory).c_str());  // stays if somebody put something in
  }
  if (!only_look && report.kept.empty() && ::unlink(root.At(kInstallRecord).c_str()) != 0) return Status::FromErrno(errno, "remove " + root.At(kInstallRecord));
  return report;
}

}  // namespace headrace::cli
