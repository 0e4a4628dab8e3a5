"""integration/critest: the CRI suite of cri-tools against containerd, once with overlayfs and once with Headrace as its snapshotter.

No test that passes with overlayfs may fail with Headrace. The outcomes of both are written as a table."""

import argparse
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from cri_images import network, nothing_left, push_cri_images
from nodes import fused_ctl
from parts import REGISTRY, Containerd, Headrace, Registry
from sandbox import DEPS, ROOT, Failed, check, main, need_program, run, say

COLUMNS = ("overlayfs", "headrace")
OUTCOMES = {"passed": "passed", "failed": "FAILED", "skipped": "skipped", "timedout": "FAILED", "panicked": "FAILED", "interrupted": "FAILED"}
COLUMN_DEADLINE_S = 1800  # it takes some minutes
# Skipped by the suite itself when containerd loses a container to a race with a plugin that registers; with overlayfs in 9 runs of 10. Which way
# it goes says nothing about the snapshotter. No other skip is excused: a volume that is not mounted would be one.
RACE = "spec discrepancy: containerd lost"
RESULTS = ROOT / "integration/CONFORMANCE-RESULTS.md"


def parse_arguments():
    parser = argparse.ArgumentParser(prog="integration/critest", description=__doc__)
    parser.add_argument("--focus", default="", help="only tests whose names match this regular expression")
    parser.add_argument("--columns", default=",".join(COLUMNS), help="only these of overlayfs,headrace")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the tests")
    parser.add_argument("--write", action="store_true", help=f"write the outcomes to {RESULTS.name}")
    return parser.parse_args()


def first_line(text):
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def reason(name, outcome, message):
    """What the table says below. A digest is of an image that only its makers' registry has."""
    if "benchmark" in name and outcome == "skipped":
        return "a measurement, not a test"
    if "with digest" in name and outcome == "FAILED":
        return "wants an image of a fixed digest from its makers' registry: cannot be made here"
    return re.sub(r" \(\[.*", "", message.removeprefix("skipped").removeprefix(" - ")) or outcome


def read_report(path):
    """{test: (outcome, message)}; nodes around the tests (BeforeSuite and such) only when they failed."""
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = case.get("name")
        outcome = OUTCOMES.get(case.get("status"), case.get("status"))
        if not name.startswith("[It]") and outcome != "FAILED":
            continue
        message = ""
        for kind in ("failure", "error", "skipped"):
            if (node := case.find(kind)) is not None:
                message = first_line(node.get("message") or node.text)
        found[name.removeprefix("[It] ").removeprefix("[k8s.io] ")] = (outcome, message)
    return found


def run_suite(box, containerd, column, options):
    report = box.logs / f"critest-{column}.xml"
    argv = [need_program(DEPS / "conformance/bin/critest", "the CRI suite"), f"-runtime-endpoint=unix://{containerd.socket}",
            f"-nri-socket={containerd.nri}",
            f"-ginkgo.junit-report={report}", f"-ginkgo.seed={options.seed}", "-ginkgo.no-color", f"-ginkgo.timeout={COLUMN_DEADLINE_S - 60}s",
            f"-test.timeout={COLUMN_DEADLINE_S}s"]
    if options.focus:
        argv.append(f"-ginkgo.focus={options.focus}")
    with open(box.logs / f"critest-{column}.log", "wb") as log:
        try:
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=COLUMN_DEADLINE_S + 30,
                           env={**os.environ, "TMPDIR": str(box.path("tmp"))})
        except subprocess.TimeoutExpired as error:
            raise Failed(f"critest still runs after {COLUMN_DEADLINE_S + 30} s") from error
    check(report.exists(), f"critest wrote no report; the end of its log:\n{Path(log.name).read_text(errors='replace')[-3000:]}")
    return read_report(report)


