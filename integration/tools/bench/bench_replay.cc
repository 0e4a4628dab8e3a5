// bench-replay: reads a model directory as a loader would and says how long that took.
//
//   bench-replay --pattern P1|P2|P2f|P3|P3s|P4|P5|P6|P7|P8|P9|P10 --dir DIR
//                [--like DIR] [--processes N] [--limit BYTES] [--expect FILE] [--checksum full|sampled] [--ring BYTES] [--seed N]
// Prints {"pattern","processes","bytes","files","first_byte_s","open_s","resident_s","throughput","cpu_s","major_faults",
// "checksum","checksum_mode"}. README.md beside this file says what each pattern does.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "fusefs/base/file.h"
#include "integration/tools/bench/common.h"
#include "integration/tools/bench/replay_session.h"

namespace headrace::bench {
namespace {

constexpr unsigned kProcessesMax = 64;
constexpr uint64_t kRingDefault = kGib;  // of all processes together

// A page that a file system cannot read kills the reader of a mapping; say so before.
void OnSigbus(int) {
  static const char kText[] = "bench-replay: SIGBUS: a mapped page could not be read\n";
  (void)!write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(1);
}

uint64_t MajorFaults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_majflt);
}

// What the processes of one run share.
struct Shared {
  std::atomic<unsigned> ready{0};
  std::atomic<bool> go{false};
  ReplayReport reports[kProcessesMax];
};

void Measure(const ReplayOptions& options, unsigned number, Shared& shared) {
  ReplayReport& report = shared.reports[number];
  try {
    const Pattern& pattern = *FindPattern(options.pattern);
    ReplaySession session(options, number, pattern.threads, pattern.block);
    ++shared.ready;
    while (!shared.go) usleep(200);
    const double cpu = OwnCpu();
    const uint64_t faults = MajorFaults();
    report.begin = Now();
    pattern.run(session);
    report.end = Now();
    report.cpu_s = OwnCpu() - cpu;
    report.major_faults = MajorFaults() - faults;
    session.Count(report);
  } catch (const std::exception& e) {
    snprintf(report.error, sizeof report.error, "%s", e.what());
  }
}

// Forks the processes and lets them go when all have their memory.
void RunProcesses(const ReplayOptions& options, Shared& shared) {
  std::vector<pid_t> children;
  for (unsigned i = 0; i < options.processes; ++i) {
    const pid_t pid = fork();
    if (pid < 0) FailErrno("fork");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      Measure(options, i, shared);
      _exit(shared.reports[i].error[0] == '\0' ? 0 : 1);
    }
    children.push_back(pid);
  }
  bool failed = false;
  while (shared.ready < options.processes && !failed) {
    usleep(500);
    for (const pid_t pid : children) {
      siginfo_t info{};  // looked at, not reaped: below
      failed = failed || (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0);
    }
  }
  shared.go = true;
  for (unsigned i = 0; i < options.processes; ++i) {
    int status = 0;
    if (waitpid(children[i], &status, 0) < 0) FailErrno("waitpid");
    char* const error = shared.reports[i].error;
    if (status != 0 && error[0] == '\0') snprintf(error, sizeof shared.reports[i].error, "a process ended with status %d", status);
  }
}

// One report of all processes. P9's processes read disjoint parts of the tensors; of other patterns each reads everything.
ReplayReport Combine(const ReplayOptions& options, const Shared& shared) {
  ReplayReport all = shared.reports[0];
  for (unsigned i = 0; i < options.processes; ++i) {
    const ReplayReport& one = shared.reports[i];
    if (one.error[0] != '\0') Fail(one.error);
    if (i == 0) continue;
    all.bytes += one.bytes;
    all.begin = std::min(all.begin, one.begin);
    all.end = std::max(all.end, one.end);
    all.first_byte_s = std::max(all.first_byte_s, one.first_byte_s);
    all.open_s += one.open_s;
    all.cpu_s += one.cpu_s;
    all.major_faults += one.major_faults;
    if (options.pattern == "P9") {
      all.checksum += one.checksum;
    } else if (one.checksum != all.checksum) {
      Fail("two processes read different bytes");
    }
  }
  return all;
}

