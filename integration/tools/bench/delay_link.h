// A link with a round-trip time, made of two TUN devices and a forwarder with a timer queue (this is what netem would do, where the
// kernel has none). Packets keep their offloads (IFF_VNET_HDR with TSO), so that TCP hands over up to 64 KiB at a time.
//
// A packet leaves the sender's queue when its bits are through at the rate (if there is one), and arrives half a round trip later.
// The queue before the rate is bounded; what does not fit is dropped, as a router does. Errors throw.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_DELAY_LINK_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_DELAY_LINK_H_

#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "fusefs/base/file.h"

namespace headrace::bench {

struct TunOptions {
  std::string netns;    // name below /run/netns, or a path
  std::string name;     // of the device
  std::string address;  // "10.9.0.1/30"
  unsigned mtu = 1500;
};

// A TUN device in a network namespace, up, with its address. It goes away with its descriptor. The calling thread is in its own
// namespace again when this returns; needs CAP_NET_ADMIN there and CAP_SYS_ADMIN here.
UniqueFd MakeTun(const TunOptions& options);

struct LinkStats {
  uint64_t packets = 0;
  uint64_t bytes = 0;    // as counted at the rate: IP packets of at most the MTU
  uint64_t dropped = 0;  // packets
};

// One direction: packets from one device, later to the other. Not thread-safe; owns neither descriptor.
class DelayLine {
 public:
  // rate: bits a second, 0 = no limit; queue_bytes: what may wait for it.
  struct Options {
    double delay_s = 0;
    double rate = 0;
    double queue_bytes = 0;
  };
  DelayLine(const Options& options, int from, int to);
  // Takes what the device has, up to a bound; true if there may be more.
  bool Read();
  // Gives away what is due.
  void Deliver();
  bool empty() const { return queue_.empty(); }
  double next_due() const { return queue_.front().due; }  // unless empty
  const LinkStats& stats() const { return stats_; }

 private:
  using Buffer = std::vector<uint8_t>;
  struct Packet {
    double due = 0;
    size_t size = 0;
    Buffer buffer;
  };
  void Enqueue(size_t size);
  Buffer Take();

  const Options options_;
  const int from_;
  const int to_;
  double line_free_ = 0;  // when the last bit of what is queued will be through
  Buffer reading_;
  std::vector<Buffer> spare_;
  std::deque<Packet> queue_;
  LinkStats stats_;
};

// Both directions and the thread that serves them.
//
// A busy link is served by the clock (ticks of a fiftieth of the round trip, at most 200 us) instead of by events: at a wake-up for each
// packet and each due time the link would take most of a core from what is measured. Packets are late by a tick at most, at
// each end. Round trips so short that the tick would be below 50 us, and a link without packets on the way, are served by events.
class DelayLink {
 public:
  // a, b: TUN devices, non-blocking; they must outlive the link.
  DelayLink(const DelayLine::Options& options, int a, int b);
  ~DelayLink();
  DelayLink(const DelayLink&) = delete;
  DelayLink& operator=(const DelayLink&) = delete;
  // Ends the thread; what is on its way is lost.
  void Stop();
  const LinkStats& a_to_b() const { return lines_[0].stats(); }  // after Stop
  const LinkStats& b_to_a() const { return lines_[1].stats(); }

 private:
  void Run();
  bool WaitForEvent();
  bool WaitForTick();
  bool Idle() const { return lines_[0].empty() && lines_[1].empty(); }

  const double tick_s_;  // 0: by events
  DelayLine lines_[2];
  UniqueFd epoll_;
  UniqueFd wake_;
  std::thread thread_;
};

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_DELAY_LINK_H_
