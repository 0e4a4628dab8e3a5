"""What every suite of integration/bench uses: the options, the clock, the machine's state, and the results."""

import fnmatch
import json
import mmap
import os
import statistics
import subprocess
import time
from pathlib import Path

from sandbox import BUILD, ROOT, TOOLS, Failed, Skip, need_program, run, say

GIB = 1 << 30
MIB = 1 << 20
QUICK_SECONDS = 540  # --quick promises ten minutes; a minute is left for making the model and clearing away
IDLE_ENOUGH = 0.97
# Metrics of which more is better; of all others less is.
MORE_IS_BETTER = {"throughput"}


class OutOfTime(Exception):
    """The time of --quick is used up: what is left is named and left out."""


def _jiffies():
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3], sum(fields)  # idle without iowait: a machine that waits for its disk is not quiet


def busy_seconds():
    """Processor seconds that anything on this machine used so far; waiting for the disk is not use."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def memory_kib(key="MemAvailable"):
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise Failed(f"/proc/meminfo has no {key}")


class OwnMemory:
    """Memory that is ours while we measure. A guest with free page reporting gives freed memory back to its hypervisor at once, and pays
    for it anew, up to three times the CPU of everything that is measured, when it is touched again: that is the machine's doing, not the
    doing of what is compared. So reporting is off (and set back at the end), and memory is touched once before."""
    ORDER = Path("/sys/module/page_reporting/parameters/page_reporting_order")
    NEVER = "11"  # above the largest block of the page allocator

    def __enter__(self):
        self.order = self.ORDER.read_text().strip() if self.ORDER.exists() else None
        if self.order and self.order != self.NEVER:
            say("free page reporting is off while we measure")
            self.ORDER.write_text(self.NEVER)
        if self.order:
            self.touch()
        return self

    def __exit__(self, *_):
        if self.order and self.order != self.NEVER:
            self.ORDER.write_text(self.order)

    @staticmethod
    def touch(share=0.6, step=2 << 20):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemFree:")) * 1024
        size = int(free * share) // step * step
        if size == 0:
            return
        child = os.fork()  # a process of its own: the peak of ours is handed on to the programs whose memory we measure
        if child:
            os.waitpid(child, 0)
            return
        block = b"\1" * step
        with mmap.mmap(-1, size) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)
            for at in range(0, size, step):
                memory[at:at + step] = block
        os._exit(0)


def drop_caches():
    """Page cache, dentries and inodes of the whole machine; what is dirty is written first."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def _machine():
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} x {model}, {memory_kib('MemTotal') / MIB:.0f} GiB"


