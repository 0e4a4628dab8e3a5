#include "integration/tools/bench/delay_link.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fusefs/base/executor.h"
#include "fusefs/base/text.h"
#include "integration/tools/bench/common.h"

namespace headrace::bench {
namespace {

// What stands before each packet (virtio 1.2, section 5.1.6, the fields that TUN has). <linux/virtio_net.h> is not C++.
struct PacketHeader {
  uint8_t flags;
  uint8_t gso_type;  // 0: one packet
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
};
static_assert(sizeof(PacketHeader) == 10);

constexpr size_t kHeader = sizeof(PacketHeader);
constexpr size_t kPacketBytesMax = kHeader + 65536 + 64;
constexpr size_t kSmallBytes = 2048;           // packets up to this are copied out, so that an ACK does not hold 64 KiB
constexpr int kDeviceQueue = 4096;             // packets between the kernel and us: we read late when the machine is busy
constexpr uint64_t kOnTheWayMax = 512 * kMib;  // without a rate nothing else bounds the memory
constexpr size_t kReadsAtOnce = 64;            // before what is due is delivered
constexpr double kTickPart = 0.02;             // of the round trip
constexpr double kTickMax = 200e-6;
constexpr double kTickMin = 50e-6;             // below that a tick costs more than an event

int Ioctl(int fd, unsigned long request, void* argument, const std::string& what) {
  const int rc = ioctl(fd, request, argument);
  if (rc < 0) FailErrno(what);
  return rc;
}

// Enters a network namespace, and leaves it when destroyed.
class InNamespace {
 public:
  explicit InNamespace(const std::string& name) : own_(Get(OpenFile("/proc/thread-self/ns/net", O_RDONLY))) {
    const std::string path = name.find('/') == std::string::npos ? "/run/netns/" + name : name;
    const UniqueFd fd = Get(OpenFile(path, O_RDONLY));
    if (setns(fd.get(), CLONE_NEWNET) != 0) FailErrno("setns " + path);
  }
  ~InNamespace() {
    if (setns(own_.get(), CLONE_NEWNET) != 0) std::abort();  // going on in the wrong namespace would be worse
  }
  InNamespace(const InNamespace&) = delete;
  InNamespace& operator=(const InNamespace&) = delete;

 private:
  UniqueFd own_;
};

struct Address {
  in_addr address{};
  in_addr mask{};
};

Address ParseAddress(const std::string& text) {
  Address out;
  const size_t slash = text.find('/');
  const Result<uint64_t> prefix = ParseU64(slash == std::string::npos ? "" : text.substr(slash + 1));
  if (!prefix.ok() || *prefix < 1 || *prefix > 32 || inet_pton(AF_INET, text.substr(0, slash).c_str(), &out.address) != 1) {
    Fail("\"" + text + "\" is not ADDR/PREFIX (IPv4)");
  }
  out.mask.s_addr = htonl(static_cast<uint32_t>(~uint64_t{0} << (32 - *prefix)));
  return out;
}

void SetAddress(sockaddr& field, in_addr address) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr = address;
  memcpy(&field, &in, sizeof field);
}

void Configure(ifreq request, const TunOptions& options) {
  const UniqueFd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control.valid()) FailErrno("socket");
  const Address address = ParseAddress(options.address);
  SetAddress(request.ifr_addr, address.address);
  Ioctl(control.get(), SIOCSIFADDR, &request, "set the address of " + options.name);
  SetAddress(request.ifr_netmask, address.mask);
  Ioctl(control.get(), SIOCSIFNETMASK, &request, "set the netmask of " + options.name);
  request.ifr_mtu = static_cast<int>(options.mtu);
  Ioctl(control.get(), SIOCSIFMTU, &request, "set the MTU of " + options.name);
  request.ifr_qlen = kDeviceQueue;
  Ioctl(control.get(), SIOCSIFTXQLEN, &request, "set the queue of " + options.name);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  Ioctl(control.get(), SIOCSIFFLAGS, &request, "bring up " + options.name);
}

// Bytes that the packet has on a wire: a TSO packet stands for several, each with the headers of its own.
double WireBytes(const uint8_t* packet, size_t size) {
  PacketHeader header;
  memcpy(&header, packet, sizeof header);
  const size_t bytes = size - kHeader;
  if (header.gso_type == 0 || header.gso_size == 0 || header.hdr_len >= bytes) return static_cast<double>(bytes);
  const size_t segments = (bytes - header.hdr_len + header.gso_size - 1) / header.gso_size;
  return static_cast<double>(bytes + (segments - 1) * header.hdr_len);
}

double TickOf(double delay_s) {
  const double tick = std::min(kTickMax, 2 * delay_s * kTickPart);
  return tick < kTickMin ? 0 : tick;
}

timespec ToTimespec(double seconds) {
  seconds = std::max(0.0, seconds);
  const double whole = std::floor(seconds);
  return {static_cast<time_t>(whole), static_cast<long>((seconds - whole) * 1e9)};
}

}  // namespace

