"""The parts of integration/packages: a root file system as a node, with a stand-in for systemd."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

from parts import REGISTRY, Containerd, Pod, Registry, _may_lower_oom_score, check_sums, headrace_build, make_model, program_directory, reader_reports
from sandbox import DEPS, Daemon, Failed, Skip, answers, check, run, say
from supervisor import Supervisor

PAUSE, READER, MODEL, COLD = f"{REGISTRY}/pause:1", f"{REGISTRY}/reader:1", f"{REGISTRY}/model:1", f"{REGISTRY}/cold:1"
CONTAINERD = "containerd.service"
UNITS = ("headrace-fused.service", "headrace-snapshotter.socket", "headrace-snapshotter.service")

# systemctl of the node: what concerns files is done by the real one, which knows that it is in a chroot; the rest is asked of the driver.
SYSTEMCTL = r"""#!/bin/bash
for word; do
  case $word in
    -*) ;;
    enable | disable | reenable | preset | mask | unmask | is-enabled) exec /usr/bin/systemctl.real "$@" ;;
    *) break ;;
  esac
done
mkdir -p /run/driver
printf '%s\n' "$@" >/run/driver/$$.new
mv /run/driver/$$.new /run/driver/$$.ask
for ((i = 0; i < 6000; i++)); do
  if [[ -e /run/driver/$$.answer ]]; then
    read -r code </run/driver/$$.answer
    rm -f /run/driver/$$.answer
    exit "$code"
  fi
  sleep 0.02
