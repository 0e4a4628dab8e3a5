"""The parts that the suites put together: model, image, headrace-fused on a link, loader, controls."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from bench_core import GIB, memory_kib
from bench_net import REGISTRY
from sandbox import Daemon, Failed, answers, check, need_program, run, say

TICKS = os.sysconf("SC_CLK_TCK")
LEVEL = 3  # zstd level of all images here; headrace's default
IMAGE = f"{REGISTRY}/model:1"


class Model:
    """A BF16 model of model-maker, its image in an OCI layout, and the checksum that every reading must have."""

    def __init__(self, bench, gib):
        self.bench = bench
        name = f"{gib:g}gib"
        self.directory = bench.work / f"model-{name}"
        self.layout = bench.work / f"layout-{name}"
        self._make(gib)
        self.bytes = sum(path.stat().st_size for path in self.directory.iterdir())
        self.weights = sum(path.stat().st_size for path in self.directory.glob("*.safetensors"))
        self.layers = read_layers(self.layout)
        self.compressed = sum(layer["data"] for layer in self.layers)
        self.served = self.copy_to_memory(self.layout)
        self._checksums = {}
        self._cpu_floor = None

    def _make(self, gib):
        done = self.bench.work / f"layout-{gib:g}gib.done"
        if done.exists():
            say(f"model and image of {gib:g} GiB: as they are in {self.bench.work}")
            return
        needed = int(gib * GIB * 4) + GIB  # model, image, and twice a cache
        free = shutil.disk_usage(self.bench.work).free
        check(free > needed, f"{self.bench.work} has {free / GIB:.1f} GiB free; {needed / GIB:.1f} GiB are needed")
        for path in (self.directory, self.layout):
            shutil.rmtree(path, ignore_errors=True)
        say(f"making a model of {gib:g} GiB and its image")
        shard = min(1.0, gib / 4)
        run([self.bench.tool("model-maker"), self.directory, "--gib", gib, "--shard-gib", shard])
        run([self.bench.tool("headrace"), "build", self.directory, f"oci:{self.layout}:1", "--path-prefix", "/models",
             "--level", LEVEL])
        done.touch()

    def copy_to_memory(self, layout):
        """The registry's copy is served from memory where it fits: its disk must not be what is measured."""
        size = sum(path.stat().st_size for path in layout.rglob("*") if path.is_file())
        if size > memory_kib() * 1024 // 4:
            say("the image is served from disk: it does not fit into a quarter of the memory")
            return layout
        ram = self.bench.box.path("ram")
        if not os.path.ismount(ram):
            run(["mount", "-t", "tmpfs", "-o", f"size={memory_kib('MemTotal') // 2}k", "headrace-bench", ram])
        target = ram / layout.name
        if not target.exists():
            shutil.copytree(layout, target)
        return target

    def checksum(self, pattern, mode="full"):
        """bench-replay's checksum of the native files. P1 reads less than the others, which all read everything."""
        key = ("P1" if pattern == "P1" else "P4", mode)
        if key not in self._checksums:
            self._checksums[key] = self.bench.tool_json("bench-replay", "--pattern", key[0], "--dir", self.directory,
                                                        "--checksum", mode)["checksum"]
        return self._checksums[key]

    def cpu_floor(self):
        """bench-floor cpu of the weights on all cores: {"seconds","cpu_s","bytes"}, medians of three."""
        if self._cpu_floor is None:
            runs = []
            for _ in range(1 if self.bench.options.quick else 3):
                self.bench.wait_for_quiet()
                runs.append(self.bench.tool_json("bench-floor", "cpu", "--layout", self.served, "--threads", os.cpu_count()))
            runs.sort(key=lambda one: one["seconds"])
            self._cpu_floor = runs[len(runs) // 2]
            say(f"CPU floor (sha256 + zstd + one copy): {self._cpu_floor['seconds']:.2f} s, "
                f"{self._cpu_floor['cpu_s'] / self._cpu_floor['bytes'] * 1e9:.3f} CPU seconds a GB")
        return self._cpu_floor

    def wire(self, link, connections=16, range_bytes=8 << 20, timeout=600, layers=None):
        """bench-floor wire: what the link gives to parallel range GETs of the same blobs that go to /dev/null."""
        arguments = []
        for layer in layers or self.layers:
            arguments += ["--url", f"http://{REGISTRY}/v2/model/blobs/{layer['digest']}", "--size", layer["data"]]
        return self.bench.tool_json("bench-floor", "wire", *arguments, "--connections", connections, "--range", range_bytes,
                                    prefix=link.in_client(), timeout=timeout)


def read_layers(layout):
    """[{"digest","size","data"}] of a layout's only image; `data` = bytes of a blob before its table of contents."""
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs/sha256" / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    layers = []
    for layer in manifest["layers"]:
        toc = layer["annotations"]["containerd.io/snapshot/headrace.toc"].split(",")
        layers.append({"digest": layer["digest"], "size": layer["size"], "data": int(toc[2]) - 8})
    return layers


def write_config(path, sections, settings):
    """A headrace.toml of `sections` = {section: [line]} and `settings` = {"section.key": value} (--set)."""
    for key, value in settings.items():
        section, _, name = key.partition(".")
        text = str(value)
        plain = text.isdigit() or text in ("true", "false") or text[:1] in "\"'["
        sections.setdefault(section, []).append(f"{name} = {text if plain else json.dumps(text)}")
    path.write_text("".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items()))


