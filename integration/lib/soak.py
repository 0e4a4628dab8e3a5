"""The parts of integration/soak."""

import collections
import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from faults import KINDS, FaultServer
from nodes import metrics
from oci import sha256_file
from parts import REGISTRY, Containerd, Pod, Registry, check_sums, headrace_build, program_directory, reader_reports
from sandbox import BUILD, Daemon, Failed, check, need_program, run, say
from supervisor import Supervisor

HOST = "127.0.0.1:7001"
READER = f"{REGISTRY}/reader:1"
PATTERNS = ("P2", "P2f", "P3", "P3s", "P4", "P5", "P6", "P7", "P8", "P9", "P10")
CONFIG = ("[registry]\nstall_timeout = '2s'\nconnect_timeout = '2s'\n[stream]\nfill_rate = '4MiB'\n")
# Seconds between two kills, on average. 30 minutes: 240 of the daemon, 60 of the snapshotter, 15 of containerd.
DAEMON_EVERY, SNAPSHOTTER_EVERY, CONTAINERD_EVERY, FAULT_EVERY = 7.5, 30, 120, 3
PAUSE_MAX = 2.0
PULSE = 0.02
WORKERS = 2

# A loader with its weight file mapped: faults on pages that it gave back, again and again, and compares. SIGBUS would end it.
MAPPED = """
import mmap, os, random, sys
path, truth, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
draw = random.Random(seed)
fd = os.open(path, os.O_RDONLY)
size = os.fstat(fd).st_size
pages = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
good = open(truth, "rb").read()
os.set_blocking(0, False)
count = 0
while True:
    try:
        if os.read(0, 1) == b"":
            break
    except BlockingIOError:
        pass
    pages.madvise(mmap.MADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for _ in range(40):
        at = draw.randrange(size - 4096)
        if pages[at:at + 4096] != good[at:at + 4096]:
            print("wrong bytes at", at, flush=True)
            sys.exit(3)
        count += 1
print(count, flush=True)
"""