done
exit 99
"""


class Root:
    """A root file system on which a node is made. Attributes: box, root."""

    def __init__(self, box, suite):
        tar = DEPS / f"package-roots/{suite}.tar"
        if not tar.exists():
            raise Skip(f"no root file system of {suite} ({tar}); integration/setup --packages makes it")
        self.box, self.root = box, box.path("node")
        run(["tar", "-C", self.root, "--numeric-owner", "--xattrs", "-xf", tar])
        run(["mount", "--bind", self.root, self.root])
        # Logs, sockets of notifications: at the same place inside.
        inside = self.root / str(box.directory).lstrip("/")
        inside.mkdir(parents=True)
        for folder in ("logs", "pods", "notify"):
            (inside / folder).mkdir()
            run(["mount", "--bind", box.path(folder), inside / folder])
        # What an installed machine has and debootstrap does not make.
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (self.root / "etc/resolv.conf").write_text("")

    def enter(self):
        """The words before a command that is to run inside."""
        return ["chroot", str(self.root)]

    def mounts(self):
        return Path("/proc/self/mountinfo").read_text().splitlines()

    def run(self, *argv, code=0, timeout=300):
        """A command in the node; its output, both streams. code: what it must end with; None: anything."""
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
        done = subprocess.run([*self.enter(), *map(str, argv)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=env, text=True, errors="replace", timeout=timeout, check=False)
        check(code in (None, done.returncode), f"{' '.join(map(str, argv))}: exit code {done.returncode} instead of {code}\n{done.stdout[-3000:]}")
        return done.stdout

    # -- what is left

    def files(self):
        """Everything that a package may leave: path -> what it is. Not what containerd, dpkg and logs keep by themselves."""
        beside = ("var/lib/containerd", "etc/cni", "var/lib/dpkg", "var/log", "var/cache", "run", "proc", "sys", "dev", "tmp", "var/tmp", "usr/bin/systemctl",
                  "var/lib/systemd")
        found = {}
        for folder, folders, names in os.walk(self.root):
            here = os.path.relpath(folder, self.root)
            folders[:] = [name for name in folders if os.path.normpath(f"{here}/{name}") not in beside]
            for name in names:
                path = os.path.normpath(f"{here}/{name}")
                status = os.lstat(os.path.join(folder, name))
                found[path] = (status.st_mode, status.st_size if not path.startswith("etc/ld.so.cache") else 0)
            found[here + "/"] = ()
        return found


class Node(Root):
    """One with processes in it and a stand-in for systemd. As parts.Headrace for Containerd."""

    plugin = "headrace"

    def __init__(self, box, suite):
        super().__init__(box, suite)
        for folder in ("proc", "sys", "dev"):
            run(["mount", "--rbind", f"/{folder}", self.root / folder])
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "node-run", self.root / "run"])
        (self.root / "run/systemd/system").mkdir(parents=True)
        self.services, self.sockets, self.asked = {}, {}, []
        self.before_restart = None  # called once, right before the file system's daemon is restarted
        self.containerd = None
        systemctl = self.root / "usr/bin/systemctl"
        systemctl.rename(self.root / "usr/bin/systemctl.real")
        systemctl.write_text(SYSTEMCTL)
        systemctl.chmod(0o755)
        threading.Thread(target=self._answer, daemon=True).start()

    # -- the stand-in for systemd

    def _unit(self, name, key):
        for line in (self.root / "usr/lib/systemd/system" / name).read_text().splitlines():
            if line.startswith(key + "="):
                return line.split("=", 1)[1]
        return None

    def _start(self, name):
        if name.endswith(".socket"):
            if name not in self.sockets:
                path = self._unit(name, "ListenStream")
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                real = self.root / path.lstrip("/")
                real.parent.mkdir(parents=True, exist_ok=True)
                real.unlink(missing_ok=True)  # as systemd does with a name that an earlier socket left
                # The name of the socket is what the node's processes see: bound from inside, by a child that shares it.
                child = os.fork()
                if child == 0:
                    os.chroot(self.root)
                    listener.bind(path)
                    os._exit(0)
                check(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, f"{path} was not bound")
                os.chmod(real, 0o600)
                listener.listen(64)
                self.sockets[name] = listener
            return
        if name in self.services:
            return
        listen = {}
        socket_name = name.replace(".service", ".socket")
        if socket_name in self.sockets:
            listen["snapshotter"] = os.dup2(self.sockets[socket_name].fileno(), 100, inheritable=False)
        service = Supervisor(self.box, name, ["chroot", self.root, *shlex.split(self._unit(name, "ExecStart"))],
                             keeps=self._unit(name, "FileDescriptorStoreMax") is not None, listen=listen, notify=self.box.path("notify"))
        self.services[name] = service
        service.wait_ready(60)

    def _containerd(self, verb):
        if verb in ("stop", "restart") and self.containerd:
            self.containerd.halt()
        if verb in ("start", "restart"):
            if self.containerd is None:
                self.containerd = InstalledContainerd(self)
            elif not self.containerd.running():
                self.containerd.start()

    def _active(self, name):
        if name == CONTAINERD:
            return self.containerd is not None and self.containerd.running()
        return name in self.services or name in self.sockets

    def _stop(self, name):
        if name in self.services:
            service = self.services.pop(name)
            service.stop()
            for descriptor in service.stored.values():
                os.close(descriptor)
        if name in self.sockets:
            self.sockets.pop(name).close()

    def command(self, *words):
        check(self._do(words) == 0, f"systemctl {' '.join(words)} failed")

    def _do(self, words):
        verb, names = None, []
        for word in words:
            if word.startswith("-"):
                continue
            if verb is None:
                verb = word
            else:
                names.append(word)
        self.asked.append((verb, *names))
        if verb == "is-active":
            return 0 if all(self._active(name) for name in names) else 3
        for name in names:
            if name == CONTAINERD:
                self._containerd(verb)
            elif verb == "start":
                self._start(name)
            elif verb == "stop":
                self._stop(name)
            elif verb == "restart":
                if self.before_restart and name == "headrace-fused.service":
                    self.before_restart()
                    self.before_restart = None
                if name in self.services:
                    self.services[name].restart()
                else:
                    self._start(name)
        return 0

    def _answer(self):
        directory = self.root / "run/driver"
        while True:
            for ask in directory.glob("*.ask") if directory.exists() else []:
                words = ask.read_text().splitlines()
                ask.unlink()
                try:
                    code = self._do(words)
                except (Failed, OSError) as error:
                    print(f"systemctl {' '.join(words)}: {error}", flush=True)
                    code = 1
                fresh = ask.with_suffix(".part")
                fresh.write_text(f"{code}\n")
                fresh.rename(ask.with_suffix(".answer"))
            time.sleep(0.02)


class NodeContainerd(Containerd):
    """The node's containerd with the configuration that is there. Whoever starts it sets `daemon`."""

    def __init__(self, node):  # pylint: disable=super-init-not-called
        self.box, self.version, self.snapshotter = node.box, "2", "headrace"
        self.hosts = self.image_socket = self.cni = self.nri = None
        self.bin = DEPS / "containerd-2/usr/bin"
        self.socket = node.root / "run/containerd/containerd.sock"
        self.node = node

    def await_ready(self):
        self.cri("ready", "--timeout", "60", timeout=90)


