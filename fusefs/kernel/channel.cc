#include "fusefs/kernel/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "fusefs/base/text.h"

namespace headrace::kernel {
namespace {

constexpr char kType[] = "fuse.headrace";
constexpr int kInitTimeoutMs = 10'000;  // the kernel queues INIT inside mount(2); longer means that something is broken

// mountinfo writes space, tab, newline and backslash as \ooo (proc(5)).
std::string Unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// The devices ("major:minor") of the file systems of our type that are stacked at `path`, the lowest first.
std::vector<std::string> OurMounts(const std::string& path) {
  std::ifstream in("/proc/thread-self/mountinfo");
  std::vector<std::string> devices;
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, point, word;
    fields >> id >> parent >> device >> root >> point;
    if (Unescape(point) != path) continue;
    while (fields >> word && word != "-") {
    }
    if (fields >> word && word == kType) devices.push_back(device);
  }
  return devices;
}

Result<std::string> ReadInit(int device) {
  pollfd ready{device, POLLIN, 0};
  int n;
  do {
    n = ::poll(&ready, 1, kInitTimeoutMs);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return Status::FromErrno(errno, "poll /dev/fuse");
  if (n == 0) return DeadlineExceededError("the kernel sent no FUSE_INIT");
  std::vector<char> buffer(kRequestBytesMax);
  ssize_t size = ::read(device, buffer.data(), buffer.size());
  if (size < 0) return Status::FromErrno(errno, "read FUSE_INIT");
  return std::string(buffer.data(), static_cast<size_t>(size));
}

Status SendInit(int device, const std::string& init_bytes, const wire::InitOut& out) {
  wire::InHeader in;
  std::memcpy(&in, init_bytes.data(), sizeof in);
  wire::InitOut body = out;
  wire::OutHeader header{sizeof(wire::OutHeader) + sizeof body, 0, in.unique};
  iovec iov[] = {{&header, sizeof header}, {&body, sizeof body}};
  if (::writev(device, iov, 2) < 0) return Status::FromErrno(errno, "answer FUSE_INIT");
  return OkStatus();
}

}  // namespace

Status CleanStaleMount(const std::string& mountpoint) {
  for (size_t left = OurMounts(mountpoint).size(); left > 0; --left) HR_RETURN_IF_ERROR(DetachMount(mountpoint));
  return OkStatus();
}

Result<wire::InitOut> AnswerInit(const std::string& init_bytes) {
  wire::InHeader header;
  wire::InitIn in{};
  if (init_bytes.size() < sizeof header + 16) return InvalidArgumentError("FUSE_INIT is too short");
  std::memcpy(&header, init_bytes.data(), sizeof header);
  std::memcpy(&in, init_bytes.data() + sizeof header, std::min(sizeof in, init_bytes.size() - sizeof header));
  if (header.opcode != wire::kOpInit) return InvalidArgumentError("the first FUSE request is not INIT");
  if (in.major != wire::kMajor || in.minor < 36) {
    return FailedPreconditionError("the kernel speaks FUSE " + std::to_string(in.major) + "." + std::to_string(in.minor) +
                                   "; Headrace needs 7.36 (Linux 5.17) or later");
  }
  uint64_t offered = in.flags;
  if (offered & wire::kInitExt) offered |= static_cast<uint64_t>(in.flags2) << 32;
  const uint64_t wanted = wire::kAsyncRead | wire::kBigWrites | wire::kReaddirplus | wire::kReaddirplusAuto | wire::kAsyncDio |
                          wire::kParallelDirops | wire::kMaxPages | wire::kCacheSymlinks | wire::kInitExt |
                          wire::kDirectIoAllowMmap | wire::kPassthrough | wire::kHasResend | wire::kAllowIdmap |
                          wire::kExportSupport;
  uint64_t flags = offered & wanted;
  wire::InitOut out{};
  out.major = wire::kMajor;
  out.minor = std::min(in.minor, wire::kMinor);
  out.max_readahead = in.max_readahead;
  out.max_background = kMaxBackground;
  out.congestion_threshold = kCongestionThreshold;
  out.max_write = kMaxWrite;
  out.time_gran = 1;
  out.max_pages = static_cast<uint16_t>(kMaxPages);
  // The depth is of the FUSE file system itself: 1 allows backing files on ext4 or xfs and one overlayfs on top of us.
  if (flags & wire::kPassthrough) out.max_stack_depth = 1;
  out.flags = static_cast<uint32_t>(flags);
  out.flags2 = static_cast<uint32_t>(flags >> 32);
  return out;
}

Result<Channel> OpenChannel(const std::string& mountpoint) {
  HR_RETURN_IF_ERROR(MakeDirs(mountpoint, 0755));
  Channel channel;
  auto device = OpenFile("/dev/fuse", O_RDWR | O_NONBLOCK);
  if (!device.ok()) {
    return device.status().Annotate("FUSE is needed (modprobe fuse; a container needs the device /dev/fuse)");
  }
  channel.device = std::move(*device);
  std::string data = "fd=" + std::to_string(channel.device.get()) +
                     ",rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other";
  if (::mount("headrace", mountpoint.c_str(), kType, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME, data.c_str()) != 0) {
    return Status::FromErrno(errno, "mount the FUSE file system at " + mountpoint);
  }
  auto handshake = [&]() -> Status {
    HR_ASSIGN_OR_RETURN(channel.init_bytes, ReadInit(channel.device.get()));
    HR_ASSIGN_OR_RETURN(wire::InitOut out, AnswerInit(channel.init_bytes));
    channel.flags = out.flags | static_cast<uint64_t>(out.flags2) << 32;
    return SendInit(channel.device.get(), channel.init_bytes, out);
  };
  if (Status status = handshake(); !status.ok()) {
    ::umount2(mountpoint.c_str(), MNT_DETACH);
    return status.Annotate("FUSE handshake");
  }
  return channel;
}

Result<uint64_t> MountedDevice(const std::string& mountpoint) {
  const std::vector<std::string> mounts = OurMounts(mountpoint);
  if (mounts.empty()) return NotFoundError("no file system of Headrace is mounted at " + mountpoint);
  const std::string& device = mounts.back();
  const size_t colon = device.find(':');
  auto major = ParseU64(device.substr(0, colon));
  auto minor = ParseU64(colon == std::string::npos ? "" : device.substr(colon + 1));
  if (!major.ok() || !minor.ok()) return InternalError("mountinfo has a device \"" + device + "\"");
  return makedev(static_cast<unsigned>(*major), static_cast<unsigned>(*minor));
}

Status CheckConnection(int device) {
  pollfd ready{device, POLLIN, 0};
  int n;
  do {
    n = ::poll(&ready, 1, 0);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return Status::FromErrno(errno, "poll /dev/fuse");
  if (ready.revents & (POLLERR | POLLNVAL)) return UnavailableError("the FUSE connection has ended");
  return OkStatus();
}

Status AskAgain(int device) {
  const wire::OutHeader notification{sizeof(wire::OutHeader), wire::kNotifyResend, 0};
  if (::write(device, &notification, sizeof notification) != sizeof notification) return Status::FromErrno(errno, "FUSE_NOTIFY_RESEND");
  return OkStatus();
}

Status DetachMount(const std::string& mountpoint) {
  if (::umount2(mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT) {
    return Status::FromErrno(errno, "unmount " + mountpoint);
  }
  return OkStatus();
}

Status SetReadAhead(const std::string& mountpoint, uint64_t kib) {
  struct stat st;
  if (::stat(mountpoint.c_str(), &st) != 0) return Status::FromErrno(errno, "stat " + mountpoint);
  std::string path = "/sys/class/bdi/" + std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev)) +
                     "/read_ahead_kb";
  HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_WRONLY));
  std::string text = std::to_string(kib);
  return WriteFull(fd.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()}).Annotate(path);
}

}  // namespace headrace::kernel
