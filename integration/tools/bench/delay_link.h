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

// One direction: a thread that takes packets from one device and gives them to the other.
class DelayLine {
 public:
  // rate: bits a second, 0 = no limit; queue_bytes: what may wait for it.
  struct Options {
    double delay_s = 0;
    double rate = 0;
    double queue_bytes = 0;
    std::string thread_name;
  };
  DelayLine(const Options& options, int from, int to);
  ~DelayLine();
  DelayLine(const DelayLine&) = delete;
  DelayLine& operator=(const DelayLine&) = delete;
  // Ends the thread; what is on its way is lost.
  void Stop();
  const LinkStats& stats() const { return stats_; }  // after Stop

 private:
  using Buffer = std::vector<uint8_t>;
  struct Packet {
    double due = 0;
    size_t size = 0;
    Buffer buffer;
  };
  void Run();
  bool ReadAll();
  void Enqueue(size_t size);
  void Deliver();
  Buffer Take();

  const Options options_;
  const int from_;
  const int to_;
  UniqueFd epoll_;
  UniqueFd wake_;
  double line_free_ = 0;  // when the last bit of what is queued will be through
  Buffer reading_;
  std::vector<Buffer> spare_;
  std::deque<Packet> queue_;
  LinkStats stats_;
  std::thread thread_;
};

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_DELAY_LINK_H_
