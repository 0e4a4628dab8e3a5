"""The other snapshotters of suite peers: how each one's image is made and how it is started, with settings for large files.

`prepare` makes and pushes the image, once; it raises Skip if a program is missing (integration/setup --peers provides them).
`system(base)` gives the class that runs it. Programs of others: what they do wrong is skipped aloud, not a failure of ours.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from bench_image import layout_of_model, push_layout
from bench_net import ADMIN_SERVER, PORT, REGISTRY
from oci import LAYER, push_config_and_manifest, sha256_file
from parts import Containerd
from sandbox import DEPS, Box, Daemon, need_program, run, say

PROGRAMS = DEPS / "peers/bin"


class _Snapshotter:
    """A running proxy snapshotter, as parts.Containerd wants to know it."""

    def __init__(self, plugin, root, daemon, socket):
        self.plugin, self.root, self.daemon, self.socket = plugin, root, daemon, socket


class _Peer:
    """name: in cases; plugin: containerd's name for it; repository: of its image; lazy: reads what is not pulled yet."""

    name = ""
    plugin = ""
    repository = ""
    lazy = True
    prepare_s = 60  # what making the image of 1 GiB may take

    def config(self, containerd_socket):
        raise NotImplementedError

    def command(self, root, socket, config):
        raise NotImplementedError

    def system(self, base):
        """A bench_peers.System of this peer."""
        peer = self

        class PeerSystem(base):
            name, lazy = peer.name, peer.lazy
            image = f"{REGISTRY}/{peer.repository}:1"

            def start(self):
                root = self.bench.box.path(self.tag)
                socket = Path("/run") / f"{self.tag}.sock"
                config = self.bench.box.directory / f"{self.tag}.toml"
                config.write_text(peer.config(Path("/run") / f"ctrd-{self.tag}" / "containerd.sock"))
                daemon = Daemon(self.bench.box, self.tag, self.link.in_client(*peer.command(root, socket, config)))
                daemon.wait_until(socket.exists, "its socket")
                return _Snapshotter(peer.plugin, root, daemon, socket)

            def stop_snapshotter(self):
                root = self.snapshotter.root
                for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                    target = line.split()[4]
                    if target.startswith(f"{root}/"):
                        subprocess.run(["umount", "-l", target], check=False, stderr=subprocess.DEVNULL)
                self.snapshotter.daemon.stop()
                shutil.rmtree(root, ignore_errors=True)
        return PeerSystem


class Stargz(_Peer):
    """stargz-snapshotter with a zstd:chunked image of its own converter: smaller and faster to decode than eStargz's gzip."""

    def __init__(self, passthrough):
        self.name = "stargz-passthrough" if passthrough else "stargz"
        self.plugin, self.repository = "stargz", "stargz"
        self._passthrough = passthrough

    def prepare(self, bench, model, link, client):
        need_program(PROGRAMS / "containerd-stargz-grpc", "stargz-snapshotter")
        ctr_remote = need_program(DEPS / "ctr-remote/usr/bin/ctr-remote", "ctr-remote")
        if f"/{self.repository}/" in _pushed(client):
            return
        work = bench.box.path("stargz-image")
        plain = work / "plain"
        layout_of_model(plain, model.directory, work, "none")
        run(["tar", "-C", plain, "-cf", work / "plain.tar", "."])
        shutil.rmtree(plain)
        box = Box(work)  # a containerd for the conversion, in the driver's own namespace
        containerd = Containerd(box, "ctrd-convert")
        source, target = "localhost/plain:1", f"{ADMIN_SERVER}:{PORT}/{self.repository}:1"
        try:
            base = [ctr_remote, "-a", containerd.socket, "images"]
            containerd.ctr("images", "import", "--no-unpack", "--index-name", source, work / "plain.tar")
            run([*base, "convert", "--zstdchunked", "--oci", source, target], timeout=900)
            run([*base, "push", "--plain-http", target], timeout=900)
        finally:
            containerd.stop()
            shutil.rmtree(work)

    def config(self, containerd_socket):
        return ("max_concurrency = 16\nnoprefetch = true\n[directory_cache]\ndirect = true\n"
                f"[fuse]\npassthrough = {str(self._passthrough).lower()}\n"
                "merge_buffer_size = 419430400\nmerge_worker_count = 10\n"
                f"[[resolver.host.\"{REGISTRY}\".mirrors]]\nhost = \"{REGISTRY}\"\ninsecure = true\n")

    def command(self, root, socket, config):
        return [PROGRAMS / "containerd-stargz-grpc", "--root", root, "--address", socket, "--config", config]