std::string Hex(uint64_t value) {
  char text[17];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

// FILE has the output of another run, or only its checksum.
void CheckExpected(const std::string& path, const Json& result) {
  const std::string text = Get(ReadFile(path, kMib));
  const Json expected = Json::parse(text, nullptr, false);
  std::string checksum = text.substr(0, text.find_last_not_of(" \n\r\t") + 1);
  if (expected.is_object()) {
    checksum = expected.value("checksum", "");
    const std::string mode = expected.value("checksum_mode", "full");
    if (mode != result["checksum_mode"]) Fail(path + " has a checksum of another kind: " + mode);
  }
  if (checksum != result["checksum"]) Fail("wrong bytes: checksum " + result["checksum"].get<std::string>() + ", expected " + checksum);
}

Json Replay(ReplayOptions options) {
  options.ring = std::max<uint64_t>(options.ring / options.processes, kMib);
  signal(SIGBUS, OnSigbus);
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) FailErrno("mmap");
  Shared& shared = *new (memory) Shared;  // stays until the process ends
  if (options.processes == 1) {
    shared.go = true;
    Measure(options, 0, shared);
  } else {
    RunProcesses(options, shared);
  }
  const ReplayReport report = Combine(options, shared);
  const Model model = ListModel(options.directory, options.limit);
  const double seconds = report.end - report.begin;
  return {{"pattern", options.pattern},
          {"processes", options.processes},
          {"bytes", report.bytes},
          {"files", model.shards.size() + (options.pattern == "P1" ? model.documents.size() : 0)},
          {"first_byte_s", report.first_byte_s},
          {"open_s", report.open_s},
          {"resident_s", seconds},
          {"throughput", static_cast<double>(report.bytes) / seconds},
          {"cpu_s", report.cpu_s},
          {"major_faults", report.major_faults},
          {"checksum", Hex(report.checksum)},
          {"checksum_mode", options.sampled ? "sampled" : "full"}};
}

}  // namespace
}  // namespace headrace::bench

int main(int argc, char** argv) {
  using namespace headrace::bench;
  CLI::App app("Reads a model directory as a loader would", "bench-replay");
  ReplayOptions options;
  options.ring = kRingDefault;
  options.processes = 0;
  std::string expect, checksum = "full";
  app.add_option("--pattern", options.pattern, "how to read: P1 ... P10")->required()->check(CLI::IsMember(PatternNames()));
  app.add_option("--dir", options.directory, "directory with *.safetensors")->required();
  app.add_option("--like", options.like,
                 "directory with the same files: allocate for these, then wait until --dir is there, so that nobody gets a head start");
  app.add_option("--processes", options.processes, "at once; P9 shares the bytes out, others read all in each (1; P9: 8)")
      ->check(CLI::Range(1u, kProcessesMax));
  AddBytes(app, "--limit", options.limit, "only the first bytes of the shards");
  app.add_option("--expect", expect, "file with the output of another run, or its checksum: exit code 1 if this one differs");
  app.add_option("--checksum", checksum, "full: of every page; sampled: of one page in 16, where hashing would cost too much")
      ->check(CLI::IsMember({"full", "sampled"}));
  AddBytes(app, "--ring", options.ring, "destination memory of all processes (1GiB)");
  app.add_option("--seed", options.seed, "for the random order of P3 (1)");
  return RunTool(app, argc, argv, [&] {
    if (options.processes == 0) options.processes = options.pattern == "P9" ? 8 : 1;
    options.sampled = checksum == "sampled";
    const Json result = Replay(options);
    PrintLine(result);
    if (!expect.empty()) CheckExpected(expect, result);
    return 0;
  });
}
