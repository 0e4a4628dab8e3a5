"""The other two parts of integration/packages: a node that the DaemonSet's script makes (config/kubernetes/node-install), and one that is baked (systemd/images/bake-node)."""

import json
import os
import shutil
from pathlib import Path

from packages import (CONTAINERD, COLD, MODEL, PAUSE, READER, UNITS, Node, check_reading, containerd_of, given, prepare_images, read_all_along,
                      reader_pod, wait_reports)
from parts import Pod, check_sums, reader_reports
from sandbox import check, say

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"


def _put(node, directory, *files):
    target = node.root / directory.lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy2(file, target)


def _node(box):
    node = Node(box, SUITE)
    containerd_of(node, SUITE)
    return node


def node_install(box):
    """On a node with a pod of another snapshotter: installed, installed again, used, upgraded under a reader."""
    _, sums, cold_sums = prepare_images(box)
    tarballs = given("HEADRACE_TARBALLS")
    node = _node(box)
    node.command("start", CONTAINERD)
    containerd = node.containerd
    containerd.cri("pull", PAUSE)
    before = Pod(containerd, "before", [{"name": "pause", "image": PAUSE}])
    folder = "/var/lib/headrace-node/new"
    _put(node, folder, ROOT / "config/kubernetes/node-install", *tarballs)

    said = node.run(f"{folder}/node-install", f"{folder}/{tarballs[0].name}")
    check("is here now" in said and "+++ /etc/containerd/conf.d/headrace.toml" in said, said)
    check(containerd.starts == 2 and set(node.services) == {UNITS[0], UNITS[2]}, f"{containerd.starts} starts of containerd, services {list(node.services)}")
    for unit in UNITS:
        check(node.run("systemctl", "is-enabled", unit).strip() == "enabled", f"{unit} is not enabled")
    pids = {name: service.process.pid for name, service in node.services.items()}
    settings = node.root / "etc/headrace/headrace.toml"
    settings.write_text(settings.read_text() + "# mine\n")
    said = node.run(f"{folder}/node-install", f"{folder}/{tarballs[0].name}")
    check("is here already" in said and containerd.starts == 2, said)
    check(pids == {name: service.process.pid for name, service in node.services.items()}, "daemons were restarted for nothing")
    say("node-install: once, and once more, which changed nothing")

    containerd.cri("pull", PAUSE)  # its snapshots are the other snapshotter's
    pod = read_all_along(containerd)
    wait_reports(pod, 2)
    done = len(reader_reports(pod.output("reader")))
    said = node.run(f"{folder}/node-install", f"{folder}/{tarballs[1].name}")
    check("instead of" in said and containerd.starts == 2, said)
    check(settings.read_text().endswith("# mine\n"), "the node's settings were overwritten")
    check(not set(pids.values()) & {service.process.pid for service in node.services.values()}, "a daemon was not restarted")
    wait_reports(pod, done + 5)
    for report in reader_reports(pod.output("reader")):
        check_sums(report, sums, "during the upgrade")
    containerd.cri("pull", COLD)
    check_reading(reader_pod(containerd, "after", COLD), cold_sums, "after the upgrade")
    state = containerd.cri("state", before.result["containers"]["pause"])
    check(state["state"] == "running", f"the pod of before: {state}")
    say("node-install: upgraded under a reader; the pod of before goes on")
    for one in (pod, before):
        one.remove()
    containerd.stop()


def bake_node(box):
    """Baked with the registry there; then it is gone, and everything is started anew."""
    registry, sums, cold_sums = prepare_images(box)
    debs = given("HEADRACE_DEBS")
    node = _node(box)
    _put(node, "/tmp", ROOT / "systemd/images/bake-node", debs[0])
    said = node.run("/tmp/bake-node", "--package", f"/tmp/{debs[0].name}", PAUSE, READER, MODEL, COLD, timeout=600)
    check("bake-node: baked:" in said, said)
    check(not node.services and not node.containerd.running(), "something still runs")
    again = node.run("/tmp/bake-node", READER, MODEL, timeout=600)
    check("bake-node: baked:" in again, again)
    registry.daemon.stop()
    say("baked, twice; the registry is gone")

    node.command("start", *UNITS, CONTAINERD)
    containerd = node.containerd
    check_reading(reader_pod(containerd, "first boot", MODEL), sums, "first boot")
    check_reading(reader_pod(containerd, "its other model", COLD), cold_sums, "its other model")
    status = json.loads(node.run("headrace", "status", "--files", "--json"))
    check(all(layer["pinned"] for layer in status["layers"]), "a layer is not pinned")
    states = {file["state"] for layer in status["layers"] for file in layer["file"]}
    check(states == {"sealed"}, f"states of files: {states}")
    say(f"first boot without a registry: {sum(len(layer['file']) for layer in status['layers'])} files, all sealed and pinned")
    containerd.stop()