class Soci(_Peer):
    """SOCI: gzip layers with an index beside them (SOCI index manifest v2), or its parallel pull, which is not lazy."""

    prepare_s = 120

    def __init__(self, parallel):
        self.name = "soci-parallel" if parallel else "soci"
        self.plugin, self.repository = "soci", "soci"
        self._parallel, self.lazy = parallel, not parallel

    def prepare(self, bench, model, link, client):
        for name in ("soci-snapshotter-grpc", "soci"):
            need_program(PROGRAMS / name, name)
        if f"/{self.repository}/" in _pushed(client):
            return
        work = bench.box.path("soci-image")
        say("peers: soci: making gzip layers")
        layout_of_model(work / "gzip", model.directory, work, "gzip")
        run([PROGRAMS / "soci", "convert", "--standalone", "--format", "oci-dir", "--min-layer-size", 0,
             work / "gzip", work / "soci"], timeout=900)
        push_layout(client, work / "soci", self.repository)
        shutil.rmtree(work)

    def config(self, containerd_socket):
        parallel = (f"[pull_modes.soci_v2]\nenable = {str(not self._parallel).lower()}\n"
                    f"[pull_modes.parallel_pull_unpack]\nenable = {str(self._parallel).lower()}\n"
                    "max_concurrent_downloads = -1\nmax_concurrent_downloads_per_image = 16\n"
                    "concurrent_download_chunk_size = '8mb'\n"
                    "max_concurrent_unpacks = -1\nmax_concurrent_unpacks_per_image = 4\n")
        return ("no_prometheus = true\nskip_check_snapshotter_supported = true\n"
                f"[content_store]\ntype = 'containerd'\ncontainerd_address = '{containerd_socket}'\n"
                "[background_fetch]\nsilence_period_msec = 0\nfetch_period_msec = 1\n" + parallel +
                f"[[resolver.host.\"{REGISTRY}\".mirrors]]\nhost = \"http://{REGISTRY}\"\ninsecure = true\n")

    def command(self, root, socket, config):
        return [PROGRAMS / "soci-snapshotter-grpc", "--root", root, "--address", socket, "--config", config]


class Nydus(_Peer):
    """nydus-snapshotter with nydusd (FUSE) and a RAFS v6 image of its own builder, zstd in chunks of 1 MiB. What it reads of
    such an image it does not verify: nydusd refuses to start if it is asked to."""

    name = plugin = repository = "nydus"

    def prepare(self, bench, model, link, client):
        for name in ("containerd-nydus-grpc", "nydusd", "nydus-image"):
            need_program(PROGRAMS / name, name)
        work = bench.box.path("nydus-image")
        shutil.copytree(model.directory, work / "tree/models", copy_function=_link_or_copy)
        run([PROGRAMS / "nydus-image", "create", "--type", "directory", "--fs-version", "6", "--compressor", "zstd", "--chunk-size",
             "0x100000", "--blob", work / "blob", "--bootstrap", work / "bootstrap", work / "tree"], timeout=900)
        (work / "boot/image").mkdir(parents=True)
        shutil.move(work / "bootstrap", work / "boot/image/image.boot")
        run(["tar", "-C", work / "boot", "--owner=0", "--group=0", "-cf", work / "boot.tar", "image"])
        diff_ids = ["sha256:" + sha256_file(work / "blob"), "sha256:" + sha256_file(work / "boot.tar")]
        run(["gzip", "-1", work / "boot.tar"])
        packed = work / "boot.tar.gz"
        layers = [
            {"mediaType": "application/vnd.oci.image.layer.nydus.blob.v1", "digest": diff_ids[0],
             "annotations": {"containerd.io/snapshot/nydus-blob": "true"}},
            {"mediaType": LAYER + "+gzip", "digest": "sha256:" + sha256_file(packed),
             "annotations": {"containerd.io/snapshot/nydus-bootstrap": "true", "containerd.io/snapshot/nydus-fs-version": "6"}}]
        for layer, path in zip(layers, (work / "blob", packed)):
            layer["size"] = client.push_blob(self.repository, layer["digest"], path)
        push_config_and_manifest(client, self.repository, "1", layers, diff_ids, ())
        shutil.rmtree(work)

    def config(self, containerd_socket):
        daemon = {"device": {"backend": {"type": "registry", "config": {"scheme": "http", "skip_verify": True, "timeout": 30,
                                                                         "connect_timeout": 5, "retry_limit": 2}},
                             "cache": {"type": "blobcache"}},
                  "mode": "direct", "digest_validate": False, "iostats_files": False, "enable_xattr": True, "amplify_io": 8 << 20,
                  "fs_prefetch": {"enable": True, "threads_count": 16, "merging_size": 8 << 20, "prefetch_all": True}}
        path = Path("/run/nydusd-config.json")
        path.write_text(json.dumps(daemon))
        nydusd = Path("/run/nydusd")  # it wants more descriptors than a container may have, and then does not start
        nydusd.write_text(f"#!/bin/sh\nexec {PROGRAMS}/nydusd \"$@\" --rlimit-nofile 0\n")
        nydusd.chmod(0o755)
        return (f"version = 1\nroot = \"@ROOT@\"\naddress = \"@SOCKET@\"\ndaemon_mode = \"dedicated\"\ncleanup_on_close = true\n"
                f"[system]\nenable = false\n[daemon]\nnydusd_config = \"{path}\"\nnydusd_path = \"{nydusd}\"\n"
                f"nydusimage_path = \"{PROGRAMS}/nydus-image\"\nfs_driver = \"fusedev\"\nrecover_policy = \"none\"\n"
                "threads_number = 8\n[cgroup]\nenable = false\n[log]\nlog_to_stdout = true\nlevel = \"info\"\n"
                "[metrics]\naddress = \"\"\n[snapshot]\nenable_nydus_overlayfs = false\n")

    def command(self, root, socket, config):
        config.write_text(config.read_text().replace("@ROOT@", str(root)).replace("@SOCKET@", str(socket)))
        return [PROGRAMS / "containerd-nydus-grpc", "--config", config]


def _link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:  # --work may be another file system
        shutil.copy2(source, target)


def _pushed(client):
    """The registry's repositories as "/a/b/"."""
    content = client.get("/v2/_catalog")
    return "/" + "/".join(json.loads(content)["repositories"]) + "/"


# Those that take longest to prepare come last: --quick may have no time for them.
PEERS = [Nydus(), Stargz(True), Stargz(False), Soci(False), Soci(True)]
