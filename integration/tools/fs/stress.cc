// fs-stress: see stress.h. The last line of its output is JSON: {"operations": {name: number}, "bytes": B, "forgotten": N}
//
//   fs-stress MOUNT REFERENCE [--seconds N] [--processes P] [--users U] [--threads T] [--seed S] [--overlay] [--writable] [--skip NAME] [--forget DIR]...
//     --users      so many of the processes run as user and group 1000, without rights
//     --overlay, --writable  both are overlays; have an upper directory as well
//     --skip       a file or directory that is left alone
//     --forget     a mount point: while the others run, names and inodes of its file system that nobody has open are dropped by the kernel, at random
// Exit code: 0 no difference, 1 a difference (or nobody got on for a minute), 2 something else.
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <thread>

#include "integration/tools/fs/stress.h"

namespace headrace::fs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uid_t kUser = 1000;
constexpr auto kHang = std::chrono::seconds(60);
constexpr size_t kOperationsMax = 64;

struct Options {
  std::string mount, reference;
  int seconds = 10;
  int processes = 3;
  int users = 1;
  int threads = 3;
  uint64_t seed = 1;
  bool overlay = false;
  bool writable = false;
  std::string skip;
  std::vector<std::string> forget;
};

// In memory that all processes share.
struct Counters {
  std::atomic<uint64_t> operations[kOperationsMax];
  std::atomic<uint64_t> bytes;
};

struct Work {
  const Options& options;
  const Tree& tree;
  const std::vector<Operation>& operations;
  Counters& counters;
  int mount;
  int reference;
  Clock::time_point end;
};

struct Progress {
  std::atomic<const char*> now{""};
  std::atomic<Clock::rep> since{0};
  std::atomic<bool> done{false};
};

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15 + b + 0x632be59bd9b4e019;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  return x ^ (x >> 27);
}

const Operation& Draw(const std::vector<Operation>& operations, uint64_t seed) {
  uint64_t sum = 0;
  for (const Operation& operation : operations) sum += operation.weight;
  uint64_t at = seed % sum;
  for (const Operation& operation : operations) {
    if (at < operation.weight) return operation;
    at -= operation.weight;
  }
  return operations.front();
}

Log RunIn(const Work& work, int root, const Operation& operation, uint64_t seed) {
  Log log;
  if (::fchdir(root) != 0) Die("fchdir");
  Scene scene{Random(seed), work.tree, work.options.writable, work.options.overlay, root, &log};
  operation.run(scene);
  return log;
}

void RunThread(const Work& work, uint64_t seed, Progress& progress) {
  if (::unshare(CLONE_FS) != 0) Die("a current directory for each thread");
  for (uint64_t number = 0; Clock::now() < work.end; ++number) {
    const uint64_t draw = Mix(seed, number);
    const Operation& operation = Draw(work.operations, draw >> 8);
    progress.now = operation.name;
    progress.since = Clock::now().time_since_epoch().count();
    const bool mount_first = (draw & 1) != 0;
    Log reference, mount;
    if (mount_first) mount = RunIn(work, work.mount, operation, draw);
    reference = RunIn(work, work.reference, operation, draw);
    if (!mount_first) mount = RunIn(work, work.mount, operation, draw);
    if (const std::string difference = mount.Difference(reference); !difference.empty()) {
      std::printf("DIFFERENCE in %s, draw %llu, as user %u: %s\n", operation.name, static_cast<unsigned long long>(draw), ::geteuid(), difference.c_str());
      std::fflush(stdout);
      std::_Exit(1);
    }
    work.counters.operations[&operation - work.operations.data()]++;
    work.counters.bytes += mount.bytes();
  }
  progress.done = true;
}

void BecomeUser() {
  if (::setgroups(0, nullptr) != 0 || ::setresgid(kUser, kUser, kUser) != 0 || ::setresuid(kUser, kUser, kUser) != 0) Die("cannot become a user");
  ::prctl(PR_SET_DUMPABLE, 1);  // its /proc/self/fd is its own again
}

[[noreturn]] void RunProcess(const Work& work, int number) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (number < work.options.users) BecomeUser();
  std::vector<Progress> progress(static_cast<size_t>(work.options.threads));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < progress.size(); ++i) {
    const uint64_t seed = Mix(work.options.seed, static_cast<uint64_t>(number) * 1000 + i);
    threads.emplace_back([&work, &progress, i, seed] { RunThread(work, seed, progress[i]); });
  }
  for (Progress& one : progress) {
    while (!one.done) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      const Clock::time_point since{Clock::duration(one.since.load())};
      if (one.since != 0 && !one.done && Clock::now() - since > kHang) {
        std::printf("HANG in %s\n", one.now.load());
        std::fflush(stdout);
        std::_Exit(1);
      }
    }
  }
  for (std::thread& thread : threads) thread.join();
  std::_Exit(0);
}

