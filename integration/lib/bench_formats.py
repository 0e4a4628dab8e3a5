"""The model of a bench in other people's image formats: cells P2/1Gbit/20ms/<format> of the suite cold."""

import shutil
from pathlib import Path

from bench_image import layout_of_model, read_any_layers
from sandbox import DEPS, Failed, run, say

# Learned ones are read whole by the Mount; all are counted from there.
FORMATS = ("tar", "tar-deferred", "gzip", "zstd", "zstd-chunked", "estargz")
SETTINGS = {"tar-deferred": {"layers.verify": "deferred"}}


class FormatModel:
    """A Model whose image is another one; everything else is the model's."""

    def __init__(self, model, kind):
        self._model = model
        self.layout = model.bench.work / f"{model.layout.name}-{kind}"
        self.layers = read_any_layers(self.layout)
        self.compressed = sum(layer["data"] for layer in self.layers)
        self.served = model.copy_to_memory(self.layout)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def wire(self, link, **more):
        return self._model.wire(link, layers=self.layers, **more)


def _podman(model, target, work):
    program = shutil.which("podman")
    if not program:
        raise Failed("no Podman (integration/setup --podman)")
    tar = work / "model.tar"
    # One block to a record: Podman 4.3 forgets what follows the two zero blocks.
    run(["tar", "-b1", "--numeric-owner", "--format=posix", "-C", model.directory.parent, "--transform", f"s,^{model.directory.name},models,", "-cf", tar,
         model.directory.name], timeout=1800)
    storage = ["--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs"]
    run([program, *storage, "import", tar, "localhost/model"], timeout=1800)
    run([program, *storage, "push", "--format", "oci", "--compression-format", "zstd:chunked", "localhost/model", f"oci:{target}:1"], timeout=1800)


def _estargz(model, target, work):
    """By ctr-remote, which wants a containerd: the plain image goes in, what it made comes out."""
    program = DEPS / "ctr-remote/usr/bin/ctr-remote"
    if not program.exists():
        raise Failed("no ctr-remote (integration/setup --podman)")
    from parts import Containerd
    plain = work / "plain"
    layout_of_model(plain, model.directory, work, "none")
    containerd = Containerd(model.bench.box, f"estargz{model.bench.number('estargz')}")
    try:
        base = [program, "-a", containerd.socket, "-n", "k8s.io", "images"]
        run(["tar", "-C", plain, "-cf", work / "plain.tar", "."], timeout=1800)
        run([*base, "import", "--no-unpack", "--index-name", "bench/plain:1", work / "plain.tar"], timeout=1800)
        run([*base, "convert", "--estargz", "--oci", "bench/plain:1", "bench/estargz:1"], timeout=3600)
        run([*base, "export", work / "estargz.tar", "bench/estargz:1"], timeout=1800)
    finally:
        containerd.daemon.stop()
    target.mkdir()
    run(["tar", "-C", target, "-xf", work / "estargz.tar"], timeout=1800)


def format_model(bench, model, kind):
    kind = kind.removesuffix("-deferred")
    target = bench.work / f"{model.layout.name}-{kind}"
    done = bench.work / f"{target.name}.done"
    if not done.exists():
        say(f"making the image in {kind}")
        work = bench.box.path(f"format-{kind}")
        shutil.rmtree(target, ignore_errors=True)
        if kind == "zstd-chunked":
            _podman(model, target, work)
        elif kind == "estargz":
            _estargz(model, target, work)
        else:
            layout_of_model(target, model.directory, Path(work), "none" if kind == "tar" else kind)
        shutil.rmtree(work, ignore_errors=True)
        done.touch()
    return FormatModel(model, kind)
