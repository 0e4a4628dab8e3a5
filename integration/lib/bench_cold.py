"""Suites cold, fanout and cpu: what a loader waits for when nothing is here yet."""

import os
import threading
import time

from bench_core import busy_seconds, drop_caches
from bench_formats import FORMATS, SETTINGS, format_model
from bench_net import PLAIN_RTT_MS, Link
from bench_parts import Fused, Loader
from bench_servers import KINDS, sent, serve
from sandbox import Failed, say

# P2w: P2 with a helper beside it that has the kernel read the files ahead (posix_fadvise(WILLNEED) on our own mount). Only where it is named.
PATTERNS = ("P1", "P2", "P2w", "P2f", "P3", "P3s", "P4", "P5", "P6", "P7", "P8", "P9", "P10")
HELPED = "P2w"
WILLNEED_STEP = 8 << 20
RATES = ("1Gbit", "2.5Gbit", "5Gbit")
LATENCIES = ("0.2ms", "5ms", "20ms", "50ms")
SERVER_CELLS = ("P2/1Gbit/20ms", "P4/1Gbit/20ms", "P2/5Gbit/5ms", "P4/5Gbit/5ms")  # with each of the other servers as well
LOADER_READY_S = 0.5  # a GiB of huge pages is allocated in a tenth of that
FORMAT_CELL = "P2/1Gbit/20ms"  # with each of the other formats
QUICK = ("P1/1Gbit/20ms", "P2/1Gbit/20ms", "P4/1Gbit/20ms", "P2/2.5Gbit/50ms", "P4/2.5Gbit/50ms",
         "P2/5Gbit/0.2ms", "P3/5Gbit/0.2ms", "P4/5Gbit/0.2ms", "P2/unshaped/0.2ms", "P8/unshaped/0.2ms")


def cold_cells(bench, quick=QUICK, standard=()):
    """[(rate, latency, server, [pattern])] of what was asked for; a named cell need not be one of the standard ones. A cell
    of the standard ones has a fourth part only if its server is not the usual one."""
    names = list(standard)
    if not names:
        names = [f"{pattern}/{rate}/{latency}" for rate in RATES for latency in LATENCIES for pattern in PATTERNS if pattern != HELPED]
        names += [f"{pattern}/unshaped/0.2ms" for pattern in PATTERNS if pattern != HELPED]
        names += [f"{cell}/{kind}" for cell in SERVER_CELLS for kind in KINDS if kind]
        names += [f"{FORMAT_CELL}/{kind}" for kind in FORMATS]
    for cell in bench.options.cells:
        if standard:
            cell = "/".join(cell.split("/")[:3])  # the fourth part names a system
        if cell.count("/") in (2, 3) and not set(cell) & set("*?[") and cell not in names:
            names.append(cell)
    if bench.options.quick and not bench.options.cells:
        names = list(quick)
    links = {}
    for name in names:
        pattern, rate, latency, kind = (name + "/").split("/")[:4]
        wanted = bench.wanted(name) or (standard and bench.wanted_with_format(name))
        if wanted and pattern in PATTERNS:
            links.setdefault((rate, latency, kind), []).append(pattern)
    return [(*link, patterns) for link, patterns in links.items()]


def will_need(directory, ended):
    """Goes through the files of a model in order, as far ahead as the kernel lets it."""
    for path in sorted(directory.rglob("*.safetensors")):
        with open(path, "rb") as file:
            for offset in range(0, path.stat().st_size, WILLNEED_STEP):
                if ended.is_set():
                    return
                os.posix_fadvise(file.fileno(), offset, WILLNEED_STEP, os.POSIX_FADV_WILLNEED)


