#include "snapshotter/cli/node/doctor.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "fusefs/base/metrics.h"
#include "fusefs/registry/client.h"

namespace headrace::cli {
namespace {

constexpr std::chrono::seconds kRegistryDeadline{20};

int Count(const std::vector<Finding>& findings, Severity severity) {
  return static_cast<int>(std::count_if(findings.begin(), findings.end(), [&](const Finding& one) { return one.severity == severity; }));
}

const char* Name(Severity severity) { return severity == Severity::kError ? "error" : "warning"; }

std::optional<DiskSpace> AskDisk(const std::string& path) {
  struct statvfs fs {};
  struct stat st {};
  if (::statvfs(path.c_str(), &fs) != 0 || ::stat(path.c_str(), &st) != 0) return std::nullopt;
  return DiskSpace{fs.f_blocks * fs.f_frsize, fs.f_bavail * fs.f_frsize, fs.f_files, fs.f_favail, st.st_dev};
}

// With the daemon's own settings: its mirrors, authorities and sources of credentials.
Result<bool> AskImage(const std::string& image, const config::FusedConfig& config) {
  HR_ASSIGN_OR_RETURN(registry::Reference reference, registry::Reference::Parse(image));
  registry::ClientOptions options;
  options.docker_config_path = config.docker_config;
  options.keychain.provider_config = config.credential_provider_config;
  options.keychain.provider_programs = config.credential_provider_bin_dir;
  options.keychain.credentials_file = config.credentials_file;
  options.plain_http_hosts = config.plain_http;
  options.hosts_dir = config.config_path;
  options.request_deadline = kRegistryDeadline;
  Metrics metrics;
  HR_ASSIGN_OR_RETURN(auto client, registry::Client::Create(options, metrics));
  HR_ASSIGN_OR_RETURN(const registry::ManifestResponse manifest, client->GetManifest(reference));
  return manifest.body.find("containerd.io/snapshot/headrace.toc") != std::string::npos || manifest.body.find("\"manifests\"") != std::string::npos;
}

}  // namespace

DoctorQuestions RealQuestions() {
  return {AskDisk, [] { return static_cast<int64_t>(::time(nullptr)); }, AskImage};
}

int DoctorReport::errors() const { return Count(findings, Severity::kError); }
int DoctorReport::warnings() const { return Count(findings, Severity::kWarning); }

void Patient::Check(bool well, std::string id, Severity severity, std::string what, std::string fix) {
  ++report.checks;
  if (!well) report.findings.push_back({std::move(id), severity, std::move(what), std::move(fix)});
}

DoctorReport RunDoctor(const NodeRoot& root, const DoctorOptions& options, const DoctorQuestions& questions) {
  Patient patient{root, options, questions, {}, {}, {}};
  Result<std::optional<std::string>> text = root.Read(options.headrace_config);
  Result<config::Config> config = !text.ok() ? Result<config::Config>(text.status())
                                  : *text    ? config::ParseConfig(**text, options.headrace_config)
                                             : Result<config::Config>(config::Config());
  patient.Check(config.ok(), "headrace-config", Severity::kError, config.status().message(), "correct " + options.headrace_config + "; both daemons refuse to start with it");
  if (config.ok()) patient.headrace = std::move(*config);
  CheckContainerd(patient);
  CheckKernel(patient);
  CheckDaemons(patient);
  CheckPlace(patient);
  CheckRegistries(patient);
  // What stops pods first.
  std::stable_sort(patient.report.findings.begin(), patient.report.findings.end(), [](const Finding& a, const Finding& b) { return a.severity > b.severity; });
  return std::move(patient.report);
}

std::string DoctorText(const DoctorReport& report) {
  std::string out;
  for (const Finding& one : report.findings) out += std::string(Name(one.severity)) + " [" + one.id + "] " + one.what + "\n  fix: " + one.fix + "\n";
  return out + std::to_string(report.checks) + " checks: " + std::to_string(report.errors()) + " errors, " + std::to_string(report.warnings()) + " warnings\n";
}

std::string DoctorJson(const DoctorReport& report) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& one : report.findings) findings.push_back({{"id", one.id}, {"severity", Name(one.severity)}, {"what", one.what}, {"fix", one.fix}});
  return nlohmann::json({{"checks", report.checks}, {"errors", report.errors()}, {"warnings", report.warnings()}, {"findings", findings}}).dump(2);
}

}  // namespace headrace::cli
