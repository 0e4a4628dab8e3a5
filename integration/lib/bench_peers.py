"""Suite peers: from the start of the pull to everything read, against containerd's full pull and other lazy snapshotters.

Every system is a snapshotter of a containerd of its own in the client namespace, pulls from docker-registry over the same
link the same files in its own image format (CRI pull, so that the snapshotter sees its labels), and is read by the same
loader through a view that `ctr images mount` makes. What is not on the machine is skipped aloud.
"""

import os
import shutil
import statistics
import time
from pathlib import Path

from bench_cold import cold_cells
from bench_core import drop_caches
from bench_image import push_layout
from bench_net import REGISTRY, Link
from bench_parts import Loader, write_config
from bench_peer_systems import PEERS
from bench_servers import DockerRegistry
from parts import Containerd, Headrace
from sandbox import Failed, Skip, run, say

QUICK = ("P2/1Gbit/20ms",)
LINKS = ("1Gbit/20ms", "2.5Gbit/5ms", "5Gbit/0.2ms", "5Gbit/20ms", "5Gbit/50ms")
CELLS = tuple(f"{pattern}/{link}" for link in LINKS for pattern in ("P2", "P4"))
OURS = "headrace"


class System:
    """One snapshotter under measurement. Subclasses say what runs beside containerd and which image they pull."""

    name, lazy = "containerd-overlayfs", False
    image = f"{REGISTRY}/model:1"

    def __init__(self, bench, link):
        self.bench, self.link = bench, link
        self.tag = f"{self.name}{bench.number('system')}"
        hosts = bench.box.path("certs.d") / REGISTRY
        hosts.mkdir(exist_ok=True)
        (hosts / "hosts.toml").write_text(f"server = \"http://{REGISTRY}\"\n")
        self.snapshotter = self.start()
        self.containerd = Containerd(bench.box, f"ctrd-{self.tag}", headrace=self.snapshotter, prefix=link.in_client(),
                                     hosts=hosts.parent)

    def start(self):
        """Starts the snapshotter; None: containerd's own overlayfs."""

    def stop_snapshotter(self):
        pass

    def pull(self):
        self.containerd.cri("pull", self.image)

    def pull_and_read(self, model, pattern, timeout):
        """{"pull_s","total_s","resident_s","rss_mib"}"""
        target = self.bench.box.path(f"mnt-{self.tag}")
        loader = Loader(self.bench, pattern, None, checksum=model.checksum(pattern), like=model.directory)
        try:
            time.sleep(0.5)  # the loader allocates
            began = time.monotonic()
            self.pull()
            pulled = time.monotonic()
            self.containerd.ctr("-n", "k8s.io", "images", "mount", "--snapshotter", self.containerd.snapshotter, self.image,
                                target)
            loader.show(target / "models")
            report = loader.result(timeout)
            return {"pull_s": pulled - began, "total_s": time.monotonic() - began, "resident_s": report["resident_s"],
                    "first_byte_s": report["first_byte_s"]}
        finally:
            loader.kill()
            if os.path.ismount(target):
                run(["umount", "-l", target])

    def stop(self):
        self.containerd.stop()
        self.stop_snapshotter()
        shutil.rmtree(self.containerd.directory, ignore_errors=True)


class Ours(System):
    name, lazy = OURS, True

    def start(self):
        config = self.bench.box.directory / "peers-headrace.toml"
        write_config(config, {"registry": [f"plain_http = ['{REGISTRY}']"]}, self.bench.options.set)
        return Headrace(self.bench.box, self.tag, prefix=self.link.in_client(), fused_arguments=("--config", config))

    def stop_snapshotter(self):
        self.snapshotter.stop()
        shutil.rmtree(self.snapshotter.root, ignore_errors=True)


