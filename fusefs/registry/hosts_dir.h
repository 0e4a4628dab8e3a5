// HostsDir: which places are asked for a registry, in which order and how: containerd's `config_path` directories (core/remotes/docker/config of containerd, docs/hosts.md).
//
// For a registry "host:port" the first of these directories that exists counts: `host_port_`, `host:port`, `_default`, in each of the configured directories in turn. In it hosts.toml,
// and if there is none (or it is broken) `*.crt` (authorities) and `*.cert` with `*.key` (client certificates).
// Mirrors come in the order of the file, the registry itself last. A broken file is no reason to fail: the registry is asked without mirrors, the log says once what is
// wrong, and `note` is there for error messages.
//
// Thread-safe. Touches the local disk (stat at most every two seconds for each registry, reading on change); never waits for the network.
#ifndef HEADRACE_FUSEFS_REGISTRY_HOSTS_DIR_H_
#define HEADRACE_FUSEFS_REGISTRY_HOSTS_DIR_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/hosts_toml.h"
#include "fusefs/registry/http_engine.h"
#include "fusefs/registry/url.h"

namespace headrace::registry {

// A place that speaks the registry API. Immutable.
struct Endpoint {
  uint64_t id = 0;  // 0: the registry itself; mirrors have numbers that stay the same while the process runs
  Url base;         // `target` is what stands before "/<repository>/...": "/v2", or what override_path says
  std::string ns;   // mirrors are told which registry is meant: ?ns=<host>
  bool pull = true;
  bool resolve = true;
  bool push = true;
  std::vector<std::string> headers;
  std::shared_ptr<const TlsSettings> tls;  // null: the system's
  std::chrono::milliseconds connect_timeout{0};  // 0: the client's
};

struct Endpoints {
  std::shared_ptr<const Endpoint> registry;  // null: nothing is configured, the client knows it by its name
  std::vector<std::shared_ptr<const Endpoint>> mirrors;
  std::vector<std::string> files;  // authorities and certificates that were read: when one changes, all of it is read again
  std::string note;  // what of the configuration could not be used, for messages; "" if all could
};

class HostsDir {
 public:
  // `config_path`: directories with ':' between them; "": none.
  explicit HostsDir(const std::string& config_path);
  // `host` as in an image reference ("docker.io", "registry.example:5000").
  std::shared_ptr<const Endpoints> Find(const std::string& host);

 private:
  struct Known {
    std::shared_ptr<const Endpoints> endpoints;
    std::string state;  // of the files it was made from
    std::chrono::steady_clock::time_point looked;
  };
  std::string DirectoryFor(const std::string& host) const;
  std::shared_ptr<const Endpoints> Load(const std::string& host, const std::string& directory);
  std::shared_ptr<const Endpoint> Make(const HostEntry& entry, const std::string& host, bool mirror, Endpoints& out);
  uint64_t IdOf(const std::string& name);

  std::vector<std::string> directories_;
  Mutex mu_;  // held across reading small local files
  std::map<std::string, Known> known_ HR_GUARDED_BY(mu_);
  std::map<std::string, uint64_t> ids_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_HOSTS_DIR_H_
