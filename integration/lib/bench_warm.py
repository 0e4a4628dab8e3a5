"""Suite warm: files that are complete and sealed, against the same files on the disk's own file system."""

import os
import statistics

from bench_core import drop_caches
from bench_net import Link
from bench_parts import Fused, replay
from sandbox import run, say

PATTERNS = ("P2", "P2f", "P3", "P3s", "P4", "P5", "P6", "P7", "P8", "P9", "P10")
QUICK = ("P2", "P4", "P8")
FROM_DISK = ("P2", "P4", "P7")  # read once more with dropped caches
TARGET = {"P2", "P2f", "P3", "P3s", "P4", "P5", "P6", "P8"}  # 0.95 x native


def _overlay(bench, lower):
    """What a container's root file system is: an overlay whose lower directory is the mounted view, or the native files."""
    number = bench.number("overlay")
    upper, work, merged = (bench.box.path(f"overlay{number}/{name}") for name in ("upper", "work", "merged"))
    run(["mount", "-t", "overlay", "headrace-bench", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", merged])
    return merged


class Warm:
    def __init__(self, bench, model, places):
        self.bench, self.model, self.places = bench, model, places
        self.samples = {}

    def rounds(self, patterns, count, from_disk):
        """Native and ours in turn. from_disk: caches are dropped before each reading, else all of it is in the page cache."""
        for number in range(count):
            for pattern in patterns:
                self.bench.spend(12 if from_disk else 5, f"round {number + 1} of {pattern}")
                places = list(self.places.items())
                for place, directory in places if number % 2 == 0 else reversed(places):
                    if from_disk:
                        drop_caches()
                    report = replay(self.bench, pattern, directory, mode="sampled",
                                    checksum=self.model.checksum(pattern, "sampled"))
                    self.samples.setdefault((pattern, place, from_disk), []).append(report["throughput"] / 1e6)

    def report(self):
        for (pattern, place, from_disk), samples in self.samples.items():
            if place.startswith("native"):
                continue
            if place == "overlayfs":
                self._report_overlay(pattern, from_disk, samples)
            native = sorted(self.samples[pattern, "native", from_disk])
            control = native[len(native) // 2]
            where = "disk" if from_disk else "page cache"
            self.bench.record("warm", f"{pattern}/local/0ms/{place}{'-disk' if from_disk else ''}", "throughput", samples, "MB/s",
                              control=control, limit=0.95 * control if pattern in TARGET else None,
                              note=f"from the {where}; control: ext4, {native[0]:.0f} - {native[-1]:.0f}")


    def _report_overlay(self, pattern, from_disk, samples):
        """What overlayfs itself costs: the same above the native files. No target."""
        case = f"{pattern}/local/0ms/overlayfs{'-disk' if from_disk else ''}-by-overlayfs"
        self.bench.record("warm", case, "throughput", samples, "MB/s",
                          control=statistics.median(self.samples[pattern, "native-overlayfs", from_disk]),
                          note="control: overlayfs above the native files")


def suite_warm(bench, model):
    link = Link(bench)
    mounts = []
    fused = None
    try:
        link.serve(model.served)
        fused = Fused(bench, link)
        view, _ = fused.mount(model.served)
        replay(bench, "P4", view / "models", checksum=model.checksum("P4"))
        for path in (view / "models").iterdir():  # the loader read the weights only
            if path.suffix != ".safetensors":
                path.read_bytes()
        fused.wait_until_sealed()
        if os.stat(fused.root).st_dev != os.stat(model.directory).st_dev:
            say("warm: --work is on another file system than the cache: readings from disk cannot be compared")
        mounts = [_overlay(bench, view), _overlay(bench, model.directory)]
        warm = Warm(bench, model, {"native": model.directory, "fuse": view / "models", "overlayfs": mounts[0] / "models",
                                   "native-overlayfs": mounts[1]})
        drop_caches()  # what was written sits in the page cache in other pieces than what was read
        for directory in warm.places.values():  # from here on everything is in the page cache
            replay(bench, "P4", directory, checksum=model.checksum("P4"))
        patterns = [pattern for pattern in (QUICK if bench.options.quick else PATTERNS)
                    if bench.wanted(f"{pattern}/local/0ms/fuse")]
        bench.wait_for_quiet()
        try:
            warm.rounds(patterns, bench.runs(5) if not bench.options.quick else 3, from_disk=False)
            warm.rounds([pattern for pattern in patterns if pattern in FROM_DISK], bench.runs(3), from_disk=True)
        finally:
            warm.report()
    finally:
        for merged in mounts:
            run(["umount", merged])
        if fused:
            fused.stop()
        link.close()