class InstalledContainerd(NodeContainerd):
    """One that the stand-in for systemd starts."""

    def __init__(self, node):
        super().__init__(node)
        self.starts = 0
        self.start()

    def start(self):
        program = "/usr/local/bin/containerd" if (self.node.root / "usr/local/bin/containerd").exists() else "/usr/bin/containerd"
        self.daemon = Daemon(self.box, "containerd", ["chroot", self.node.root, program], {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
        self.daemon.wait_until(lambda: answers(self.socket), "its socket")
        self.await_ready()
        self.starts += 1

    def halt(self):
        """As systemd stops it: containers go on."""
        self.daemon.stop()

    def running(self):
        return self.daemon.process.poll() is None


def prepare_images(box):
    directory, sums, _ = make_model(box, 0.125, 0.04)
    cold_directory, cold_sums, _ = make_model(box, 0.5, 0.12, seed=2, name="cold")
    registry = Registry(box)
    programs = program_directory(box)
    headrace_build(programs, PAUSE, "--path-prefix", "/", "--entrypoint", "/pause")
    headrace_build(programs, READER, "--path-prefix", "/", "--entrypoint", "/model-reader")
    headrace_build(directory, MODEL, "--path-prefix", "/models")
    headrace_build(cold_directory, COLD, "--path-prefix", "/models")
    return registry, sums, cold_sums


def containerd_of(node, suite):
    """containerd 2.x: the suite's own in sid; older suites get it below /usr/local, as clusters that do not use the distribution's. And its file, as an administrator has it."""
    version = node.run("containerd", "--version")
    say(f"{suite} has {version.strip()}")
    if " 2." not in version and "/v2 " not in version:
        target = node.root / "usr/local/bin"
        for program in (DEPS / "containerd-2/usr/bin").iterdir():
            shutil.copy2(program, target / program.name)
        say(f"given {node.run('containerd', '--version').strip()}")
    config = node.root / "etc/containerd/config.toml"
    text = config.read_text() if config.exists() else "version = 2\n"
    restrict = "false" if _may_lower_oom_score() else "true"
    section = '[plugins."io.containerd.grpc.v1.cri"]\n'
    check(section in text, f"the package's file has no CRI section: {text}")
    config.write_text(text.replace(section, f'{section}    sandbox_image = "{REGISTRY}/pause:1"\n    restrict_oom_score_adj = {restrict}\n', 1))
    return config


def given(name):
    """The two packages of a kind that integration/packages made: first and second version."""
    return list(map(Path, os.environ[name].split(":")))


def reader_pod(containerd, name, image, *arguments):
    """A pod that reads an image volume (arguments: of model-reader; default: all of it, once)."""
    return Pod(containerd, name, [{"name": "reader", "image": READER, "args": list(arguments or ["/model"]), "mounts": [{"container_path": "/model", "image": image}]}])


def check_reading(pod, sums, what):
    """The pod read all of it, rightly; and goes."""
    check_sums(reader_reports(pod.wait("reader", 120))[0], sums, what)
    pod.remove()


def read_all_along(containerd):
    """A pod that reads the model again and again until its container is stopped; returns it."""
    containerd.cri("pull", MODEL)
    containerd.cri("pull", READER)
    return reader_pod(containerd, "load", MODEL, "/model/models", "--repeat", "1000000")


def wait_reports(pod, count, timeout=120):
    give_up = time.monotonic() + timeout
    while len(reader_reports(pod.output("reader"))) < count:
        check(time.monotonic() < give_up, f"fewer than {count} readings after {timeout} s: {pod.output('reader')[-1000:]}")
        time.sleep(0.05)


def upgraded(node, containerd, deb, pod, sums, cold_sums):
    """The package is upgraded while a pod reads what is there, and another one begins to read what is not."""
    containerd.cri("pull", COLD)
    cold = []
    node.before_restart = lambda: cold.append(reader_pod(containerd, "cold", COLD))
    before = {name: service.process.pid for name, service in node.services.items()}
    done = len(reader_reports(pod.output("reader")))
    node.run("dpkg", "-i", deb)
    wait_reports(pod, done + 5)
    for name, service in node.services.items():
        check(service.process.pid != before[name], f"{name} was not restarted")
        check(service.deaths == 0, f"{name} died {service.deaths} times")
        exe = os.readlink(f"/proc/{service.process.pid}/exe")
        check("deleted" not in exe, f"{name} is still {exe}")
    reports = reader_reports(pod.output("reader"))
    for report in reports:
        check_sums(report, sums, "during the upgrade")
    check(len(cold) == 1, "the daemon was not restarted by the package")
    check_reading(cold[0], cold_sums, "what was fetched during the upgrade")
    log = node.services["headrace-fused.service"].log.read_text()
    check("went on with a predecessor's session" in log, "the session was not taken over")
    say(f"upgraded while pods read: {len(reports)} readings of one model, the first of another, all right")


def doctor(node, *arguments, code=0):
    return json.loads(node.run("headrace", "doctor", "--json", *arguments, code=code))


def check_doctor(node):
    """No errors on a node that works; what it warns of belongs to the machine (its kernel, its disk). And three mistakes, made for real."""
    report = doctor(node, MODEL)
    check(report["errors"] == 0 and report["checks"] > 30, f"doctor: {report}")
    say(f"doctor: {report['checks']} checks, warnings {[one['id'] for one in report['findings']]}")

    def errors(*arguments):
        return {one["id"] for one in doctor(node, *arguments, code=1)["findings"] if one["severity"] == "error"}
    found = errors(f"{REGISTRY}/nothing:1")
    check(found == {"registry"}, f"doctor of an image that is not there: {found}")
    node.command("stop", "headrace-snapshotter.service")
    found = errors()
    check(found == {"headrace-snapshotter-down"}, f"doctor without a snapshotter: {found}")
    node.command("start", "headrace-snapshotter.service")
    drop_in = node.root / "etc/containerd/conf.d/headrace.toml"
    text = drop_in.read_text()
    drop_in.write_text(text.replace("/run/headrace/snapshotter.sock", "/run/other.sock"))
    found = errors()
    check(found == {"proxy-plugin-address"}, f"doctor of a wrong address: {found}")
    drop_in.write_text(text)


def removed(node, before, config, config_text):
    """Refused while it is configured, then clean: no file that was not there before, no mount, no process."""
    said = node.run("dpkg", "--purge", "headrace", code=1)
    check("containerd is configured to use it" in said, said)
    node.run("headrace", "uninstall")
    check(config.read_text() == config_text, "containerd's configuration is not what it was")
    check(not (node.root / "etc/containerd/conf.d").exists(), "conf.d is left")
    node.run("dpkg", "--purge", "headrace")
    after = node.files()
    left = sorted(path for path in after if path not in before and not path.startswith(str(node.box.directory).lstrip("/")))
    gone = sorted(path for path in before if path not in after)
    changed = sorted(path for path in before if path in after and before[path] != after[path])
    check(not left and not gone and not changed, f"left over: {left[:20]}, gone: {gone[:20]}, changed: {changed[:20]}")
    check(not (node.root / "run/headrace").exists(), "/run/headrace is left")
    mounts = [line for line in node.mounts() if "headrace/fs" in line or "fuse.headrace" in line]
    check(not mounts, f"still mounted: {mounts}")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
        except OSError:
            continue
        check(not name.startswith(("headrace-fused", "headrace-snapsh")), f"process {process.name} {name} is left")
    say("removed: nothing is left")


def body(box):
    suite = os.environ["HEADRACE_SUITE"]
    first, second = given("HEADRACE_DEBS")
    _, sums, cold_sums = prepare_images(box)
    node = Node(box, suite)
    config = containerd_of(node, suite)
    config_text = config.read_text()
    before = node.files()
    for deb in (first, second):
        shutil.copy2(deb, node.root / "tmp")
    node.run("dpkg", "-i", f"/tmp/{first.name}")
    check(set(node.services) == {"headrace-fused.service", "headrace-snapshotter.service"} and len(node.sockets) == 1, f"not started: {node.asked}")
    for unit in UNITS:
        check(node.run("systemctl", "is-enabled", unit).strip() == "enabled", f"{unit} is not enabled")
    said = node.run("/usr/bin/systemd-analyze", "verify", "--man=no", *UNITS, code=0) if suite == "bookworm" else ""
    check("headrace" not in said, said)
    say(f"installed {first.name}")
    shown = node.run("headrace", "install", "--dry-run")
    check("+++ /etc/containerd/conf.d/headrace.toml" in shown and config.read_text() == config_text, shown)
    node.run("headrace", "install")
    check_doctor(node)
    node.command("start", CONTAINERD)
    containerd = node.containerd
    pod = read_all_along(containerd)
    wait_reports(pod, 2)
    say("a pod reads through an image volume")
    said = node.run("dpkg", "--remove", "headrace", code=1)
    check("a pod uses it" in said and len(node.services) == 2, said)
    upgraded(node, containerd, f"/tmp/{second.name}", pod, sums, cold_sums)
    pod.remove()
    for image in (MODEL, COLD, READER):
        containerd.cri("remove-image", image)
    containerd.stop()
    for deb in (first, second):
        (node.root / "tmp" / deb.name).unlink()
    removed(node, before, config, config_text)
    check(not node.services and not node.sockets, f"still running: {list(node.services)} {list(node.sockets)}")
