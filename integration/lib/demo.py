"""The demonstration behind integration/demo; runs in a sandbox of its own (sandbox.py)."""

import argparse
import json
import os
import shutil
from pathlib import Path

from parts import (REGISTRY, Containerd, Headrace, Pod, Registry, check_sums, headrace_build, make_model,
                   program_directory, reader_reports)
from sandbox import Failed, check, main, say

GIB = 1 << 30
MODEL = f"{REGISTRY}/models/demo:1"
MODELCAR = f"{REGISTRY}/models/demo:1-modelcar"  # one repository: the model's layers, which are the same, are pushed once
READER = f"{REGISTRY}/reader:1"
PAUSE = f"{REGISTRY}/pause:1"


def arguments():
    parser = argparse.ArgumentParser(prog="integration/demo", description=(
        "Starts pods that read a model image through containerd, with Headrace and with overlayfs, and says how long it took."))
    parser.add_argument("--size-gib", type=float, default=2, help="size of the model's weights in GiB (default 2)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not 0.01 <= options.size_gib <= 1024:
        parser.error("--size-gib must be between 0.01 and 1024")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"{options.json}: no such directory")
    return options


class Demo:
    config = None  # headrace.toml, if not the defaults

    def __init__(self, box, options):
        self.box = box
        self.options = options
        self.timeout = 120 + int(options.size_gib * GIB / 20e6)  # even a slow machine reads 20 MB/s
        self.sums = {}
        self.model_bytes = 0
        self.wrong = []

    def needed_bytes(self):
        """Of disk: the model, its blobs, and each column's copy."""
        return int(self.options.size_gib * GIB * 4.5) + GIB

    def make_model(self):
        shard = 1.0 if self.options.size_gib >= 1 else max(0.01, self.options.size_gib / 4)
        return make_model(self.box, self.options.size_gib, shard)

    def prepare(self, modelcar=True):
        needed = self.needed_bytes()
        free = shutil.disk_usage(self.box.directory).free
        check(free > needed, f"{self.box.directory.parent} has {free / GIB:.1f} GiB free; a model of this size needs "
              f"{needed / GIB:.1f} GiB (HEADRACE_TMP names another directory)")
        say(f"making a model of {self.options.size_gib:g} GiB")
        model, self.sums, self.model_bytes = self.make_model()
        Registry(self.box)
        programs = program_directory(self.box)
        say("building and pushing the images with `headrace build`")
        headrace_build(programs, PAUSE, "--path-prefix", "/", "--entrypoint", "/pause")
        headrace_build(programs, READER, "--path-prefix", "/", "--entrypoint", "/model-reader")
        headrace_build(model, MODEL, "--path-prefix", "/models")
        say(f"{MODEL} is pushed")
        if modelcar:
            headrace_build(model, MODELCAR, "--path-prefix", "/models", "--base", programs, "--entrypoint", "/pause")
            say(f"{MODELCAR} is pushed")
        shutil.rmtree(model)

    def _check(self, report, what):
        try:
            check_sums(report, self.sums, what)
        except Failed as error:
            self.wrong.append(str(error))
            say(f"WRONG: {error}")

    def _timed(self, containerd, image, make_pod, what):
        """Pull, pod, read twice. Returns the figures; all times count from the start of the pull."""
        for program in (PAUSE, READER):
            containerd.cri("pull", program)
        gate = self.box.path(f"gate-{containerd.daemon.name}")
        before = self.box.received_bytes()
        pull = containerd.cri("pull", image)
        pod = make_pod(containerd, {"container_path": "/gate", "host_path": str(gate)})
        fetched = self.box.received_bytes() - before
        (gate / "open").touch()  # only now may the container read: what came until here was needed to run it
        say(f"{what}: running {(pod.started_ns() - pull['start_ns']) / 1e9:.2f} s after the pull began; reading")
        cold, warm = reader_reports(pod.wait("reader", self.timeout))
        self._check(cold, f"{what}, first reading")
        self._check(warm, f"{what}, second reading")
        say(f"{what}: everything read, twice")
        pod.remove()

        def since_pull(ns):
            return round((ns - pull["start_ns"]) / 1e9, 3)
        return {"pull_s": since_pull(pull["end_ns"]), "running_s": since_pull(pod.started_ns()),
                "first_byte_s": since_pull(cold["first_byte_ns"]), "all_read_s": since_pull(cold["all_read_ns"]),
                "fetched_bytes_at_running": fetched,
                "warm_s": round((warm["all_read_ns"] - warm["start_ns"]) / 1e9, 3)}

    def volume_pod(self, containerd, gate):
        return Pod(containerd, "volume", [{
            "name": "reader", "image": READER, "args": ["/model", "--wait-for", "/gate/open", "--repeat", "2"],
            "mounts": [{"container_path": "/model", "image": MODEL}, gate]}])

    def _modelcar_pod(self, containerd, gate):
        return Pod(containerd, "modelcar", [
            {"name": "modelcar", "image": MODELCAR},
            {"name": "reader", "image": READER, "mounts": [gate],
             "args": ["/models", "--proc-root", "--wait-for", "/gate/open", "--repeat", "2"]}],
            share_process_namespace=True)

    def with_headrace(self, name, image, make_pod, what):
        os.sync()  # what earlier steps wrote must not slow this one
        say(f"{what}: fresh Headrace, fresh containerd")
        headrace = Headrace(self.box, f"{name}-headrace", config=self.config)
        containerd = Containerd(self.box, name, headrace=headrace)
        figures = self._timed(containerd, image, make_pod, what)
        self._end(containerd)
        headrace.stop()
        shutil.rmtree(headrace.root)
        return figures

    def with_overlayfs(self, name="overlayfs"):
        what = "overlayfs"
        os.sync()
        say(f"{what}: fresh containerd")
        containerd = Containerd(self.box, name)
        figures = self._timed(containerd, MODEL, self.volume_pod, what)
        self._end(containerd)
        return figures

    @staticmethod
    def _end(containerd):
        containerd.stop()
        shutil.rmtree(containerd.directory, ignore_errors=True)

    def run(self):
        self.prepare()
        lazy = self.with_headrace("lazy", MODEL, self.volume_pod, "Headrace, image volume")
        modelcar = self.with_headrace("modelcar", MODELCAR, self._modelcar_pod, "Headrace, ModelCar")
        overlayfs = self.with_overlayfs()
        self.show(lazy, modelcar, overlayfs)
        if self.options.json:
            self.write_json(lazy, modelcar, overlayfs)
        check(not self.wrong, "; ".join(self.wrong))

    def show(self, lazy, modelcar, overlayfs):
        rows = [
            ("image pulled", "pull_s"), ("container running", "running_s"),
            ("first byte of the weights read", "first_byte_s"), ("everything read", "all_read_s"),
            ("bytes fetched when it ran", "fetched_bytes_at_running"), ("everything read once more, in", "warm_s")]

        def cell(figures, key):
            value = figures[key]
            if key == "fetched_bytes_at_running":
                return f"{value / 1e6:.2f} MB"
            return f"{value:.2f} s"
        print(f"\nA model of {self.model_bytes / GIB:.2f} GiB in {len(self.sums)} files, read and checked by a container.")
        print("Times count from the start of the pull.\n")
        print(f"{'':32}{'Headrace':>14}{'Headrace':>14}{'overlayfs':>14}")
        print(f"{'':32}{'image volume':>14}{'ModelCar':>14}{'image volume':>14}")
        for title, key in rows:
            print(f"{title:32}" + "".join(f"{cell(figures, key):>14}" for figures in (lazy, modelcar, overlayfs)))
        verdict = "right" if not self.wrong else "WRONG"
        print(f"\nSHA-256 of every file, in each reading: {verdict}\n", flush=True)

    def write_json(self, lazy, modelcar, overlayfs):
        keys = ("pull_s", "running_s", "first_byte_s", "all_read_s", "fetched_bytes_at_running")
        self.options.json.write_text(json.dumps({
            "model_bytes": self.model_bytes,
            "lazy": {key: lazy[key] for key in keys},
            "overlayfs": {key: overlayfs[key] for key in keys},
            "modelcar": {key: modelcar[key] for key in ("running_s", "all_read_s")},
            "sha256_ok": not self.wrong}, indent=2) + "\n")


if __name__ == "__main__":
    OPTIONS = arguments()
    main(lambda box: Demo(box, OPTIONS).run())