class Peers:
    def __init__(self, bench, model):
        self.bench, self.model = bench, model
        self.registry_root = bench.box.path("ram") / "registry"
        self.samples = {}  # (case, system name) -> [result]
        self.systems = {Ours.name: Ours, System.name: System}
        self.lazy = set()
        self.pushed = set()

    def _push(self, link, registry):
        """Every system's image, once; a system whose image cannot be made is left out."""
        if "model" not in self.pushed:
            say("peers: pushing the image")
            push_layout(registry.client, self.model.served, "model")
            self.pushed.add("model")
            for peer in PEERS:
                self._push_peer(peer, link, registry)

    def _asked_for(self, name):
        """--cells with a fourth part names systems: P2/1Gbit/20ms/stargz. Ours is always there, to be compared with."""
        systems = [cell.rpartition("/")[2] for cell in self.bench.options.cells if cell.count("/") == 3]
        return not systems or name in systems or name == OURS

    def _push_peer(self, peer, link, registry):
        if not self._asked_for(peer.name):
            return
        try:
            self.bench.spend(peer.prepare_s, peer.name)
            peer.prepare(self.bench, self.model, link, registry.client)
            self.systems[peer.name] = peer.system(System)
            if peer.lazy:
                self.lazy.add(peer.name)
            say(f"peers: {peer.name}: its image is pushed")
        except Exception as error:  # of others' programs anything may fail; ours are compared with those that work
            self.bench.skip(f"peers {peer.name}", str(error).splitlines()[0] if not isinstance(error, Skip) else str(error))

    def on_link(self, rate, latency, patterns, rounds):
        link = Link(self.bench, rate, latency)
        try:
            registry = DockerRegistry(self.bench, link, self.registry_root)
            self._push(link, registry)
            for _ in range(rounds):
                for pattern in patterns:
                    for name in filter(self._asked_for, list(self.systems)):
                        self._one(link, name, pattern)
        finally:
            self._report([f"{pattern}/{rate}/{latency}" for pattern in patterns])
            self.bench.write()
            link.close()

    def _one(self, link, name, pattern):
        case = f"{pattern}/{link.rate}/{link.latency}"
        wire_s = self.model.compressed * 8 / link.bits if link.bits else 2
        self.bench.spend(3 * wire_s + 15, f"{case}/{name}")
        self.bench.wait_for_quiet()
        drop_caches()
        system = None
        try:
            system = self.systems[name](self.bench, link)
            result = system.pull_and_read(self.model, pattern, 120 + 20 * wire_s)
            self.samples.setdefault((case, name), []).append(result)
            say(f"{case}: {name}: pull {result['pull_s']:.2f} s, resident {result['resident_s']:.2f} s, "
                f"total {result['total_s']:.2f} s")
        except Failed as error:
            if name in (OURS, System.name):
                self.bench.failed(f"peers {case}/{name}", error)
            else:
                self.bench.skip(f"peers {case}/{name} and what follows of it", str(error)[:600])
                del self.systems[name]
        finally:
            if system:
                system.stop()

    def _report(self, cases):
        for case in cases:
            ours = self.samples.get((case, OURS))
            others = {name: runs for (other_case, name), runs in self.samples.items() if other_case == case and name != OURS}
            if not ours:
                continue
            for name, runs in others.items():
                self._compare(case, name, ours, runs)
            lazy = {name: statistics.median(run["total_s"] for run in runs) for name, runs in others.items() if name in self.lazy}
            if lazy and case.endswith("/20ms"):
                best = min(lazy, key=lazy.get)
                self.bench.record("peers", f"{case}/best-lazy", "total_s", [run["total_s"] for run in ours], "s",
                                  control=lazy[best], limit=lazy[best] / 3, note=f"the best of the lazy ones: {best}")

    def _compare(self, case, name, ours, theirs):
        lazy = name in self.lazy
        for metric in ("total_s", "resident_s") if lazy else ("total_s",):  # a full pull's reading is warm
            control = statistics.median(run[metric] for run in theirs)
            spread = f"{min(run[metric] for run in theirs):.2f} - {max(run[metric] for run in theirs):.2f}"
            self.bench.record("peers", f"{case}/{name}", metric, [run[metric] for run in ours], "s", control=control,
                              limit=control, note=f"ours against {name}: {spread} s")


def suite_peers(bench, model):
    peers = Peers(bench, model)
    Path(peers.registry_root).mkdir(exist_ok=True)
    for rate, latency, _, patterns in cold_cells(bench, quick=QUICK, standard=CELLS):
        bench.attempt(f"peers */{rate}/{latency}", peers.on_link, rate, latency, patterns, bench.runs(3))
