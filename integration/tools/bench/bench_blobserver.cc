// bench-blobserver: an OCI layout directory as a registry that behaves like an object store, for the benchmark.
//
//   bench-blobserver --layout DIR --listen ADDR:PORT [--ttfb-ms N] [--conn-rate BYTES_PER_S] [--redirect] [--redirect-ttl-s N]
//                    [--threads N]
// Prints {"listening":"ADDR:PORT"} (port 0: the kernel's choice) and serves until SIGTERM: GET and HEAD of /v2/,
// /v2/NAME/manifests/TAG-or-digest and /v2/NAME/blobs/DIGEST (any NAME), GET /stats, POST /reset.
#include <signal.h>

#include "fusefs/base/process.h"
#include "integration/tools/bench/blob_server.h"
#include "integration/tools/bench/common.h"

int main(int argc, char** argv) {
  using namespace headrace::bench;
  CLI::App app("Serves an OCI layout as a registry with the delays of an object store", "bench-blobserver");
  SiteOptions site_options;
  ServerOptions options;
  double ttfb_ms = 0;
  app.add_option("--layout", site_options.layout, "OCI layout directory")->required();
  app.add_option("--listen", options.listen, "ADDR:PORT (IPv4)")->required();
  app.add_option("--ttfb-ms", ttfb_ms, "delay of the first byte of each answer with bytes of a blob")->check(CLI::Range(0.0, 60000.0));
  AddBytes(app, "--conn-rate", options.conn_rate, "bytes a second of blobs on each connection (no limit)");
  app.add_flag("--redirect", site_options.redirect, "answers requests for blobs with 307 to a signed path that expires");
  app.add_option("--redirect-ttl-s", site_options.redirect_ttl_s, "for so long a redirect is good; 403 afterwards (3600)")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--threads", options.threads, "loops that serve (1)")->check(CLI::Range(1u, 64u));
  return RunTool(app, argc, argv, [&] {
    options.ttfb_s = ttfb_ms / 1000;
    BlockStopSignals();
    signal(SIGPIPE, SIG_IGN);
    (void)headrace::RaiseDescriptorLimit();  // with the soft limit there are fewer connections, which shows
    BlobSite site(site_options);
    BlobServer server(options, site);
    PrintLine({{"listening", server.address()}});
    WaitForStop();
    return 0;
  });
}
