#include "snapshotter/cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "fusefs/base/executor.h"
#include "fusefs/base/text.h"

namespace headrace::cli {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval{200};
constexpr std::chrono::seconds kPlainInterval{5};
constexpr double kSmoothing = 0.1;  // weight of the newest interval in the shown rate
constexpr unsigned kBarMin = 10;
constexpr unsigned kBarMax = 40;

unsigned TerminalColumns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string TimeLeft(double seconds) {
  const auto s = static_cast<uint64_t>(std::min(seconds, 359'999.0));
  char text[32];
  if (s >= 3600) {
    std::snprintf(text, sizeof text, "%lluh%02llum", static_cast<unsigned long long>(s / 3600),
                  static_cast<unsigned long long>(s / 60 % 60));
  } else if (s >= 60) {
    std::snprintf(text, sizeof text, "%llum%02llus", static_cast<unsigned long long>(s / 60),
                  static_cast<unsigned long long>(s % 60));
  } else {
    std::snprintf(text, sizeof text, "%llus", static_cast<unsigned long long>(s));
  }
  return text;
}

}  // namespace

std::string ProgressLine(const ProgressState& state) {
  const uint64_t total = std::max(state.total, state.done);
  const double part = total == 0 ? 0 : static_cast<double>(state.done) / static_cast<double>(total);
  std::string tail = " " + HumanBytes(state.done) + " of " + HumanBytes(total) + ", " +
                     std::to_string(static_cast<int>(part * 100)) + "%";
  if (state.rate > 0) {
    tail += ", " + HumanBytes(static_cast<uint64_t>(state.rate)) + "/s";
    if (total > state.done) tail += ", " + TimeLeft(static_cast<double>(total - state.done) / state.rate) + " left";
  }
  if (state.sent > 0) tail += "; pushed " + HumanBytes(state.sent);
  std::string bar;
  const size_t used = state.verb.size() + tail.size() + 4;
  if (state.columns >= used + kBarMin) {
    const auto width = static_cast<unsigned>(std::min<size_t>(state.columns - used, kBarMax));
    const auto full = static_cast<unsigned>(part * width);
    bar = " [" + std::string(full, '#') + std::string(width - full, '.') + "]";
  }
  std::string line = state.verb + bar + tail;
  if (state.columns > 0 && line.size() >= state.columns) line.resize(state.columns - 1);
  return line;
}

Progress::Progress(std::string verb, bool quiet) : verb_(std::move(verb)), terminal_(::isatty(STDERR_FILENO) == 1) {
  if (!quiet) thread_ = std::thread([this] { Run(); });
}

Progress::~Progress() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  wake_.NotifyAll();
  thread_.join();
}

void Progress::Run() {
  SetThreadName("progress");
  const std::chrono::nanoseconds interval = terminal_ ? std::chrono::nanoseconds(kTerminalInterval) : kPlainInterval;
  double rate = 0;
  uint64_t last_done = 0;
  auto last_time = steady_clock::now();
  bool shown = false;
  for (;;) {
    {
      MutexLock lock(mu_);
      if (wake_.WaitFor(mu_, interval, [this] { return stop_; })) break;
    }
    const auto now = steady_clock::now();
    const uint64_t done_now = done();
    const double elapsed = std::chrono::duration<double>(now - last_time).count();
    const double current = static_cast<double>(done_now - last_done) / elapsed;
    rate = rate == 0 ? current : rate + kSmoothing * (current - rate);
    last_done = done_now;
    last_time = now;
    const ProgressState state{verb_, done_now, total_.load(std::memory_order_relaxed), sent(), rate,
                              terminal_ ? TerminalColumns() : 0};
    const std::string line = ProgressLine(state);
    std::fprintf(stderr, terminal_ ? "\r%s\x1b[K" : "%s\n", line.c_str());
    std::fflush(stderr);
    shown = true;
  }
  if (terminal_ && shown) std::fputs("\r\x1b[K", stderr);
}

}  // namespace headrace::cli
