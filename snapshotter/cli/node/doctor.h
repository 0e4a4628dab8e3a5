// What `headrace doctor` looks at and what it finds: checks in the order in which things depend on each other, each finding with its fix.
// Reads files of the node (below NodeRoot) and asks three things of the machine, which a test answers itself (DoctorQuestions). Blocks on the disk, and on the registry
// if an image is given. One thread.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_DOCTOR_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_DOCTOR_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "fusefs/base/status.h"
#include "snapshotter/cli/node/containerd_setup.h"
#include "snapshotter/cli/node/node_root.h"

namespace headrace::cli {

// kError: pods do not start, or models are downloaded whole. kWarning: slower, or one day an error.
enum class Severity { kWarning, kError };

struct Finding {
  std::string id;  // stable, for automation
  Severity severity = Severity::kError;
  std::string what;
  std::string fix;
};

struct DiskSpace {
  uint64_t total = 0, free = 0;      // bytes
  uint64_t inodes = 0, inodes_free = 0;
  uint64_t device = 0;
};

struct DoctorQuestions {
  std::function<std::optional<DiskSpace>(const std::string& real_path)> disk;
  std::function<int64_t()> now;  // seconds since 1970, by the wall clock
  // Nothing wrong: the image's manifest could be had. `lazy` says whether a layer has a table of contents.
  std::function<Result<bool>(const std::string& image, const config::FusedConfig& config)> image_is_lazy;
};
DoctorQuestions RealQuestions();

struct DoctorOptions {
  std::string headrace_config;  // path on the node
  ContainerdQuestion containerd;
  std::vector<std::string> images;
};

struct DoctorReport {
  std::vector<Finding> findings;
  int checks = 0;
  int errors() const;
  int warnings() const;
};

DoctorReport RunDoctor(const NodeRoot& root, const DoctorOptions& options, const DoctorQuestions& questions);

std::string DoctorText(const DoctorReport& report);
std::string DoctorJson(const DoctorReport& report);

// Between the parts (doctor_*.cc).
struct Patient {
  const NodeRoot& root;
  const DoctorOptions& options;
  const DoctorQuestions& questions;
  config::Config headrace;
  std::optional<ContainerdSetup> containerd;
  DoctorReport report;

  // One check: a finding if it is not well.
  void Check(bool well, std::string id, Severity severity, std::string what, std::string fix);
};
void CheckContainerd(Patient& patient);
void CheckKernel(Patient& patient);
void CheckDaemons(Patient& patient);
void CheckPlace(Patient& patient);
void CheckRegistries(Patient& patient);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_DOCTOR_H_