def run_column(box, column, options, hosts, cni):
    headrace = None
    if column == "headrace":
        config = box.directory / "headrace.toml"
        config.write_text(f"[registry]\nconfig_path = \"{hosts}\"\n")
        headrace = Headrace(box, config=config)
    # A UTS namespace of its own: tests of host names cannot touch the machine's.
    containerd = Containerd(box, f"ctrd-{column}", headrace=headrace, pause_image="registry.k8s.io/pause:3.9", hosts=hosts, cni=cni,
                            nri=f"/run/nri-{column}.sock", prefix=("unshare", "--uts"))
    found = run_suite(box, containerd, column, options)
    count = {outcome: sum(1 for one, _ in found.values() if one == outcome) for outcome in ("passed", "FAILED", "skipped")}
    say(f"{column}: " + ", ".join(f"{number} {outcome}" for outcome, number in count.items()))
    if headrace:
        metrics = fused_ctl(headrace.root / "control.sock", "status")["metrics"]
        opened = sum(value for name, value in metrics.items() if name.startswith("headrace_fuse_opens_"))
        say(f"headrace-fused: {metrics['headrace_layers']} layers, {opened} files opened, {metrics['headrace_wire_bytes_total']} bytes fetched")
        check(opened > 0, "no file was read through Headrace: the column says nothing about it")
    containerd.stop()
    if headrace:
        headrace.stop()
    return found


def as_good(result):
    outcome, message = result or ("not run", "")
    return outcome == "passed" or (outcome == "skipped" and RACE in message)


def table(columns, options):
    names = sorted(set().union(*columns.values()))
    version = (DEPS / "conformance/stamps/critest").read_text().strip()
    containerd = (DEPS / "containerd-2/version").read_text().strip()
    runc = first_line(run(["runc", "--version"]))
    lines = ["# The CRI suite", "", f"`integration/critest --seed {options.seed} --write`: critest {version} of cri-tools, containerd {containerd}, {runc}, kernel "
             f"{'.'.join(os.uname().release.split('.')[:2])}. Ordinary (gzip) images from a registry on the loopback interface, which Headrace serves lazily. Pods have a "
             "network of their own (CNI bridge and portmap).", "",
             "A test that passes with overlayfs must pass with Headrace. What fails or is skipped in both columns says why below the table: it is about the machine "
             "or the runtime, not about the snapshotter.", "", "| test | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    reasons = {}
    for name in names:
        row = [columns[column].get(name, ("not run", "")) for column in columns]
        lines.append("| " + name.replace("|", "\\|") + " | " + " | ".join(outcome for outcome, _ in row) + " |")
        for column, (outcome, message) in zip(columns, row):
            if outcome != "passed":
                reasons.setdefault(reason(name, outcome, message), {}).setdefault(name, []).append(column)
    lines += ["", "## What did not pass, and why", ""]
    for text, tests in reasons.items():
        lines.append("* " + re.sub(r"/var/tmp/headrace[^/]*", "<work>", text) + ": " + "; ".join(
            f"{name} ({', '.join(where)})" for name, where in tests.items()))
    return "\n".join(lines) + "\n"


def body(box):
    options = parse_arguments()
    need_program(DEPS / "conformance/bin/critest", "the CRI suite")
    cni = network(box)
    Registry(box)
    images = push_cri_images(box)
    say(f"{len(images)} images on {REGISTRY}")
    hosts = box.path("certs.d")
    (hosts / "_default").mkdir()
    (hosts / "_default/hosts.toml").write_text(f"[host.\"http://{REGISTRY}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
    with nothing_left():
        columns = {column: run_column(box, column, options, hosts, cni) for column in options.columns.split(",")}
    text = table(columns, options)
    if options.write:
        RESULTS.write_text(text)
    else:
        print(text)
    check(all(columns.values()), "no test ran")
    if set(columns) != set(COLUMNS):
        return
    worse = [name for name, (outcome, _) in columns["overlayfs"].items() if outcome == "passed" and not as_good(columns["headrace"].get(name))]
    check(any(outcome == "passed" for outcome, _ in columns["overlayfs"].values()), "nothing passes with overlayfs: the machine is not fit for this")
    check(not worse, "passes with overlayfs and not with Headrace: " + "; ".join(f"{name}: {columns['headrace'].get(name)}" for name in worse))
    say("no test that passes with overlayfs fails with Headrace")


main(body)
