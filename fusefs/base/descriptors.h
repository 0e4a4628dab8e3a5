// Descriptors that travel between processes: with a message over a unix socket (unix(7), SCM_RIGHTS), or from the service manager's store at start
// (sd_listen_fds(3), without libsystemd).
// Any thread. Nothing waits longer than the socket is told to. Limits: kDescriptorsMax descriptors, kMessageMax bytes a message.
#ifndef HEADRACE_FUSEFS_BASE_DESCRIPTORS_H_
#define HEADRACE_FUSEFS_BASE_DESCRIPTORS_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/base/status.h"

namespace headrace {

inline constexpr size_t kDescriptorsMax = 8;
inline constexpr size_t kMessageMax = 8 << 10;

struct Message {
  std::string bytes;
  std::vector<UniqueFd> descriptors;
};

// One datagram or packet; the socket is connected. Unavailable: the other side is gone or takes nothing now.
Status SendMessage(int socket, std::string_view bytes, std::span<const int> descriptors = {});
// The next one; empty bytes and no descriptors: the other side closed. Descriptors that come are close-on-exec. InvalidArgument: it was too long.
// Unavailable: nothing came (in the receive timeout of the socket, or at once if it does not block).
Result<Message> ReceiveMessage(int socket);

// Makes an eventfd(2) readable, for whoever polls it.
void SignalEvent(int event);

struct StoredDescriptor {
  std::string name;  // FDNAME
  UniqueFd descriptor;
};
// What the service manager kept for this process ($LISTEN_FDS). Takes it once: the variables are gone afterwards, so that no child believes they are meant for it.
// Call before the first thread starts.
std::vector<StoredDescriptor> TakeStoredDescriptors();

// A connected SOCK_SEQPACKET socket whose sends and receives give up after `seconds`. Unavailable: nobody listens.
Result<UniqueFd> ConnectPacketSocket(const std::string& path, int seconds);
// A listening one, mode 0600, non-blocking; a socket file that nobody listens on is replaced. FailedPrecondition: somebody does.
Result<UniqueFd> ListenPacketSocket(const std::string& path);

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_DESCRIPTORS_H_
