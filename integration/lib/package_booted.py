"""The part of integration/packages with systemd itself: a root file system of Debian 12 is booted in namespaces of its own, and the units do there what they are for."""

import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

from nodes import wait_for
from packages import (CONTAINERD, COLD, MODEL, READER, UNITS, NodeContainerd, Root, check_reading, containerd_of, doctor, given, prepare_images,
                      read_all_along, reader_pod, removed, wait_reports)
from parts import check_sums, reader_reports
from sandbox import Daemon, check, run, say

SUITE = "bookworm"
FUSED, SOCKET, SNAPSHOTTER = UNITS

# Process 1 of the node: its own devices, control groups (below ours, in every hierarchy that there is) and process ids, then systemd. The network is the sandbox's.
BOOT = r"""
set -eu
cd "$1"
shift
mount -t proc proc proc
mount -t sysfs sysfs sys
if [ $# = 0 ]; then
  mount -t cgroup2 cgroup2 sys/fs/cgroup
else
  mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
  for one; do
    mkdir "sys/fs/cgroup/${one##*=}"
    case $one in
      unified) mount -t cgroup2 cgroup2 sys/fs/cgroup/unified ;;
      *=*) mount -t cgroup -o "none,$one" cgroup "sys/fs/cgroup/${one##*=}" ;;
      *) mount -t cgroup -o "$one" cgroup "sys/fs/cgroup/$one" ;;
    esac
  done
fi
mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
mknod -m 666 dev/null c 1 3; mknod -m 666 dev/zero c 1 5; mknod -m 666 dev/full c 1 7; mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9; mknod -m 666 dev/tty c 5 0; mknod -m 666 dev/fuse c 10 229
mount --make-rprivate /
mkdir -p mnt
pivot_root . mnt
umount -l /mnt
mount --make-rshared /
exec env -i container=headrace-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/lib/systemd/systemd --unit=multi-user.target --show-status=no
"""
# Joins the control groups of its first argument, then becomes the rest, BOOT, in namespaces of its own.
JOIN = 'for group in $1; do echo $$ >"$group/cgroup.procs"; done; shift; exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child bash -c "$@"'


def _hierarchies():
    """{name for BOOT: where it is}: version 1 and hybrid; {"": where} if there is version 2 alone."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found["unified"] = Path(target)
        elif kind == "cgroup":
            name = next((option for option in options.split(",") if option.startswith("name=")), Path(target).name)
            found[name] = Path(target)
    check(found, "no control groups are mounted here")
    return found if len(found) > 1 else {"": found.popitem()[1]}


def _make_groups(box, hierarchies):
    """The node's own group in each."""
    groups = []
    for name, where in hierarchies.items():
        ours = where / box.cgroup.lstrip("/")
        if name == "":  # what the node may set for its services
            for parent in (where, ours):
                parent.mkdir(exist_ok=True)
                (parent / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        group = ours / "node"
        group.mkdir(parents=True)
        if name == "cpuset":  # has nothing of its own at first, and lets nobody in
            for one in (ours, group):
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (one / setting).write_text((one.parent / setting).read_text())
        groups.append(group)
    return groups


class BootedNode(Root):
    """A node whose process 1 is systemd."""

    def __init__(self, box):
        super().__init__(box, SUITE)
        self.hierarchies = _hierarchies()
        self.groups = _make_groups(box, self.hierarchies)
        self.manager = self.pid = None
        self.boots = 0

    def boot(self):
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "node-run", self.root / "run"])
        self.boots += 1
        self.manager = Daemon(self.box, f"systemd-{self.boots}", ["bash", "-c", JOIN, "join", " ".join(map(str, self.groups)), BOOT, "boot", self.root,
                                                                  *filter(None, self.hierarchies)])
        children = Path(f"/proc/{self.manager.process.pid}/task/{self.manager.process.pid}/children")
        self.manager.wait_until(lambda: children.read_text().split() and (self.root / "run/systemd/private").exists(), "systemd")
        self.pid = children.read_text().split()[0]
        wait_for(lambda: self.run("systemctl", "is-system-running", code=None).strip() in ("running", "degraded"), "a booted node", timeout=60)
        failed = self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        check("headrace" not in failed and "containerd" not in failed, failed)

    def power_off(self):
        """As an administrator does it: every service is stopped in its order."""
        self.run("systemctl", "poweroff")
        ended = self.manager.process.wait(90)
        check(ended == -signal.SIGINT, f"systemd ended with {ended}")  # reboot(2) in a pid namespace: this is "power off"
        run(["umount", self.root / "run"])

    def enter(self):
        return ["nsenter", "--target", self.pid, "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root", "--wd=/", "--"] if self.pid else super().enter()

    def mounts(self):
        return Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()

    def show(self, unit, name):
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def main_pid(self, unit):
        return int(self.show(unit, "MainPID"))

    def journal(self, unit):
        return self.run("journalctl", "--unit", unit, "--output", "cat", "--no-pager")

    def wait_for_another(self, unit, old):
        wait_for(lambda: self.show(unit, "ActiveState") == "active" and self.main_pid(unit) not in (0, old), f"another process of {unit}", timeout=60)

    def kill(self, unit):
        """SIGKILL; another process is ready when it returns."""
        old = self.main_pid(unit)
        self.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", unit)
        self.wait_for_another(unit, old)


class BootedContainerd(NodeContainerd):
    """The one that systemd runs in there."""

    def __init__(self, node):
        super().__init__(node)
        self.daemon = SimpleNamespace(name="containerd")
        self.await_ready()


