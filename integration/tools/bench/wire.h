// The control of every cold read: parallel range GETs whose bytes go nowhere. Plain HTTP/1.1 over blocking sockets, one thread for
// each connection, nothing but recv(2): what the network and the server can do. Errors throw.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_WIRE_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_WIRE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace headrace::bench {

struct WireBlob {
  std::string url;  // http://HOST:PORT/PATH; a redirect is followed, and renewed when it expired
  uint64_t size = 0;
};

struct WireResult {
  uint64_t bytes = 0;
  uint64_t requests = 0;
  double seconds = 0;
  double first_byte_s = 0;  // from the begin to the first byte of the first answer
};

// Fetches every byte of the blobs once, in ranges of `range` bytes taken in order by `connections` connections.
WireResult FetchAll(const std::vector<WireBlob>& blobs, unsigned connections, uint64_t range);

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_WIRE_H_
