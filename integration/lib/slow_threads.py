"""Runs the unit tests with a preloaded library (test/support/slow_threads.cc) that lets threads sleep at random where they take or give back a mutex, some threads much more often than
others: what a test, or the product, takes for granted about who comes first falls over here and not once a month in CI. A row for each program that fails, with the seed that
repeats it (as far as a seed repeats threads) and the file with its output.

A test that ran out of its own deadline only because everything is slow says nothing: run it again with a higher --every.
Exit code: 0 nothing failed; 1 something did."""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/release/test"
# One thread only, or about sources and not about threads.
NOT_THESE = {"tidy_test", "arrows_test", "manifests_test", "power_loss_test"}
# A database and a socket below every call: ten times as many locks for the same step.
MANY_LOCKS = ("snapshotter_", "cli_", "node_")


def arguments():
    parser = argparse.ArgumentParser(prog="integration/slow-threads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=4, help="seeds, one after the other (default: 4)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000, help="the first one (default: from the clock)")
    parser.add_argument("--every", type=int, default=300, help="an ordinary thread sleeps at one in so many locks (default: 300; a tenth as often where locks are many)")
    parser.add_argument("--tests", metavar="NAME,NAME", help="only programs with such a name (a part will do)")
    parser.add_argument("--filter", default="*", help="as GoogleTest's --gtest_filter")
    parser.add_argument("--jobs", type=int, default=3, help="programs at a time (default: 3: they mostly sleep)")
    given = parser.parse_args()
    if min(given.rounds, given.every, given.jobs) < 1:
        parser.error("ROUNDS, --every and --jobs must be at least 1")
    return given


def programs(names):
    found = sorted(path for path in BUILD.glob("*_test") if path.name not in NOT_THESE)
    return [path for path in found if not names or any(name in path.name for name in names.split(","))]


def run_one(program, seed, given):
    """None if it passed, else (why, file with its output)."""
    every = given.every * (10 if program.name.startswith(MANY_LOCKS) else 1)
    output = BUILD / "slow-threads" / f"{program.name}.{seed}"
    env = {**os.environ, "LD_PRELOAD": str(BUILD / "headrace_slow_threads.so"), "HEADRACE_SLOW_SEED": str(seed), "HEADRACE_SLOW_EVERY": str(every),
           "HEADRACE_TEST_SEED": str(seed)}
    with output.open("wb") as file:
        try:
            rc = subprocess.run([program, f"--gtest_filter={given.filter}"], env=env, cwd=BUILD, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, timeout=600, check=False).returncode
        except subprocess.TimeoutExpired:
            rc = "no end after 600 s"
    if rc == 0:
        output.unlink()
        return None
    failed = sorted(set(re.findall(r"\[  FAILED  \] (\S+\.\S+)", output.read_text(errors="replace"))))
    return ", ".join(failed) or f"exit {rc}", output


def main():
    given = arguments()
    chosen = programs(given.tests)
    if not chosen:
        sys.exit(f"no test program has such a name: {given.tests}")
    (BUILD / "slow-threads").mkdir(exist_ok=True)
    print(f"seeds {given.seed} to {given.seed + given.rounds - 1}, {len(chosen)} programs", flush=True)
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        runs = {pool.submit(run_one, program, seed, given): (program, seed) for seed in range(given.seed, given.seed + given.rounds) for program in chosen}
        for run in concurrent.futures.as_completed(runs):
            program, seed = runs[run]
            if run.result() is None:
                continue
            failures += 1
            why, output = run.result()
            print(f"{program.name:<32} seed {seed}: {why}  ({output.relative_to(ROOT)})", flush=True)
    print(f"{len(chosen) * given.rounds} runs, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