def _newer_containerd(node):
    drop_in = node.root / "etc/systemd/system/containerd.service.d/newer.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nExecStart=\nExecStart=/usr/local/bin/containerd\nEnvironment=PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n")


def _read_on(pod, sums, more=2):
    """`more` readings later, all of them right."""
    wait_reports(pod, len(reader_reports(pod.output("reader"))) + more)
    for report in reader_reports(pod.output("reader")):
        check_sums(report, sums, "a reading")


def _kills(node, pod, sums):
    """Each daemon by SIGKILL; the last time only systemd has the session."""
    for unit in (FUSED, SNAPSHOTTER, FUSED):
        node.kill(unit)
        _read_on(pod, sums)
    node.run("systemctl", "stop", SOCKET, SNAPSHOTTER)
    node.kill(FUSED)
    _read_on(pod, sums)
    node.run("systemctl", "start", SOCKET, SNAPSHOTTER)
    took_over = [line for line in node.journal(FUSED).splitlines() if "went on with a predecessor's session" in line]
    check(len(took_over) == 3 and "holder=service manager" in took_over[-1], f"sessions taken over: {took_over}")
    say("killed: headrace-fused three times, headrace-snapshotter once; the pod read on, the last time from what only systemd had kept")


def _by_command(node, pod, sums):
    """reload, restart, and stop with a start a moment later."""
    old = node.main_pid(FUSED)
    settings = node.root / "etc/headrace/headrace.toml"
    text = settings.read_text()
    changed = text.replace('#budget = "0"', 'budget = "20GiB"')
    check(changed != text, "the shipped headrace.toml shows no budget")
    settings.write_text(changed)
    node.run("systemctl", "reload", FUSED)
    wait_for(lambda: "reloaded setting=cache.budget" in node.journal(FUSED), "a reload in the journal", timeout=20)
    settings.write_text(text)
    check(node.main_pid(FUSED) == old, "a reload made another process")
    for unit in (FUSED, SNAPSHOTTER):
        old = node.main_pid(unit)
        node.run("systemctl", "restart", unit)
        node.wait_for_another(unit, old)
        _read_on(pod, sums)
    node.run("systemctl", "stop", FUSED)
    check(any("/run/headrace/fs" in line for line in node.mounts()), "stopping the unit unmounted what a pod uses")
    node.run("systemctl", "start", FUSED)
    _read_on(pod, sums)
    say("reloaded, restarted, stopped and started: the pod read on")


def _upgrade(node, pod, sums, cold_sums, deb):
    containerd = pod.containerd
    containerd.cri("pull", COLD)
    before = {unit: node.main_pid(unit) for unit in (FUSED, SNAPSHOTTER)}
    cold = reader_pod(containerd, "cold", COLD)
    node.run("dpkg", "-i", deb)
    for unit, old in before.items():
        node.wait_for_another(unit, old)
        check("deleted" not in node.run("readlink", f"/proc/{node.main_pid(unit)}/exe"), f"{unit} runs the old program")
    check_reading(cold, cold_sums, "what was fetched during the upgrade")
    _read_on(pod, sums)
    say(f"upgraded while pods read: {len(reader_reports(pod.output('reader')))} readings of one model, the first of another, all right")


def booted(box):
    _, sums, cold_sums = prepare_images(box)
    first, second = given("HEADRACE_DEBS")
    node = BootedNode(box)
    config = containerd_of(node, SUITE)
    config_text = config.read_text()
    _newer_containerd(node)
    node.boot()
    before = node.files()
    for deb in (first, second):
        shutil.copy2(deb, node.root / "tmp")
    say(f"{node.run('systemctl', '--version').splitlines()[0]} is process 1")
    node.run("dpkg", "-i", f"/tmp/{first.name}")
    for unit in UNITS:
        check(node.run("systemctl", "is-active", unit).strip() == "active" and node.run("systemctl", "is-enabled", unit).strip() == "enabled", f"{unit} is not there")
    check(int(node.show(FUSED, "NFileDescriptorStore")) == 2, "systemd keeps no session")
    node.run("headrace", "install")
    node.run("systemctl", "restart", CONTAINERD)
    containerd = BootedContainerd(node)
    report = doctor(node, MODEL)
    check(report["errors"] == 0, f"doctor: {report}")
    say(f"doctor: {report['checks']} checks, warnings {[one['id'] for one in report['findings']]}")
    pod = read_all_along(containerd)
    _read_on(pod, sums)
    say("installed; a pod reads through an image volume")
    _kills(node, pod, sums)
    _by_command(node, pod, sums)
    _upgrade(node, pod, sums, cold_sums, f"/tmp/{second.name}")

    began = time.monotonic()
    node.power_off()  # with a pod that reads
    down = time.monotonic() - began
    node.boot()
    containerd = BootedContainerd(node)
    check_reading(reader_pod(containerd, "again", MODEL), sums, "after the reboot")
    for one in containerd.cri("pods"):
        containerd.cri("remove-pod", one["id"])
    say(f"shut down under a reader in {down:.1f} s and booted again: the model is there without a pull")

    for image in (MODEL, COLD, READER):
        containerd.cri("remove-image", image)
    node.run("systemctl", "stop", CONTAINERD)
    removed(node, before, config, config_text)
    node.run("systemctl", "start", CONTAINERD)  # with the configuration that it had
    left = node.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "headrace*")
    check(not left.strip(), left)
    node.power_off()
