// The one table of every setting of Headrace: key, type, default, limits, sentence. From it come the parser (config.cc), the shipped
// headrace.toml and config/README.md's table (a test fails when either is stale), and `--print-config`.
//
// X(struct, section, key, kind, default, min, max, help)
//   struct: Fused (headrace-fused) or Snapshotter (headrace-snapshotter)
//   kind:   Text, TextList, Size (bytes), Duration, Count. Defaults, minima and maxima are written as in the file; "" = no limit.
//           The maximum of a Text: what it may be, with '|' between.
// All settings are read at start; which of them headrace-fused reads again on SIGHUP stands in config.cc (IsReloadable).
#ifndef HEADRACE_CONFIG_PARAMS_H_
#define HEADRACE_CONFIG_PARAMS_H_

#define HEADRACE_FUSED_PARAMS(X)                                                                                               \
  X(Fused, "fused", root, Text, "/var/lib/headrace/fused", "", "", "Directory of the layer state and of the chunk cache.")         \
  X(Fused, "fused", mountpoint, Text, "/run/headrace/fs", "", "", "Where the one FUSE file system is mounted. Keep it short: it stands in every lowerdir option.") \
  X(Fused, "fused", control_socket, Text, "/run/headrace/control.sock", "", "", "Unix socket of the control API.")               \
  X(Fused, "fused", keeper_socket, Text, "", "", "", "Unix socket at which the snapshotter keeps the session of a daemon that died; empty = keeper.sock beside control_socket.") \
  X(Fused, "fused", log_level, Text, "info", "", "trace|debug|info|warn|error|off", "trace, debug, info, warn, error or off.")                                     \
  X(Fused, "fused", metrics_address, Text, "", "", "", "HOST:PORT of the pages /metrics (Prometheus) and /healthz, in numbers (\"127.0.0.1:9464\"); nothing protects them; empty = off.") \
  X(Fused, "fused", fuse_threads, Count, "4", "1", "64", "Threads that take requests from the kernel. They never wait for the network.") \
  X(Fused, "fused", decode_threads, Count, "0", "0", "256", "Threads that verify and decode chunks; 0 = one for each core.")     \
  X(Fused, "fused", read_ahead, Size, "4MiB", "128KiB", "128MiB", "Read-ahead of the kernel for mapped and page-cached files.")      \
  X(Fused, "fused", small_file, Size, "4MiB", "0", "64MiB", "Files up to this size are fetched whole at their first open and live in the page cache.") \
  X(Fused, "registry", docker_config, Text, "", "", "", "docker's config.json with credentials; empty = $DOCKER_CONFIG/config.json or ~/.docker/config.json if there is one.") \
  X(Fused, "registry", plain_http, TextList, "", "", "", "Registries (host[:port]) that are spoken to without TLS. localhost always is.") \
  X(Fused, "registry", config_path, Text, "", "", "", "Directories with hosts.toml files, as in containerd's configuration (\"/etc/containerd/certs.d\"); several with ':' between them.") \
  X(Fused, "registry", connections, Count, "64", "2", "512", "Connections to one registry host at most; so many as help are used.")    \
  X(Fused, "registry", connect_timeout, Duration, "10s", "100ms", "5m", "Time to connect before an attempt counts as failed.")   \
  X(Fused, "registry", stall_timeout, Duration, "30s", "1s", "10m", "Time without a byte before an attempt counts as failed.")   \
  X(Fused, "keychain", credential_provider_config, Text, "", "", "", "The kubelet's --image-credential-provider-config (file or directory); empty = no credential provider programs.") \
  X(Fused, "keychain", credential_provider_bin_dir, Text, "", "", "", "The kubelet's --image-credential-provider-bin-dir: where those programs are.") \
  X(Fused, "keychain", credentials_file, Text, "", "", "", "Our own file of credentials (JSON, only its owner may read it), asked last; empty = none.") \
  X(Fused, "keychain", program_timeout, Duration, "30s", "1s", "5m", "How long a credential provider or helper may take before it is killed.") \
  X(Fused, "stream", read_deadline, Duration, "5m", "1s", "24h", "How long a read waits for a failing registry before it gets EIO. EIO on a mapped page kills the reader: keep it long.") \
  X(Fused, "stream", after_deadline, Text, "eio", "", "eio|wait", "What a read gets at its deadline: eio = an error; wait = it waits on until the bytes come or its process is killed.") \
  X(Fused, "stream", range_max, Size, "8MiB", "64KiB", "64MiB", "Compressed bytes that one GET asks for at most.")               \
  X(Fused, "stream", inflight_max, Size, "0", "0", "64GiB", "Memory for chunks on their way, compressed and decoded; 0 = a sixteenth of the memory, 256 MiB to 1 GiB.") \
  X(Fused, "stream", fill_rate, Size, "64MiB", "0", "1TiB", "Compressed bytes a second of the rest of an image, once a large file of it is read; 0 = none of it.") \
  X(Fused, "cache", budget, Size, "0", "0", "", "Bytes of the disk that the cache may take, never exceeded; 0 = no budget. What does not fit is served all the same, and not kept.") \
  X(Fused, "cache", low_mark, Count, "90", "10", "99", "Percent of the budget down to which contents are evicted; eviction begins half way between this and the budget.") \
  X(Fused, "cache", free_min, Size, "1GiB", "0", "", "Bytes that stay free on the cache's file system, at most a twentieth of it; contents are evicted below 1.25 times this. 0 = none.") \
  X(Fused, "cache", max_age, Duration, "0s", "0s", "87600h", "Contents that no mount shows are evicted after so long without use; 0s = never for their age.") \
  X(Fused, "layers", without_table, Text, "stream", "", "stream|leave", "Layers without a table of contents (tar, gzip, zstd): stream = read once, served when verified; leave = left to containerd.") \
  X(Fused, "layers", verify, Text, "strict", "", "strict|deferred", "Large plain tars: strict = served when all was verified; deferred = served at once, verified meanwhile, unreadable if wrong.")

#define HEADRACE_SNAPSHOTTER_PARAMS(X)                                                                                          \
  X(Snapshotter, "snapshotter", root, Text, "/var/lib/headrace/snapshotter", "", "", "Directory of the metadata and of the upper directories. Report its file system to containerd as exports.root.") \
  X(Snapshotter, "snapshotter", socket, Text, "/run/headrace/snapshotter.sock", "", "", "Unix socket that containerd's proxy plugin dials.") \
  X(Snapshotter, "snapshotter", control_socket, Text, "/run/headrace/control.sock", "", "", "Control socket of headrace-fused.")  \
  X(Snapshotter, "snapshotter", keeper_socket, Text, "", "", "", "Unix socket at which headrace-fused leaves its session for a successor; empty = keeper.sock beside control_socket.") \
  X(Snapshotter, "snapshotter", log_level, Text, "info", "", "trace|debug|info|warn|error|off", "trace, debug, info, warn, error or off.")                         \
  X(Snapshotter, "snapshotter", mount_deadline, Duration, "30s", "1s", "10m", "How long Prepare waits for a layer's table of contents before containerd downloads the layer instead.") \
  X(Snapshotter, "keychain", cri_socket, Text, "", "", "", "Unix socket of the CRI image-service proxy: the kubelet's --image-service-endpoint; empty = no proxy. Pull secrets are learned there.") \
  X(Snapshotter, "keychain", cri_backend, Text, "/run/containerd/containerd.sock", "", "", "Unix socket of containerd, to which the proxy forwards everything.")

#endif  // HEADRACE_CONFIG_PARAMS_H_
