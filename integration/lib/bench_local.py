"""Suites convert, memory, mount and gpu."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import oci
from bench_cold import cold_run
from bench_core import GIB, MIB, memory_kib
from bench_image import layout_of_a_tib, layout_of_tar
from bench_net import Link
from bench_parts import LEVEL, Fused, write_config
from demo import MODEL, Demo
from sandbox import CGROUPS, Box, Failed, Skip, check, run, say

TIB = 1 << 40
MEMORY_GROUP = 4 * GIB


# ---- convert ----

def _timed_child(argv, timeout=1800):
    """Runs a command; (seconds, its own and its children's greatest RSS in MiB)."""
    began = time.monotonic()
    with subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        give_up = began + timeout
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > give_up:
                process.kill()
                raise Failed(f"{argv[0]}: still running after {timeout} s")
            time.sleep(0.005)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        check(process.returncode == 0, f"{argv[0]} {argv[1]}: exit code {process.returncode}: {process.stderr.read()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def suite_convert(bench, model):
    """`headrace build` and `headrace convert` against zstd -T0 | SHA-256 over the same tar, all in and out of one disk.

    OpenSSL hashes, because Debian's sha256sum does not use the processor's instructions for it and would be a weak control.
    """
    check(shutil.which("zstd"), "no zstd command")
    work = bench.box.path("convert")
    tar = work / "model.tar"
    say("convert: making the tar")
    oci.tar_of_directory(model.directory, "/models", tar)
    layout_of_tar(work / "ordinary", tar)
    size = tar.stat().st_size
    headrace = bench.tool("headrace")
    commands = {
        "zstd": ["bash", "-o", "pipefail", "-c", f"zstd -q -T0 -{LEVEL} -c '{tar}' | tee '{work}/out' | openssl dgst -sha256 -r"],
        "zstd-alone": ["zstd", "-q", "-T0", f"-{LEVEL}", "-f", tar, "-o", work / "out"],
        "build": [headrace, "build", model.directory, f"oci:{work}/out:1", "--level", LEVEL, "--quiet"],
        "convert": [headrace, "convert", f"oci:{work}/ordinary:1", f"oci:{work}/out:1", "--level", LEVEL, "--quiet"]}
    samples = {name: [] for name in commands}
    for number in range(bench.runs(3)):
        for name, command in commands.items():
            bench.spend(15, f"round {number + 1}")
            bench.wait_for_quiet()
            os.sync()
            samples[name].append(_timed_child(command))
            say(f"convert: {name}: {samples[name][-1][0]:.2f} s, {samples[name][-1][1]:.0f} MiB")
            out = work / "out"
            shutil.rmtree(out) if out.is_dir() else out.unlink()
    shutil.rmtree(work)
    speed = {name: [size / seconds / 1e6 for seconds, _ in runs] for name, runs in samples.items()}
    control = statistics.median(speed["zstd"])
    for name in ("build", "convert"):
        bench.record("convert", f"{name}/level{LEVEL}", "throughput", speed[name], "MB/s", control=control, limit=0.9 * control,
                     note=f"control: zstd -T0 -{LEVEL} | tee FILE | openssl dgst -sha256: one hash; ours takes four")
        bench.record("convert", f"{name}/level{LEVEL}/zstd-alone", "throughput", speed[name], "MB/s",
                     control=statistics.median(speed["zstd-alone"]), note="control without any hash; no target")
        bench.record("convert", f"{name}/level{LEVEL}", "rss_mib", [rss for _, rss in samples[name]], "MiB", limit=1024)


# ---- memory ----

def memory_group(box, limit):
    """A memory cgroup with a limit, of whichever version this machine has; Skip if neither."""
    for root, file in ((CGROUPS, "memory.max"), (CGROUPS / "memory", "memory.limit_in_bytes")):
        group = root / box.cgroup.strip("/") / "fused"
        if root == CGROUPS and "memory" not in _controllers(root):
            continue
        if not root.is_dir():
            continue
        try:
            group.parent.mkdir(exist_ok=True)
            if root == CGROUPS:
                (group.parent / "cgroup.subtree_control").write_text("+memory")
            group.mkdir(exist_ok=True)
            (group / file).write_text(str(limit))
            return group
        except OSError as error:
            raise Skip(f"no memory cgroup can be made: {error}") from error
    raise Skip("no memory controller of cgroups here")


def _controllers(root):
    try:
        return (root / "cgroup.controllers").read_text().split() + (root / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


def _budget(bench):
    """(setting, MiB) of the daemon's memory budget: that of --set, or the least that it takes by itself."""
    text = bench.options.set.get("stream.inflight_max", "256MiB")
    found = re.fullmatch(r"([0-9.]+)([MG]iB)", text.strip("'\""))
    check(found, f"stream.inflight_max is {text}: this suite needs it in MiB or GiB")
    return text, float(found.group(1)) * {"MiB": 1, "GiB": 1024}[found.group(2)]


def _idle_tib(bench):
    layout = bench.box.directory / "tib"
    say("memory: making a table of contents of 1 TiB in 100 layers")
    layout_of_a_tib(layout, TIB, 100)
    link = Link(bench)
    fused = None
    try:
        link.serve(layout)
        fused = Fused(bench, link, cgroup=memory_group(bench.box, MEMORY_GROUP))
        before = fused.memory_mib("VmRSS")
        view, seconds = fused.mount(layout, timeout=300)
        names = sorted(os.listdir(view / "models"))
        check(len(names) == 100, f"{len(names)} files instead of 100")
        size = sum(os.stat(view / "models" / name).st_size for name in names)
        check(size > 0.999 * TIB, f"the view has {size} bytes")
        fused.wait_until_at_rest()
        bench.record("memory", "idle_1tib", "rss_mib", [fused.memory_mib("VmRSS")], "MiB", control=before, limit=256,
                     note="VmRSS after mounting 100 layers and listing them; control: before the first mount")
        bench.record("memory", "idle_1tib", "rss_mib_peak", [fused.memory_mib("VmHWM")], "MiB", note="while mounting")
        bench.record("memory", "idle_1tib", "start_s", [seconds], "s", note="Mount calls of 100 layers, one after the other")
    finally:
        if fused:
            fused.stop()
        link.close()
        shutil.rmtree(layout)


def _streaming(bench, model):
    group = memory_group(bench.box, MEMORY_GROUP)
    text, budget = _budget(bench)
    link = Link(bench)
    try:
        link.serve(model.served)
        for pattern in ("P4",) if bench.options.quick else ("P2", "P3s", "P4", "P7"):
            rss = [cold_run(bench, model, link, pattern, cgroup=group, settings={"stream.inflight_max": text})["rss_mib"]
                   for _ in range(bench.runs(3))]
            bench.record("memory", f"streaming/{pattern}", "rss_mib", rss, "MiB", control=budget, limit=budget + 64,
                         note="VmHWM in a memory cgroup of 4 GiB; control: the budget")
    finally:
        link.close()


def suite_memory(bench, model):
    bench.attempt("memory idle_1tib", _idle_tib, bench)
    bench.attempt("memory streaming", _streaming, bench, model)


# ---- mount ----

class LargeDemo(Demo):
    """The demonstration with shards of a number and zeros: a model so compressible that 64 GiB of it fit on a small disk. No overlayfs: it would not. The cache has a budget of a quarter,
    so the second reading fetches again."""

    def make_model(self):
        directory = self.box.path("model")
        files, size = 16, int(self.options.size_gib * GIB) // 16
        for number in range(files):
            with open(directory / f"model-{number + 1:05}-of-{files:05}.safetensors", "wb") as file:
                file.write(number.to_bytes(8, "little"))  # no two are the same: the cache would keep one
                file.truncate(size)
        self.config = self.box.directory / "large.toml"
        write_config(self.config, {"cache": [f"budget = {files * size // 4}"]}, {})
        return directory, {path.name: oci.sha256_file(path) for path in directory.iterdir()}, files * size

    def needed_bytes(self):
        return int(self.options.size_gib * GIB * 0.3) + 2 * GIB


def _demo(bench, gib, kind):
    box = Box(bench.box.path(f"demo-{gib:g}"))
    box.cgroup = f"{bench.box.cgroup}/demo"
    demo = kind(box, argparse.Namespace(size_gib=gib, json=None))
    try:
        demo.prepare(modelcar=False)
        lazy, control = [], []
        for number in range(bench.runs(3)):
            bench.wait_for_quiet()
            lazy.append(demo.with_headrace(f"lazy{number}", MODEL, demo.volume_pod, "Headrace, image volume"))
            if kind is Demo:
                control.append(demo.with_overlayfs(f"overlayfs{number}"))
        check(not demo.wrong, "; ".join(demo.wrong))
    finally:
        for daemon in reversed(box.daemons):
            if daemon.process.poll() is None:
                daemon.stop()
        shutil.rmtree(box.directory, ignore_errors=True)
    note = "from the start of PullImage; control: containerd's overlayfs; docker-registry on loopback"
    for metric, key, unit in (("start_s", "running_s", "s"), ("first_byte_s", "first_byte_s", "s"),
                              ("all_read_s", "all_read_s", "s"), ("bytes_at_start", "fetched_bytes_at_running", "B")):
        bench.record("mount", f"{gib:g}GiB", metric, [figures[key] for figures in lazy], unit,
                     control=statistics.median(figures[key] for figures in control) if control else None, note=note)


def suite_mount(bench):
    for gib in (1,) if bench.options.quick else (1, 8):
        bench.spend(60, "mount")
        bench.attempt(f"mount {gib}GiB", _demo, bench, gib, Demo)
    if bench.options.full:
        bench.attempt("mount 64GiB", _demo, bench, 64, LargeDemo)
    elif not bench.options.quick:
        bench.skip("mount 64GiB", "only with --full: it needs 22 GiB of disk and reads zeros")


# ---- gpu ----

def suite_gpu(bench):
    if not shutil.which("nvidia-smi"):
        raise Skip("no GPU: there is no nvidia-smi")
    for module in ("torch", "safetensors"):
        if subprocess.run(["python3", "-c", f"import {module}"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip(f"a GPU, but no Python module {module}")
    raise Skip("a GPU, but the readings into its memory are not written yet")