def _commit():
    try:
        head = run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"]).strip()
        dirty = run(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"]).strip()
        return head + ("-dirty" if dirty else "")
    except Failed:
        return "unknown"


class Bench:
    """One run of integration/bench: options, clock, results."""

    def __init__(self, box, options):
        self.box = box
        self.options = options
        self.results = []
        self.failures = []
        self.skipped = []
        self._began = time.monotonic()
        self._numbers = {}
        self.work = Path(options.work) if options.work else box.path("work")
        self.work.mkdir(parents=True, exist_ok=True)
        self.commit, self.machine = _commit(), _machine()

    # ---- clock and machine ----

    def spend(self, seconds, what):
        """Raises OutOfTime if --quick has no `seconds` left for `what`."""
        if self.options.quick and time.monotonic() - self._began + seconds > QUICK_SECONDS:
            raise OutOfTime(what)

    def runs(self, default):
        return self.options.runs or (1 if self.options.quick else default)

    def wait_for_quiet(self):
        """Waits until the processors are idle, for a while; says so if they do not become idle."""
        window = 1 if self.options.quick else 3
        give_up = time.monotonic() + self.options.idle_wait
        while True:
            idle, total = _jiffies()
            time.sleep(window)
            idle_now, total_now = _jiffies()
            share = (idle_now - idle) / max(1, total_now - total)
            if share > IDLE_ENOUGH:
                return
            if time.monotonic() > give_up:
                say(f"the machine is not quiet: {100 * share:.0f} % idle; measuring all the same")
                return

    def number(self, what):
        """1, 2, ... for each `what`: names of things that are made again and again."""
        self._numbers[what] = self._numbers.get(what, 0) + 1
        return self._numbers[what]

    # ---- programs ----

    @staticmethod
    def tool(name):
        for directory in (BUILD / "bin", TOOLS):
            if (directory / name).exists():
                return directory / name
        return need_program(TOOLS / name, name)

    def tool_json(self, name, *arguments, prefix=(), timeout=600):
        """Runs a tool that prints one JSON object."""
        output = run([*prefix, self.tool(name), *arguments], timeout=timeout)
        try:
            return json.loads(output)
        except ValueError as error:
            raise Failed(f"{name} printed no JSON: {output[-300:]!r}") from error

    # ---- cells and results ----

    def wanted(self, cell):
        """Was this cell asked for (--cells, patterns as of a shell)?"""
        return not self.options.cells or any(fnmatch.fnmatchcase(cell, pattern) for pattern in self.options.cells)

    def wanted_with_format(self, cell):
        """Was this cell asked for with any format (a fourth part)?"""
        patterns = [pattern.rpartition("/")[0] for pattern in self.options.cells if pattern.count("/") == 3]
        return any(fnmatch.fnmatchcase(cell, pattern) for pattern in patterns)

    def record(self, suite, case, metric, samples, unit, **more):
        """Keeps the median of `samples`. more: control (a number in the same unit), limit (the target), note."""
        samples = [sample for sample in samples if sample is not None]
        if not samples:
            return None
        value = statistics.median(samples)
        control, limit = more.get("control"), more.get("limit")
        result = {"suite": suite, "case": case, "metric": metric, "value": _short(value), "unit": unit,
                  "control": _short(control), "ratio": _short(value / control) if control else None,
                  "min": _short(min(samples)), "max": _short(max(samples)), "runs": len(samples)}
        if limit is not None:
            result["limit"] = _short(limit)
            result["met"] = value >= limit if metric in MORE_IS_BETTER else value <= limit
        if more.get("note"):
            result["note"] = more["note"]
        self.results.append(result)
        return result

    def skip(self, what, reason):
        self.skipped.append(f"{what}: {reason}")
        say(f"SKIPPED {what}: {reason}")

    def failed(self, what, error):
        self.failures.append(f"{what}: {str(error).splitlines()[0]}")
        say(f"FAILED {what}: {error}")

    def attempt(self, what, action, *arguments):
        """A cell that fails is named, and the others go on. Returns None then."""
        try:
            return action(*arguments)
        except Skip as reason:
            self.skip(what, str(reason))
        except OutOfTime as rest:
            self.skip(f"{what}: {rest}" if str(rest) != what else what, "the time of --quick is used up")
        except (Failed, subprocess.TimeoutExpired) as error:
            self.failed(what, error)
        return None

    def write(self):
        if self.options.json:
            self.options.json.write_text(json.dumps({
                "commit": self.commit, "kernel": os.uname().release, "machine": self.machine, "results": self.results,
                "failed": self.failures, "skipped": self.skipped}, indent=1) + "\n")

    def show(self, suite):
        rows = [result for result in self.results if result["suite"] == suite]
        if suite in ("cold", "fanout", "cpu"):
            print_cells(suite, [row for row in rows if row["metric"] != "resident_p2_by_p4"])
            rows = [row for row in rows if row["metric"] == "resident_p2_by_p4"]
        if rows:
            print_table(suite, rows)


def _short(number):
    if number is None or isinstance(number, int):
        return number
    return float(f"{number:.6g}")


def _text(number):
    if number is None:
        return ""
    return f"{number:.4g}" if abs(number) < 10000 else f"{number:.0f}"


def _with_range(row):
    if row is None:
        return "-"
    spread = f" [{_text(row['min'])} - {_text(row['max'])}]" if row["runs"] > 1 and row["metric"] == "resident_s" else ""
    return _text(row["value"]) + spread + {True: " ok", False: " MISSED", None: ""}[row.get("met")]


def _aligned(lines):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    print(flush=True)


# Metrics that stand side by side, one line for a cell: (metric, head of the column).
CELL_COLUMNS = (("resident_s", "resident s"), ("first_byte_s", "first byte s"), ("wire_amplification", "amplification"),
                ("cpu_s_per_gb", "CPU s/GB"), ("rss_mib", "RSS MiB"), ("machine_busy", "busy"), ("start_s", "mount s"))


def print_cells(suite, rows):
    """One line for each cell of the cold suites."""
    cases = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["metric"]] = row
    lines = [("cell", CELL_COLUMNS[0][1], "limit s", "wire s", "x wire", *(head for _, head in CELL_COLUMNS[1:]))]
    for case, metrics in cases.items():
        resident = metrics.get("resident_s", {})
        lines.append((case, _with_range(resident or None), _text(resident.get("limit")), _text(resident.get("control")),
                      _text(resident.get("ratio")), *(_with_range(metrics.get(metric)) for metric, _ in CELL_COLUMNS[1:])))
    print(f"\n{suite} (ok, MISSED: the target)")
    _aligned(lines)


def print_table(suite, rows):
    lines = [("case", "metric", "median", "min", "max", "unit", "control", "ratio", "limit", "")]
    for row in rows:
        verdict = {True: "ok", False: "MISSED", None: ""}[row.get("met")]
        lines.append((row["case"], row["metric"], _text(row["value"]), _text(row["min"]), _text(row["max"]), row["unit"],
                      _text(row["control"]), _text(row["ratio"]), _text(row.get("limit")), verdict))
    print(f"\n{suite}")
    _aligned(lines)
