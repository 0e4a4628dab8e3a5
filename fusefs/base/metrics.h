// Metrics: the one table of counters and gauges (X macro below: name, unit, help). An instance is made by main and handed to whoever
// counts; tests assert against it. All fields are relaxed atomics: any thread, no order between two of them.
// README.md of config/monitoring documents each (a test fails when one is missing). Label sets are closed and written there: only headrace_build_info has one; never a digest, path or key.
#ifndef HEADRACE_FUSEFS_BASE_METRICS_H_
#define HEADRACE_FUSEFS_BASE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <string>

namespace headrace {

// X(field, exported name, "counter" or "gauge", help)
#define HEADRACE_METRICS(X)                                                                                       \
  X(wire_bytes, "headrace_wire_bytes_total", "counter", "body bytes received from registries")                     \
  X(wire_requests, "headrace_wire_requests_total", "counter", "HTTP requests sent to registries")                   \
  X(wire_retries, "headrace_wire_retries_total", "counter", "fetches tried again after a failure")                  \
  X(mirror_requests, "headrace_mirror_requests_total", "counter", "requests to mirrors of hosts.toml files")                  \
  X(mirror_failures, "headrace_mirror_failures_total", "counter", "requests to mirrors that failed; the mirror rests then")   \
  X(mirror_wrong_bytes, "headrace_mirror_wrong_bytes_total", "counter", "mirrors left for good because they gave wrong bytes") \
  X(place_switches, "headrace_place_switches_total", "counter", "fetches that went on at the repository of another image with the same blob") \
  X(wire_errors, "headrace_wire_errors_total", "counter", "fetches given up after their deadline")                  \
  X(ranges_demand, "headrace_ranges_demand_total", "counter", "ranges asked for because somebody reads them")           \
  X(ranges_read_ahead, "headrace_ranges_read_ahead_total", "counter", "ranges asked for ahead of readers")             \
  X(ranges_fill, "headrace_ranges_fill_total", "counter", "ranges asked for to complete an image in the background")   \
  X(ranges_active, "headrace_ranges_active", "gauge", "ranges under way")                                             \
  X(ranges_queued, "headrace_ranges_queued", "gauge", "ranges that wait for memory")                                  \
  X(inflight_bytes, "headrace_inflight_bytes", "gauge", "memory charged to chunks on their way, compressed and decoded") \
  X(pool_queue, "headrace_pool_queue", "gauge", "chunks and other tasks that wait for a core or are on one")          \
  X(chunk_wire_bytes, "headrace_chunk_wire_bytes_total", "counter", "compressed bytes of the chunks that came; wire bytes over these is the amplification") \
  X(chunk_decode_us, "headrace_chunk_decode_microseconds_total", "counter", "time of cores spent on decoding chunks") \
  X(chunk_hash_us, "headrace_chunk_hash_microseconds_total", "counter", "time of cores spent on the digests of chunks") \
  X(cache_write_us, "headrace_cache_write_microseconds_total", "counter", "time spent on writing chunks to the local cache") \
  X(reads_stalled, "headrace_reads_stalled_total", "counter", "reads that waited for bytes")                          \
  X(reads_past_deadline, "headrace_reads_past_deadline_total", "counter", "times that a read went on waiting after its deadline (after_deadline = wait)") \
  X(read_stall_us, "headrace_read_stall_microseconds_total", "counter", "how long they waited, added up")             \
  X(range_window, "headrace_range_window", "gauge", "ranges that may be under way when one is planned")                \
  X(chunk_fetches, "headrace_chunk_fetches_total", "counter", "chunks fetched from a registry")                     \
  X(chunk_joins, "headrace_chunk_joins_total", "counter", "readers that joined a fetch already under way")          \
  X(chunk_digest_mismatches, "headrace_chunk_digest_mismatches_total", "counter", "chunks whose bytes were wrong")  \
  X(cache_hit_bytes, "headrace_cache_hit_bytes_total", "counter", "bytes answered from the local cache")            \
  X(cache_write_bytes, "headrace_cache_write_bytes_total", "counter", "bytes written to the local cache")           \
  X(cache_write_errors, "headrace_cache_write_errors_total", "counter", "cache writes that failed (served all the same)") \
  X(cache_read_errors, "headrace_cache_read_errors_total", "counter", "cache reads that failed (fetched again)")    \
  X(cache_sealed_files, "headrace_cache_sealed_files_total", "counter", "files completed and sealed")               \
  X(cache_used_bytes, "headrace_cache_used_bytes", "gauge", "bytes that the local cache takes on its disk")         \
  X(cache_budget_bytes, "headrace_cache_budget_bytes", "gauge", "bytes that it may take (cache.budget), 0 = no budget") \
  X(cache_writes_refused, "headrace_cache_writes_refused_total", "counter", "cache writes left out because budget or disk are full (served all the same)") \
  X(cache_evicted_contents, "headrace_cache_evicted_contents_total", "counter", "contents removed from the local cache") \
  X(cache_evicted_bytes, "headrace_cache_evicted_bytes_total", "counter", "bytes of the disk that this freed")          \
  X(cache_evicted_mounted_bytes, "headrace_cache_evicted_mounted_bytes_total", "counter", "of these, in contents that a mount shows") \
  X(cache_given_back_bytes, "headrace_cache_given_back_bytes_total", "counter", "what readers have behind them, of files in use, given back for want of room") \
  X(fuse_reads, "headrace_fuse_reads_total", "counter", "FUSE READ requests answered")                              \
  X(fuse_read_bytes, "headrace_fuse_read_bytes_total", "counter", "bytes in answered FUSE READ requests")           \
  X(fuse_read_errors, "headrace_fuse_read_errors_total", "counter", "FUSE READ requests answered with an error")    \
  X(fuse_opens_passthrough, "headrace_fuse_opens_passthrough_total", "counter", "opens answered with passthrough")  \
  X(fuse_opens_direct, "headrace_fuse_opens_direct_total", "counter", "opens answered with direct I/O")             \
  X(fuse_opens_cached, "headrace_fuse_opens_cached_total", "counter", "opens answered with the page cache")         \
  X(fuse_opens_waited, "headrace_fuse_opens_waited_total", "counter", "opens that waited for a complete file to be sealed") \
  X(requests_resent, "headrace_requests_resent_total", "counter", "requests that a predecessor of this process had taken and not answered") \
  X(session_holders, "headrace_session_holders", "gauge", "who keeps the session for a successor: service manager, snapshotter")     \
  X(reads_waiting, "headrace_reads_waiting", "gauge", "reads that wait for the network now")                        \
  X(open_files, "headrace_open_files", "gauge", "open file handles")                                                \
  X(layers, "headrace_layers", "gauge", "layers attached")                                                          \
  X(layers_verified, "headrace_layers_verified_total", "counter", "layers that were read before their digest was known (layers.verify) and are right")  \
  X(layers_poisoned, "headrace_layers_poisoned_total", "counter", "layers that were read before their digest was known and are wrong: nothing of them is read any more")  \
  X(mounts, "headrace_mounts", "gauge", "snapshots shown in the file system")

struct Metrics {
#define HEADRACE_METRIC_FIELD(field, name, type, help) std::atomic<int64_t> field{0};
  HEADRACE_METRICS(HEADRACE_METRIC_FIELD)
#undef HEADRACE_METRIC_FIELD

  static void Add(std::atomic<int64_t>& metric, int64_t n = 1) { metric.fetch_add(n, std::memory_order_relaxed); }
  static int64_t Get(const std::atomic<int64_t>& metric) { return metric.load(std::memory_order_relaxed); }
  // Prometheus text exposition format, version 0.0.4.
  std::string ToPrometheus() const;
  // The table of config/monitoring/README.md.
  static std::string DocumentationTable();
};

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_METRICS_H_