UniqueFd MakeTun(const TunOptions& options) {
  const InNamespace inside(options.netns);
  UniqueFd fd = Get(OpenFile("/dev/net/tun", O_RDWR | O_NONBLOCK));
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (options.name.empty() || options.name.size() >= IFNAMSIZ) Fail("\"" + options.name + "\" is no name for a device");
  memcpy(request.ifr_name, options.name.c_str(), options.name.size() + 1);
  Ioctl(fd.get(), TUNSETIFF, &request, "make " + options.name + " in " + options.netns);
  // The value is the argument itself, not a pointer to it.
  if (ioctl(fd.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0) FailErrno("offloads of " + options.name);
  Configure(request, options);
  return fd;
}

DelayLine::DelayLine(const Options& options, int from, int to) : options_(options), from_(from), to_(to), reading_(kPacketBytesMax) {}

DelayLine::Buffer DelayLine::Take() {
  if (spare_.empty()) return Buffer(kPacketBytesMax);
  Buffer buffer = std::move(spare_.back());
  spare_.pop_back();
  return buffer;
}

bool DelayLine::Read() {
  for (size_t i = 0; i < kReadsAtOnce; ++i) {
    const ssize_t size = read(from_, reading_.data(), reading_.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < static_cast<ssize_t>(kHeader)) return false;
    Enqueue(static_cast<size_t>(size));
  }
  return true;
}

void DelayLine::Enqueue(size_t size) {
  const double now = Now();
  const double bytes = WireBytes(reading_.data(), size);
  double through = now;
  if (options_.rate > 0) {
    const double waiting = std::max(0.0, line_free_ - now) * options_.rate / 8;
    if (waiting + bytes > options_.queue_bytes) {
      ++stats_.dropped;
      return;
    }
    line_free_ = std::max(now, line_free_) + bytes * 8 / options_.rate;
    through = line_free_;
  } else if (queue_.size() * kPacketBytesMax > kOnTheWayMax) {
    ++stats_.dropped;
    return;
  }
  ++stats_.packets;
  stats_.bytes += static_cast<uint64_t>(bytes);
  Packet packet;
  packet.due = through + options_.delay_s;
  packet.size = size;
  if (size <= kSmallBytes) {
    packet.buffer.assign(reading_.begin(), reading_.begin() + static_cast<ptrdiff_t>(size));
  } else {
    packet.buffer = std::exchange(reading_, Take());
  }
  queue_.push_back(std::move(packet));
}

void DelayLine::Deliver() {
  for (const double now = Now(); !queue_.empty() && queue_.front().due <= now;) {
    Packet& packet = queue_.front();
    // A packet that the device does not take (down, out of memory) is lost, as on a wire.
    if (write(to_, packet.buffer.data(), packet.size) < 0) ++stats_.dropped;
    if (packet.buffer.size() == kPacketBytesMax) spare_.push_back(std::move(packet.buffer));
    queue_.pop_front();
  }
}

DelayLink::DelayLink(const DelayLine::Options& options, int a, int b)
    : tick_s_(TickOf(options.delay_s)), lines_{{options, a, b}, {options, b, a}}, epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_.valid() || !wake_.valid()) FailErrno("epoll");
  for (const int fd : {a, b, wake_.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) FailErrno("epoll_ctl");
  }
  thread_ = std::thread([this] { Run(); });
}

DelayLink::~DelayLink() { Stop(); }

void DelayLink::Stop() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  if (write(wake_.get(), &one, sizeof one) != sizeof one) std::abort();  // an eventfd takes it always
  thread_.join();
}

void DelayLink::Run() {
  SetThreadName("delay-link");
  (void)prctl(PR_SET_TIMERSLACK, 1000);  // ns: the default of 50 us is a quarter of the shortest round trip
  for (;;) {
    if (!(tick_s_ > 0 && !Idle() ? WaitForTick() : WaitForEvent())) return;
    for (bool more = true; more;) {
      more = false;
      for (DelayLine& line : lines_) {
        more = line.Read() || more;
        line.Deliver();
      }
    }
  }
}

// Both answer false when the link is to end.
bool DelayLink::WaitForEvent() {
  double due = HUGE_VAL;
  for (const DelayLine& line : lines_) {
    if (!line.empty()) due = std::min(due, line.next_due());
  }
  const timespec timeout = ToTimespec(due - Now());
  epoll_event events[3];
  const int count = epoll_pwait2(epoll_.get(), events, 3, due == HUGE_VAL ? nullptr : &timeout, nullptr);
  return std::none_of(events, events + std::max(count, 0), [this](const epoll_event& event) { return event.data.fd == wake_.get(); });
}

bool DelayLink::WaitForTick() {
  const timespec timeout = ToTimespec(tick_s_);
  pollfd end{wake_.get(), POLLIN, 0};
  return ppoll(&end, 1, &timeout, nullptr) <= 0;
}

}  // namespace headrace::bench