// Mounting a mount anew with what it has makes the kernel drop every name and inode of that file system that is not in use, and of no other.
void Forget(const std::string& mount) {
  struct statvfs st {};
  if (::statvfs(mount.c_str(), &st) != 0) Die("statvfs " + mount);
  unsigned long flags = MS_REMOUNT;
  if (st.f_flag & ST_RDONLY) flags |= MS_RDONLY;
  if (st.f_flag & ST_NOSUID) flags |= MS_NOSUID;
  if (st.f_flag & ST_NODEV) flags |= MS_NODEV;
  if (st.f_flag & ST_NOATIME) flags |= MS_NOATIME;
  if (::mount("none", mount.c_str(), nullptr, flags, "") != 0) Die("cannot mount anew " + mount);
}

// Until all have ended; the exit code. `forgotten`: how often.
int Supervise(const Options& options, std::vector<pid_t> children, uint64_t& forgotten) {
  Random random(Mix(options.seed, 999'999));
  int worst = 0;
  while (!children.empty()) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, WNOHANG);
    if (ended > 0) {
      std::erase(children, ended);
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
      if (WIFSIGNALED(status) && worst == 0) std::printf("KILLED by %s\n", strsignal(WTERMSIG(status)));
      if (code != 0) {
        worst = worst == 0 ? code : worst;
        for (const pid_t child : children) ::kill(child, SIGKILL);
      }
      continue;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + random.Below(150)));
    if (options.forget.empty()) continue;
    Forget(options.forget[random.Below(options.forget.size())]);
    ++forgotten;
  }
  return worst;
}

Options Parse(int argc, char** argv) {
  Options options;
  const std::map<std::string, int*> numbers{
      {"--seconds", &options.seconds}, {"--processes", &options.processes}, {"--users", &options.users}, {"--threads", &options.threads}};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--overlay") {
      options.overlay = true;
    } else if (word == "--writable") {
      options.writable = true;
    } else if (word.starts_with("--") && i + 1 < argc) {
      const char* const value = argv[++i];
      if (word == "--seed") {
        options.seed = std::strtoull(value, nullptr, 10);
      } else if (word == "--skip") {
        options.skip = value;
      } else if (word == "--forget") {
        options.forget.emplace_back(value);
      } else if (numbers.contains(word)) {
        *numbers.at(word) = std::atoi(value);
      } else {
        Die("unknown option " + word);
      }
    } else {
      (options.mount.empty() ? options.mount : options.reference) = word;
    }
  }
  if (options.reference.empty()) Die("usage: fs-stress MOUNT REFERENCE [options]");
  return options;
}

std::vector<Operation> AllOperations() {
  std::vector<Operation> all;
  for (const auto& some : {FileOperations(), MapOperations(), NameOperations()}) all.insert(all.end(), some.begin(), some.end());
  if (all.size() > kOperationsMax) Die("too many operations");
  return all;
}

int Run(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  const Descriptor mount(::open(options.mount.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Descriptor reference(::open(options.reference.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!mount.ok() || !reference.ok()) Die("cannot open a root");
  if (::fchdir(reference.get()) != 0) Die("fchdir");
  const Tree tree = ReadTree(options.skip);
  void* const shared = ::mmap(nullptr, sizeof(Counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) Die("mmap");
  auto* const counters = new (shared) Counters{};
  const std::vector<Operation> operations = AllOperations();
  const Work work{options, tree, operations, *counters, mount.get(), reference.get(), Clock::now() + std::chrono::seconds(options.seconds)};
  std::vector<pid_t> children;
  for (int i = 0; i < options.processes; ++i) {
    const pid_t child = ::fork();
    if (child < 0) Die("fork");
    if (child == 0) RunProcess(work, i);
    children.push_back(child);
  }
  uint64_t forgotten = 0;
  const int code = Supervise(options, children, forgotten);
  std::printf("{\"operations\": {");
  for (size_t i = 0; i < operations.size(); ++i) {
    std::printf("%s\"%s\": %llu", i == 0 ? "" : ", ", operations[i].name, static_cast<unsigned long long>(counters->operations[i].load()));
  }
  std::printf("}, \"bytes\": %llu, \"forgotten\": %llu}\n", static_cast<unsigned long long>(counters->bytes.load()), static_cast<unsigned long long>(forgotten));
  ::munmap(shared, sizeof(Counters));
  return code;
}

}  // namespace
}  // namespace headrace::fs

int main(int argc, char** argv) { return headrace::fs::Run(argc, argv); }
