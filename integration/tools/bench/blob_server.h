// BlobServer: the sockets of bench-blobserver: epoll loops that share one listening socket, keep-alive connections, blobs by
// sendfile(2). Made to cost little, because it shares the machine with what is measured.
//
// An object store is imitated by two delays, each of its own connection: the time to the first byte of a blob, and a token bucket.
// Owns its threads; Stop (or the destructor) ends and joins them. Start throws. A connection belongs to one loop.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_BLOB_SERVER_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_BLOB_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "integration/tools/bench/blob_site.h"

namespace headrace::bench {

struct ServerOptions {
  std::string listen;      // "127.0.0.1:0"
  double ttfb_s = 0;       // before the first byte of each answer with bytes of a blob
  uint64_t conn_rate = 0;  // bytes/s of blobs on each connection; 0: no limit
  unsigned threads = 1;
};

class BlobLoop;

class BlobServer {
 public:
  BlobServer(const ServerOptions& options, BlobSite& site);
  ~BlobServer();
  BlobServer(const BlobServer&) = delete;
  BlobServer& operator=(const BlobServer&) = delete;
  // Where it listens, with the port that the kernel chose.
  std::string address() const { return address_; }
  void Stop();

 private:
  UniqueFd listener_;
  std::string address_;
  std::vector<std::unique_ptr<BlobLoop>> loops_;
};

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_BLOB_SERVER_H_