class Fused:
    """headrace-fused in the client namespace of a link, with a fresh root. settings: {"section.key": value}."""

    def __init__(self, bench, link, settings=None, cgroup=None):
        self.bench = bench
        name = f"fused{bench.number('fused')}"
        self.root = bench.box.path(name)
        self.mount_point = Path("/run") / name
        self.mount_point.mkdir()
        self.control = self.root / "control.sock"
        config = self.root / "headrace.toml"
        write_config(config, {
            "fused": [f"root = '{self.root}/state'", f"mountpoint = '{self.mount_point}'", f"control_socket = '{self.control}'"],
            "registry": [f"plain_http = ['{REGISTRY}']"]}, {**(settings or {}), **bench.options.set})
        argv = link.in_client(need_program(bench.tool("headrace-fused"), "headrace-fused"), "--config", config)
        if cgroup:
            argv = ["sh", "-c", f"echo $$ >{cgroup}/cgroup.procs && exec \"$@\"", "sh", *argv]
        self.daemon = Daemon(bench.box, name, argv)
        self.daemon.wait_until(lambda: answers(self.control) and os.path.ismount(self.mount_point), "its mount and control socket")
        self.pid = self.daemon.process.pid

    def _ctl(self, *arguments, timeout=120):
        return self.bench.tool_json("fused-ctl", "--socket", self.control, *arguments, timeout=timeout)

    def mount(self, layout, image=IMAGE, timeout=600):
        """Mounts all layers. Returns (directory of the merged view, seconds that the calls took)."""
        answer = self._ctl("mount", "--ref", image, "--layout", layout, timeout=timeout)
        return Path(answer["paths"][-1]), answer["seconds"]

    def status(self):
        return self._ctl("status")

    def cpu_seconds(self):
        """User and system time of the daemon. Nothing else counts: not the kernel's own threads, not the registry."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self, key="VmHWM"):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
        raise Failed(f"headrace-fused ({self.pid}) is gone\n{self.daemon.tail()}")

    def wait_until_at_rest(self, timeout=30):
        """Until it used less than 2 % of a core for a second: writing to the cache goes on behind the last read."""
        give_up = time.monotonic() + timeout
        used = self.cpu_seconds()
        while time.monotonic() < give_up:
            time.sleep(1)
            now = self.cpu_seconds()
            if now - used <= 0.02:
                return
            used = now

    def wait_until_sealed(self, timeout=120):
        """Until every byte of every layer is in the cache and every file that takes part is sealed."""
        give_up = time.monotonic() + timeout
        while True:
            status = self.status()
            missing = sum(layer["size"] - layer["resident"] for layer in status["layers"])
            if missing == 0:
                self.wait_until_at_rest()  # sealing is an fdatasync behind the last byte
                return status
            check(time.monotonic() < give_up, f"{missing} bytes are not in the cache after {timeout} s")
            time.sleep(0.2)

    def stop(self):
        """Ends the daemon, at last by SIGKILL, and removes its state."""
        try:
            self.daemon.stop()
        finally:
            if self.daemon.process.poll() is not None:
                subprocess.run(["umount", "-l", self.mount_point], check=False, stderr=subprocess.DEVNULL)
                shutil.rmtree(self.root, ignore_errors=True)


class Loader:
    """bench-replay on a directory; result() waits for it.

    like: a directory with the same files. The loader then allocates its memory first and starts when show() names the
    directory: otherwise a background fill would have the time between the mount and the loader's first open for itself.
    mode: of the checksum; "sampled" where hashing every page would take a good part of the time.
    """

    def __init__(self, bench, pattern, directory, processes=None, checksum=None, like=None, mode="full"):
        self.what, self.checksum = f"bench-replay {pattern}", checksum
        argv = [bench.tool("bench-replay"), "--pattern", pattern, "--checksum", mode]
        if processes:
            argv += ["--processes", processes]
        if like:
            self._link = bench.box.directory / f"view{bench.number('view')}"
            directory = self._link
            argv += ["--like", like]
        argv += ["--dir", directory]
        self.process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, start_new_session=True)

    def show(self, directory):
        os.symlink(directory, self._link)

    def result(self, timeout):
        try:
            output, errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self.what}: still reading after {timeout:.0f} s") from None
        if self.process.returncode != 0:
            raise Failed(f"{self.what}: {errors.strip() or self.process.returncode}")
        report = json.loads(output)
        if self.checksum:
            check(report["checksum"] == self.checksum, f"{self.what}: WRONG BYTES: {report['checksum']} instead of {self.checksum}")
        return report

    def kill(self):
        """All its processes. One that waits in FUSE ends only when the daemon does, so nobody waits for it here."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def replay(bench, pattern, directory, **more):
    """Runs bench-replay to its end. more: processes, checksum, mode, timeout."""
    timeout = more.pop("timeout", 300)
    loader = Loader(bench, pattern, directory, **more)
    try:
        return loader.result(timeout)
    finally:
        loader.kill()