class Node:
    """Headrace under a service manager. As parts.Headrace for Containerd."""

    plugin = "headrace"

    def __init__(self, box):
        self.root = box.path("headrace")
        self.socket, self.control = self.root / "snapshotter.sock", self.root / "control.sock"
        self.mount_point = Path("/run/headrace")
        self.mount_point.mkdir(parents=True, exist_ok=True)
        config = self.root / "headrace.toml"
        config.write_text(CONFIG)
        self.fused = Supervisor(box, "headrace-fused", [
            need_program(BUILD / "bin/headrace-fused", "headrace-fused"), "--config", config, "--root", self.root / "fused",
            "--mountpoint", self.mount_point, "--control-socket", self.control])
        self.fused.wait_ready()
        # As headrace-snapshotter.socket: calls wait for the next process.
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket))
        self.listener.listen(64)
        self.snapshotter = Supervisor(box, "headrace-snapshotter", [
            need_program(BUILD / "bin/headrace-snapshotter", "headrace-snapshotter"), "--config", config, "--root", self.root / "snapshotter",
            "--socket", self.socket, "--control-socket", self.control],
            keeps=False, listen={"snapshotter": fcntl.fcntl(self.listener, fcntl.F_DUPFD_CLOEXEC, 10)})
        self.snapshotter.wait_ready()

    def threads(self):
        """Names of our own threads in the daemon, counted; gRPC's come and go."""
        names = (path.read_text().strip() for path in Path(f"/proc/{self.fused.process.pid}/task").glob("*/comm"))
        ours = ("fuse-", "decode-", "registry-net", "timer", "cache-seal", "attach", "learn", "redecode", "session-holder")
        return collections.Counter(name for name in names if name.startswith(ours))

    def descriptors(self):
        """What the daemon has open, but for sockets and anonymous ones of gRPC."""
        found = collections.Counter()
        for link in Path(f"/proc/{self.fused.process.pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if not target.startswith(("socket:", "anon_inode:", "pipe:")):
                found[target] += 1
        return found


class Soak:
    def __init__(self, box, minutes, seed):
        self.box, self.seconds = box, minutes * 60
        self.seed = seed if seed is not None else random.SystemRandom().randrange(1 << 32)
        self.stopping = threading.Event()
        self.failure = None
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.kill_times, self.pulses = [], []
        self.notes = open(box.logs / "soak.log", "a", encoding="utf-8")

    # -- what goes wrong

    def note(self, text):
        with self.lock:
            print(f"{time.monotonic():.3f} {text}", file=self.notes, flush=True)

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] += n

    def guard(self, work, *arguments):
        """A thread of the soak: its first failure ends everything."""
        def guarded():
            try:
                work(*arguments)
            except BaseException as error:  # pylint: disable=broad-except
                with self.lock:
                    self.failure = self.failure or f"{work.__name__}: {error}"
                self.stopping.set()
        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def killer(self, every, offset, kill):
        draw = random.Random(self.seed + offset)
        while not self.stopping.wait(draw.uniform(0.3, 1.7) * every):
            kill()

    def kill_fused(self):
        self.kill_times.append(self.node.fused.kill())
        self.node.fused.wait_ready(60)

    def kill_snapshotter(self):
        self.node.snapshotter.kill()
        self.node.snapshotter.wait_ready(60)

    def kill_containerd(self):
        process = self.containerd.daemon.process
        process.kill()
        process.wait()
        self.count("containerd killed")
        self.containerd.daemon = Daemon(self.box, "ctrd", process.args, {"PATH": f"{self.containerd.bin}:{os.environ['PATH']}"})
        self.retry("containerd back", lambda: self.containerd.cri("ready", "--timeout", "30", timeout=60))

    def misbehave(self):
        draw = random.Random(self.seed + 3)
        while not self.stopping.wait(draw.uniform(0.3, 1.7) * FAULT_EVERY):
            live = list(self.server.repositories.values())
            if not live:
                continue
            repository, kind = draw.choice(live), draw.choice(KINDS)
            repository.start(kind)
            self.stopping.wait(draw.uniform(0.1, 3))
            repository.heal()
            self.count("faults of the registry")

    # -- who must not notice

    def retry(self, what, work, timeout=120):
        """As the kubelet does: a call that failed because a process was just killed is made again."""
        give_up = time.monotonic() + timeout
        while True:
            try:
                return work()
            except Failed as error:
                if time.monotonic() > give_up:
                    raise Failed(f"{what} did not succeed within {timeout} s: {error}") from error
                self.count("calls to containerd made again")
                self.note(f"{what}: {str(error)[-600:]}")
                time.sleep(0.3)

    def make_image(self, name, sizes, seed):
        """(directory with the truth, {file: sha256}, reference). Served by the registry that misbehaves."""
        work = self.box.path(f"images/{name}")
        draw = random.Random(seed)
        (work / "truth").mkdir()
        for number, size in enumerate(sizes):
            (work / "truth" / f"model-{number + 1:05}-of-{len(sizes):05}.safetensors").write_bytes(draw.randbytes(size))
        sums = {path.name: sha256_file(path) for path in (work / "truth").iterdir()}
        headrace_build(work / "truth", f"oci:{work / 'layout'}:1", "--path-prefix", "/", "--chunk-size", "256KiB", "-q")
        self.server.add(name, work / "layout")
        return work / "truth", sums, f"{HOST}/{name}:1"

    def run_pod(self, name, image, containers):
        attempt = 0

        def once():
            nonlocal attempt
            attempt += 1
            try:
                return Pod(self.containerd, f"{name}-{attempt}", containers)
            except Failed as error:
                for pod in self.containerd.cri("pods"):
                    if pod.get("name") == f"{name}-{attempt}":
                        self.containerd.cri("remove-pod", pod["id"])
                # A containerd that starts asks the snapshotter about each image, and forgets those where that call was cut off. The kubelet pulls what is not there.
                if "failed to resolve image" in str(error):
                    self.count("images that containerd forgot")
                    self.containerd.cri("pull", READER, timeout=120)
                raise
        self.retry(f"pull of {image}", lambda: self.containerd.cri("pull", image, timeout=120))
        return self.retry(f"pod {name}", once)

    def volume_of(self, container_id):
        """The image volume as a container sees it."""
        for line in self.containerd.ctr("-n", "k8s.io", "task", "ls").splitlines():
            fields = line.split()
            if fields and fields[0] == container_id:
                return Path(f"/proc/{fields[1]}/root/model")
        raise Failed(f"container {container_id} has no task")

    def work(self, number):
        """Pods come and go."""
        draw = random.Random(self.seed * 8 + number)
        replay = need_program(BUILD / "bin/bench-replay", "bench-replay")
        turn = 0
        while not self.stopping.is_set():
            turn += 1
            name = f"w{number}-{turn}"
            truth, sums, ref = self.make_image(name, [draw.randrange(5 << 20, 16 << 20) for _ in range(draw.randrange(1, 4))], draw.random())
            expect = truth.parent / "expect.json"
            expect.write_text(run([replay, "--pattern", "P4", "--dir", truth]))
            mount = [{"container_path": "/model", "image": ref}]
            how = draw.choice([[], ["--mmap"]])
            restarts = self.counts["containerd killed"]
            pod = self.run_pod(name, ref, [
                {"name": "reads", "image": READER, "args": ["/model", *how], "mounts": mount},
                {"name": "holds", "image": READER, "args": ["/model", "--sleep"], "mounts": mount}])
            volume = self.retry("task list", lambda: self.volume_of(pod.result["containers"]["holds"]))
            for pattern in draw.sample(PATTERNS, 3):
                extra = ["--processes", "2"] if pattern == "P9" else []
                run([replay, "--pattern", pattern, "--dir", volume, "--expect", expect, *extra], timeout=300)
                self.count(f"replays {pattern}")
            if self.retry("wait", lambda: self.finished(pod, restarts)):
                check_sums(reader_reports(pod.output("reads"))[0], sums, f"{name}, container reads")
            self.retry("remove pod", pod.remove)
            self.retry("remove image", lambda: self.containerd.cri("remove-image", ref))
            self.count("pods")
            self.count("bytes", sum(path.stat().st_size for path in truth.iterdir()) * 5)
            self.server.repositories.pop(name)
            shutil.rmtree(truth.parent)

    def finished(self, pod, restarts):
        """Waits for the container; that it ended with an error is a failed read, not a call to be made again. False: containerd was killed and lost the container's
        exit code (255 then; a reader that fails ends with 1 or a signal) or its last output, as it does with one that ends meanwhile."""
        state = self.containerd.cri("wait", pod.result["containers"]["reads"], "--timeout", "200", timeout=260)
        killed = self.counts["containerd killed"] != restarts
        if killed and (state["exit_code"] == 255 or (state["exit_code"] == 0 and not pod.output("reads").strip())):
            self.count("containers that containerd lost")
            return False
        if state["exit_code"] != 0:
            raise AssertionError(f"a reader in a pod failed: exit code {state['exit_code']}: {pod.output('reads')[-1000:]}")
        return True

    def pulse(self, volume, truth):
        """Small requests that the daemon must answer, all the time: their longest is the pause that a kill makes."""
        draw = random.Random(self.seed + 4)
        good = {path.name: path.read_bytes() for path in truth.iterdir()}
        while not self.stopping.wait(PULSE):
            name = draw.choice(sorted(good))
            at = draw.randrange(len(good[name]) - 4096)
            begin = time.monotonic()
            fd = os.open(volume / name, os.O_RDONLY)
            try:
                got = os.pread(fd, 4096, at)
            finally:
                os.close(fd)
            check(got == good[name][at:at + 4096], f"wrong bytes: {name} at {at}")
            check(not (volume / f"absent-{draw.random()}").exists(), "a name that is not there")
            self.pulses.append((begin, time.monotonic()))

    def mapped(self, volume, truth):
        name = sorted(path.name for path in truth.iterdir())[0]
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", MAPPED, volume / name, truth / name, str(self.seed)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not self.stopping.wait(0.2):
            if process.poll() is not None:
                raise AssertionError(f"the loader with the mapped file ended with {process.returncode}: {process.stdout.read()}")
        out, _ = process.communicate(timeout=60)
        check(process.returncode == 0, f"the loader with the mapped file ended with {process.returncode}: {out}")
        self.count("mapped pages compared", int(out.split()[-1]))

    # -- the whole

    def run(self):
        say(f"seed {self.seed}, {self.seconds:.0f} s")
        self.server = FaultServer(HOST)
        Registry(self.box)
        programs = program_directory(self.box)
        headrace_build(programs, f"{REGISTRY}/pause:1", "--path-prefix", "/", "--entrypoint", "/pause")
        headrace_build(programs, READER, "--path-prefix", "/", "--entrypoint", "/model-reader")
        self.node = Node(self.box)
        idle_threads, idle_descriptors = self.node.threads(), self.node.descriptors()
        self.containerd = Containerd(self.box, "ctrd", headrace=self.node)
        self.containerd.cri("pull", READER)
        truth, _, ref = self.make_image("steady", [24 << 20, 8 << 20], self.seed)
        pod = self.run_pod("steady", ref, [{"name": "holds", "image": READER, "args": ["/model", "--wait-for", "/never", "--timeout", "100000"],
                                            "mounts": [{"container_path": "/model", "image": ref}]}])
        volume = self.volume_of(pod.result["containers"]["holds"])
        readers = [self.guard(self.mapped, volume, truth), self.guard(self.pulse, volume, truth)]
        workers = [self.guard(self.work, number) for number in range(WORKERS)]
        chaos = [self.guard(self.killer, DAEMON_EVERY, 0, self.kill_fused), self.guard(self.killer, SNAPSHOTTER_EVERY, 1, self.kill_snapshotter),
                 self.guard(self.killer, CONTAINERD_EVERY, 2, self.kill_containerd), self.guard(self.misbehave)]
        self.watch()
        self.stopping.set()
        for thread in chaos + workers + readers:
            thread.join(400)
            check(not thread.is_alive(), "something hangs")
        if self.failure:
            raise Failed(f"seed {self.seed}: {self.failure}\n{self.node.fused.tail()}\n{self.node.snapshotter.tail()}")
        figures = self.figures()
        self.retry("remove pod", pod.remove)
        self.leftovers(idle_threads, idle_descriptors)
        return figures

    def watch(self):
        begin = time.monotonic()
        while not self.stopping.wait(max(0.0, min(30.0, begin + self.seconds - time.monotonic()))):
            say(f"{self.node.fused.kills} kills of the daemon, {self.node.snapshotter.kills} of the snapshotter, {self.counts['containerd killed']} of containerd; "
                f"{self.counts['pods']} pods, {len(self.pulses)} pulses, {self.counts['faults of the registry']} faults")
            if time.monotonic() - begin >= self.seconds:
                return

    def figures(self):
        pauses = sorted(max((end - max(begin, kill) for begin, end in self.pulses if end > kill and begin < kill + 5), default=0.0) for kill in self.kill_times)
        check(pauses, "the daemon was never killed")
        figures = {
            "seed": self.seed, "seconds": self.seconds, "daemon_kills": self.node.fused.kills, "snapshotter_kills": self.node.snapshotter.kills,
            "daemon_deaths_unordered": self.node.fused.deaths, "snapshotter_deaths_unordered": self.node.snapshotter.deaths,
            "pulses": len(self.pulses), "pause_p50_s": round(pauses[len(pauses) // 2], 3),
            "pause_p99_s": round(pauses[min(len(pauses) - 1, int(len(pauses) * 0.99))], 3), "pause_max_s": round(pauses[-1], 3), **self.counts}
        for name, value in figures.items():
            say(f"  {name}: {value}")
        check(self.node.fused.deaths == 0 and self.node.snapshotter.deaths == 0, "a process of ours ended by itself")
        # One in a hundred, and one of the two dozen of a short run: a machine with two processors may have none free for a moment.
        long = sum(pause > PAUSE_MAX for pause in pauses)
        check(long <= max(1, len(pauses) // 100), f"{long} of {len(pauses)} pauses of a reader were longer than {PAUSE_MAX} s: {pauses[-long:]}")
        check(self.counts["pods"] > 0 and len(self.pulses) > 0, "nothing was read")
        return figures

    def leftovers(self, idle_threads, idle_descriptors):
        """All is taken away again; then nothing may be left."""
        for image in (f"{HOST}/steady:1", READER, f"{REGISTRY}/pause:1"):
            self.retry("remove image", lambda image=image: self.containerd.cri("remove-image", image))
        for pod in self.containerd.cri("pods"):
            self.containerd.cri("remove-pod", pod["id"])
        self.drop_leases()
        self.until("snapshots", lambda: not self.snapshots(), lambda: [self.snapshots(), self.containerd.ctr("-n", "k8s.io", "containers", "ls")])
        gauges = ("open_files", "mounts", "layers", "reads_waiting", "ranges_active", "ranges_queued", "inflight_bytes", "pool_queue")
        # Layers that were attached for a pull which was interrupted are kept for ten minutes.
        self.until("gauges", lambda: not self.gauges(gauges), lambda: self.gauges(gauges), timeout=660)
        self.until("files of snapshots", lambda: not list((self.node.root / "snapshotter/snapshots").iterdir()))
        self.until("files of mounts and layers", lambda: not any(list((self.node.root / "fused" / name).iterdir()) for name in ("mounts", "layers")))
        self.until("threads", lambda: not self.node.threads() - idle_threads)
        self.until("descriptors", lambda: not self.node.descriptors() - idle_descriptors)
        self.until("mounts", lambda: not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/rootfs" in line or "/sandboxes" in line])
        self.containerd.stop()
        self.node.snapshotter.stop()
        self.node.fused.stop()
        check(not os.path.ismount(self.node.mount_point), "the file system is still mounted")
        check(not self.node.fused.stored, "the service manager still keeps the session")
        cache = sum(path.stat().st_blocks * 512 for path in (self.node.root / "fused/cache").rglob("*") if path.is_file())
        say(f"nothing left over; the chunk cache has {cache / 1e6:.0f} MB")

    def gauges(self, names):
        values = metrics(self.node.control)
        return {name: values[f"headrace_{name}"] for name in names if values[f"headrace_{name}"]}

    def snapshots(self):
        return self.containerd.ctr("-n", "k8s.io", "snapshots", "--snapshotter", "headrace", "ls").splitlines()[1:]

    def drop_leases(self):
        """A pull that containerd was killed in leaves a lease that holds its snapshots for a day; containerd has nobody who ends it sooner."""
        for line in self.containerd.ctr("-n", "k8s.io", "leases", "ls").splitlines()[1:]:
            # --sync: garbage is collected right after it. Otherwise that happens some day: when a hundred other things have changed.
            self.containerd.ctr("-n", "k8s.io", "leases", "rm", "--sync", line.split()[0])
            self.count("leases of interrupted pulls")
        say(f"  leases of interrupted pulls: {self.counts['leases of interrupted pulls']}")
        say(f"  images that containerd forgot when it was started: {self.counts['images that containerd forgot']}")

    @staticmethod
    def until(what, condition, show=lambda: "", timeout=60):
        give_up = time.monotonic() + timeout
        while not condition():
            check(time.monotonic() < give_up, f"left over after {timeout} s: {what} {show()}")
            time.sleep(0.2)
