// What headrace-fused and the snapshotter's SessionKeeper say to each other (unix socket, SOCK_SEQPACKET, one message each way):
//   "PUT <mountpoint>" with two descriptors (/dev/fuse, session table): keep them. Answer "OK". The connection stays open for as long as the daemon lives.
//   "GET <mountpoint>": answer "HELD" with the two descriptors, or "NONE".
//   "DROP <mountpoint>": the session ended. Answer "OK".
// Anything else: answer "ERROR <sentence>". Both are of one release, but an older one may be running: unknown words are answered so.
// Plain values; nothing blocks.
#ifndef HEADRACE_FUSEFS_BASE_KEEPER_PROTOCOL_H_
#define HEADRACE_FUSEFS_BASE_KEEPER_PROTOCOL_H_

#include <cstddef>
#include <string>

namespace headrace::keeper {

inline constexpr char kPut[] = "PUT ";
inline constexpr char kGet[] = "GET ";
inline constexpr char kDrop[] = "DROP ";
inline constexpr char kOk[] = "OK";
inline constexpr char kHeld[] = "HELD";
inline constexpr char kNone[] = "NONE";
inline constexpr char kError[] = "ERROR ";
inline constexpr size_t kSessionDescriptors = 2;

// Where the keeper listens if nothing is configured: beside the control socket.
inline std::string DefaultSocket(const std::string& control_socket) { return control_socket.substr(0, control_socket.rfind('/') + 1) + "keeper.sock"; }

}  // namespace headrace::keeper

#endif  // HEADRACE_FUSEFS_BASE_KEEPER_PROTOCOL_H_