def cold_run(bench, model, link, pattern, **more):
    """One cold reading: fresh daemon, empty cache, dropped caches. more: processes, settings, cgroup, timeout, rest."""
    bench.wait_for_quiet()
    drop_caches()
    wire_s = model.compressed * 8 / link.bits if link.bits else model.bytes / 1e9
    timeout = more.get("timeout") or 60 + 8 * wire_s
    checksum = model.checksum(pattern)
    fused = Fused(bench, link, more.get("settings"), more.get("cgroup"))
    helped, pattern = pattern == HELPED, "P2" if pattern == HELPED else pattern
    ended = threading.Event()
    loader = Loader(bench, pattern, None, more.get("processes"), checksum, like=model.directory)
    try:
        if link.counts:
            link.reset_stats()
        time.sleep(LOADER_READY_S)
        view, start_s = fused.mount(model.served)
        busy, began = busy_seconds(), time.monotonic()
        loader.show(view / "models")
        if helped:
            threading.Thread(target=will_need, args=(view / "models", ended), daemon=True).start()
        report = loader.result(timeout)
        if more.get("from_mount"):  # a layer without a table of contents is read by the Mount
            report = {**report, "resident_s": report["resident_s"] + start_s, "first_byte_s": report["first_byte_s"] + start_s}
        busy = (busy_seconds() - busy) / (time.monotonic() - began) / os.cpu_count()
        if pattern != "P1":  # after P1 a background fill would go on; only its latencies count
            fused.wait_until_at_rest()
        stats = sent(link, fused)
        return {**report, "start_s": start_s, "machine_busy": busy, "daemon_cpu_s": fused.cpu_seconds(),
                "rss_mib": fused.memory_mib(), "blob_bytes": stats["blob_bytes"], "requests": stats["requests"]}
    except Failed:
        if fused.daemon.process.poll() is not None:
            say(fused.daemon.tail())
        raise
    finally:
        ended.set()
        loader.kill()
        fused.stop()


