// bench-delay: joins two network namespaces by a link with a round-trip time and, if wanted, a rate.
//
//   bench-delay --rtt-ms X --a-netns A --b-netns B --a-addr 10.9.0.1/30 --b-addr 10.9.0.2/30 [--rate BITS_PER_S] [--mtu N]
// Makes a TUN device in each (delay-a, delay-b), prints {"ready":true} and forwards until SIGTERM; then the devices are gone, and a
// line on stderr says what went over the link. The rate holds for each direction; its queue is bounded by the larger of 4 MiB and
// one round trip plus 10 ms of the rate.
#include <cstdio>
#include <string>

#include "integration/tools/bench/common.h"
#include "integration/tools/bench/delay_link.h"

namespace headrace::bench {
namespace {

constexpr double kQueueBytesMin = 4.0 * static_cast<double>(kMib);
constexpr double kQueueSeconds = 0.010;

void Say(const char* name, const LinkStats& stats) {
  fprintf(stderr, "bench-delay: %s: %llu packets, %llu bytes, %llu dropped\n", name, static_cast<unsigned long long>(stats.packets),
          static_cast<unsigned long long>(stats.bytes), static_cast<unsigned long long>(stats.dropped));
}

void Forward(const TunOptions& a, const TunOptions& b, double rtt_s, double rate) {
  const UniqueFd tun_a = MakeTun(a);
  const UniqueFd tun_b = MakeTun(b);
  DelayLine::Options options;
  options.delay_s = rtt_s / 2;
  options.rate = rate;
  options.queue_bytes = std::max(kQueueBytesMin, rate / 8 * (rtt_s + kQueueSeconds));
  DelayLink link(options, tun_a.get(), tun_b.get());
  PrintLine({{"ready", true}});
  WaitForStop();
  link.Stop();
  Say("a to b", link.a_to_b());
  Say("b to a", link.b_to_a());
}

}  // namespace
}  // namespace headrace::bench

int main(int argc, char** argv) {
  using namespace headrace::bench;
  CLI::App app("Joins two network namespaces by a link with a round-trip time and a rate", "bench-delay");
  TunOptions a, b;
  a.name = "delay-a";
  b.name = "delay-b";
  double rtt_ms = 0;
  double rate = 0;
  app.add_option("--rtt-ms", rtt_ms, "round-trip time")->required()->check(CLI::Range(0.0, 10000.0));
  app.add_option("--a-netns", a.netns, "network namespace (ip netns, or a path)")->required();
  app.add_option("--b-netns", b.netns, "network namespace")->required();
  app.add_option("--a-addr", a.address, "ADDR/PREFIX")->required();
  app.add_option("--b-addr", b.address, "ADDR/PREFIX")->required();
  app.add_option("--rate", rate, "bits a second in each direction, IP headers included (no limit)")->check(CLI::Range(1e4, 1e12));
  app.add_option("--mtu", a.mtu, "of the link (1500); of the rate (MTU - 52) / MTU is left for data")->check(CLI::Range(576u, 65521u));
  return RunTool(app, argc, argv, [&] {
    b.mtu = a.mtu;
    BlockStopSignals();
    Forward(a, b, rtt_ms / 1000, rate);
    return 0;
  });
}
