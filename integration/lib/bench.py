"""The benchmark behind integration/bench; runs in a sandbox of its own (sandbox.py), whose end removes whatever is left."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from bench_cold import suite_cold, suite_cpu, suite_fanout
from bench_core import Bench, OwnMemory
from bench_local import suite_convert, suite_gpu, suite_memory, suite_mount
from bench_net import need_net_admin
from bench_parts import Model
from bench_peers import suite_peers
from bench_warm import suite_warm
from sandbox import check, main, say

# Suites in the order of `all`; those with True work on the model of --gib.
SUITES = {
    "cold": (suite_cold, True), "fanout": (suite_fanout, True), "cpu": (suite_cpu, True), "warm": (suite_warm, True),
    "convert": (suite_convert, True), "memory": (suite_memory, True), "mount": (suite_mount, False),
    "peers": (suite_peers, True), "gpu": (suite_gpu, False),
}
KEPT = Path("/var/tmp/headrace-bench")
MEMORY_MATTERS_GIB = 0.5  # below this a run takes no time worth comparing


def setting(text):
    key, equals, value = text.partition("=")
    if not equals or key.count(".") != 1:
        raise argparse.ArgumentTypeError(f"{text!r}: as stream.range_max=16MiB")
    return key, value


def arguments():
    parser = argparse.ArgumentParser(prog="integration/bench", description=(
        "Measures Headrace against controls taken in the same run. integration/README.md says what each suite does."))
    parser.add_argument("suite", choices=[*SUITES, "all"])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--quick", action="store_true", help="some cells of each suite, one run each, within ten minutes")
    parser.add_argument("--full", action="store_true", help="also what needs much disk and time (mount of 64 GiB)")
    parser.add_argument("--cells", default="", help="only these, as P2/1Gbit/20ms,P4/*/20ms")
    parser.add_argument("--runs", type=int, help="readings of each cell (default: as the suite says; --quick: 1)")
    parser.add_argument("--gib", type=float, help="size of the model (default 2; --quick: 1)")
    parser.add_argument("--work", type=Path, help="keep model and image in this directory for the next run")
    parser.add_argument("--keep", action="store_true", help=f"keep model, image and logs (in --work, or {KEPT})")
    parser.add_argument("--idle-wait", type=float,
                        help="seconds to wait for a quiet machine before each run (default 60; --quick: 5)")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="a setting of headrace-fused (config/params.h), for tuning; can be repeated")
    options = parser.parse_args()
    if options.json:
        options.json = options.json.absolute()
        if not options.json.parent.is_dir():
            parser.error(f"{options.json.parent}: no such directory")
    options.cells = [cell for cell in options.cells.split(",") if cell]
    options.set = dict(options.set)
    options.gib = options.gib or (1.0 if options.quick else 2.0)
    if options.idle_wait is None:
        options.idle_wait = 5 if options.quick else 60
    if options.keep and not options.work:
        options.work = KEPT
    if options.work:
        options.work = options.work.absolute()
    return options


def body(box, options):
    need_net_admin()
    bench = Bench(box, options)
    say(f"{bench.commit} on {os.uname().release}, {bench.machine}")
    model = None
    suites = list(SUITES) if options.suite == "all" else [options.suite]
    with OwnMemory() if options.gib >= MEMORY_MATTERS_GIB else contextlib.nullcontext():
        for name in suites:
            suite, needs_model = SUITES[name]
            if needs_model and model is None:
                model = Model(bench, options.gib)
                say(f"{model.bytes / 1e9:.2f} GB in {len(model.layers)} layers, {model.compressed / 1e9:.2f} GB compressed")
            bench.attempt(name, suite, bench, *([model] if needs_model else []))
            bench.write()
            bench.show(name)
    for text in bench.skipped:
        print(f"skipped: {text}")
    for text in bench.failures:
        print(f"failed: {text}")
    missed = sum(result.get("met") is False for result in bench.results)
    met = sum(result.get("met") is True for result in bench.results)
    print(f"{len(bench.results)} results; targets: {met} met, {missed} missed", flush=True)
    check(not bench.failures, f"{len(bench.failures)} cells failed")


if __name__ == "__main__":
    OPTIONS = arguments()
    if OPTIONS.keep:
        os.environ.setdefault("HEADRACE_KEEP_LOGS", str(OPTIONS.work / "logs"))
    sys.dont_write_bytecode = True
    main(lambda box: body(box, OPTIONS))