class LinkRuns:
    """The runs of one link, interleaved: in each round the wire control once, then every pattern once."""

    def __init__(self, bench, suite, model, link, targets=True):
        self.bench, self.suite, self.model, self.link, self.targets = bench, suite, model, link, targets
        self.wire = []
        self.samples = {}
        self.broken = set()

    def round(self, cells):
        """cells: {case: (pattern, more)}"""
        bench, link = self.bench, self.link
        bench.wait_for_quiet()
        self.wire.append(self.model.wire(link)["seconds"])
        say(f"{link.rate}/{link.latency}: wire control {self.wire[-1]:.2f} s")
        for case, (pattern, more) in cells.items():
            if case in self.broken:
                continue
            try:
                run = cold_run(bench, self.model, link, pattern, **more)
            except Failed as error:
                self.broken.add(case)
                bench.failed(f"{self.suite} {case}", error)
                continue
            self.samples.setdefault(case, []).append(run)
            say(f"{case}: resident {run['resident_s']:.2f} s, first byte {1000 * run['first_byte_s']:.1f} ms, "
                f"amplification {run['blob_bytes'] / self.model.compressed:.3f}, daemon {run['daemon_cpu_s']:.2f} CPU s, "
                f"{run['rss_mib']:.0f} MiB, {run['requests']} requests")

    def limit(self):
        """Target of resident_s: 1.05 x what the wire takes + 0.3 s, or 1.10 x the CPU floor where that is more."""
        wire = self.model.compressed * 8 / self.link.bits if self.link.bits else sorted(self.wire)[len(self.wire) // 2]
        return max(1.05 * wire + 0.3, 1.10 * self.model.cpu_floor()["seconds"])

    def report(self, cells):
        for case, runs in self.samples.items():
            self._report_case(case, cells[case][0], runs)

    def _report_case(self, case, pattern, runs):
        bench, model, link = self.bench, self.model, self.link
        wire = sorted(self.wire)[len(self.wire) // 2]
        rtt = link.measured_rtt_ms / 1000

        def column(key, scale=1.0):
            return [run[key] * scale for run in runs]
        whole = pattern != "P1"
        bench.record(self.suite, case, "resident_s", column("resident_s"), "s", control=wire if whole else None,
                     limit=self.limit() if whole and self.targets else None, note="control: parallel range GETs to /dev/null on the same link")
        delayed = link.rtt_ms > PLAIN_RTT_MS and not case.endswith("/object-store")  # whose own delays are no round trips
        bench.record(self.suite, case, "first_byte_s", column("first_byte_s"), "s", control=rtt,
                     limit=2.2 * link.rtt_ms / 1000 if delayed and self.targets and pattern in ("P1", "P2") else None,
                     note="control: one round trip")
        bench.record(self.suite, case, "start_s", column("start_s"), "s", note="Mount calls of all layers; no containerd")
        if not whole:
            return
        bench.record(self.suite, case, "throughput", column("throughput", 1e-6), "MB/s",
                     control=model.weights / wire / 1e6, note="decoded bytes; control: the wire floor's")
        bench.record(self.suite, case, "wire_amplification", column("blob_bytes", 1 / model.compressed), "x",
                     control=1.0, limit=1.01)
        floor = model.cpu_floor()
        bench.record(self.suite, case, "cpu_s_per_gb", column("daemon_cpu_s", 1e9 / model.bytes), "s/GB",
                     control=floor["cpu_s"] / floor["bytes"] * 1e9, limit=1.3 * floor["cpu_s"] / floor["bytes"] * 1e9,
                     note="user + system of headrace-fused only; control: sha256 + zstd + one copy")
        bench.record(self.suite, case, "rss_mib", column("rss_mib"), "MiB", note="highest VmRSS of headrace-fused")
        bench.record(self.suite, case, "machine_busy", column("machine_busy"), "of all cores",
                     note="daemon, loader, registry and network together: near 1, the processors are what limits")
        bench.record(self.suite, case, "loader_cpu_s", column("cpu_s"), "s", note="user + system of the loader")


def run_on_link(bench, suite, model, rate, latency, cells, rounds, server=""):
    """Makes the link, does the rounds, reports. Results so far survive a failure."""
    link = Link(bench, rate, latency)
    other = server in FORMATS
    if other:  # no target but to be right: the price of the format, from the Mount on
        settings = SETTINGS.get(server)
        model, server = format_model(bench, model, server), ""
        cells = {case: (pattern, {**more, "from_mount": True, "settings": settings}) for case, (pattern, more) in cells.items()}
    runs = LinkRuns(bench, suite, model, link, targets=not other)
    try:
        serve(bench, link, model, server)
        for number in range(rounds):
            wire_s = model.compressed * 8 / link.bits if link.bits else 2
            bench.spend((wire_s + 8) * (len(cells) + 1), f"{rate}/{latency}, round {number + 1}")
            runs.round(cells)
    finally:
        runs.report(cells)
        bench.write()
        link.close()


def suite_cold(bench, model):
    for rate, latency, server, patterns in cold_cells(bench):
        suffix = f"{rate}/{latency}" + (f"/{server}" if server else "")
        cells = {f"{pattern}/{suffix}": (pattern, {}) for pattern in patterns}
        bench.attempt(f"cold */{suffix}", run_on_link, bench, "cold", model, rate, latency, cells, bench.runs(3), server)
    _compare_p2_with_p4(bench)


def _compare_p2_with_p4(bench):
    """Target: one thread that maps reads about as fast as eight threads that pread."""
    values = {result["case"]: result["value"] for result in bench.results
              if result["suite"] == "cold" and result["metric"] == "resident_s"}
    for case, value in values.items():
        other = values.get(case.replace("P2/", "P4/", 1))
        if case.startswith("P2/") and other:
            bench.record("cold", case, "resident_p2_by_p4", [value / other], "x", control=1.0, limit=1.15)


def suite_fanout(bench, model):
    """1, 2, 4 and 8 processes that share the tensors of the same cold files (P9)."""
    processes = (1, 8) if bench.options.quick else (1, 2, 4, 8)
    for rate, latency in (("5Gbit", "0.2ms"),) if bench.options.quick else (("2.5Gbit", "20ms"), ("5Gbit", "0.2ms")):
        cells = {f"P9x{count}/{rate}/{latency}": ("P9", {"processes": count}) for count in processes
                 if bench.wanted(f"P9x{count}/{rate}/{latency}")}
        if cells:
            bench.attempt(f"fanout */{rate}/{latency}", run_on_link, bench, "fanout", model, rate, latency, cells, bench.runs(3))


def suite_cpu(bench, model):
    """CPU seconds a GB read cold, on an unshaped link, against sha256 + zstd + one copy of the same bytes."""
    patterns = ("P4",) if bench.options.quick else ("P2", "P4", "P7", "P8")
    cells = {f"{pattern}/unshaped/0.2ms": (pattern, {}) for pattern in patterns if bench.wanted(f"{pattern}/unshaped/0.2ms")}
    if cells:
        bench.attempt("cpu", run_on_link, bench, "cpu", model, "unshaped", "0.2ms", cells, bench.runs(5))
