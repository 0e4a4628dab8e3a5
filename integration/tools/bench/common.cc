#include "integration/tools/bench/common.h"

#include <signal.h>
#include <sys/resource.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include "fusefs/base/text.h"

namespace headrace::bench {
namespace {

double CpuOf(int who) {
  rusage usage{};
  if (getrusage(who, &usage) != 0) FailErrno("getrusage");
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

uint64_t BytesOf(const std::string& text) {
  const Result<uint64_t> bytes = ParseSize(text);
  if (!bytes.ok()) throw CLI::ValidationError(bytes.status().message());
  return *bytes;
}

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void Fail(const std::string& what) { throw std::runtime_error(what); }

void FailErrno(const std::string& what) { Fail(what + ": " + strerror(errno)); }

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double OwnCpu() { return CpuOf(RUSAGE_SELF); }

double ChildrenCpu() { return CpuOf(RUSAGE_CHILDREN); }

CLI::Option* AddBytes(CLI::App& app, const std::string& name, uint64_t& value, const std::string& help) {
  return app.add_option_function<std::string>(name, [&value](const std::string& text) { value = BytesOf(text); }, help)
      ->type_name("BYTES");
}

CLI::Option* AddBytesList(CLI::App& app, const std::string& name, std::vector<uint64_t>& values, const std::string& help) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [&values](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) values.push_back(BytesOf(text));
          },
          help)
      ->type_name("BYTES");
}

int RunTool(CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    return body();
  } catch (const std::exception& e) {
    fprintf(stderr, "%s: %s\n", app.get_name().c_str(), e.what());
    return 1;
  }
}

void PrintLine(const Json& json) {
  printf("%s\n", json.dump().c_str());
  fflush(stdout);
}

void BlockStopSignals() {
  const sigset_t set = StopSignals();
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) Fail("cannot block signals");
}

void WaitForStop() {
  const sigset_t set = StopSignals();
  int signal = 0;
  while (sigwait(&set, &signal) != 0) {
  }
}

void Parallel(unsigned threads, const std::function<void(unsigned)>& work) {
  std::mutex mutex;
  std::string error;
  std::vector<std::thread> running;
  for (unsigned i = 0; i < threads; ++i) {
    running.emplace_back([&, i] {
      try {
        work(i);
      } catch (const std::exception& e) {
        const std::lock_guard lock(mutex);
        if (error.empty()) error = e.what();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  if (!error.empty()) Fail(error);
}

}  // namespace headrace::bench
