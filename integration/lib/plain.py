"""Plain containers on an older containerd, through Headrace and (as the control) through overlayfs."""

import oci
from parts import (REGISTRY, Containerd, Headrace, Pod, Registry, check_sums, headrace_build, make_model,
                   program_directory, reader_reports)
from sandbox import say

# Images of the same content: one by ordinary tools (containerd unpacks it), one by Headrace.
ORDINARY = f"{REGISTRY}/ordinary:1"
OURS = f"{REGISTRY}/ours:1"


def push_images(box):
    directory, sums, _ = make_model(box, 0.05, 0.02)
    Registry(box)
    programs = program_directory(box)
    headrace_build(programs, f"{REGISTRY}/pause:1", "--path-prefix", "/", "--entrypoint", "/pause")
    headrace_build(directory, OURS, "--path-prefix", "/models", "--base", programs, "--entrypoint", "/model-reader")
    oci.push_image(REGISTRY, "ordinary", "1", [(programs, "/"), (directory, "/models")], box.path("work"),
                   ["/model-reader"], "gzip")
    return sums


def by_ctr(box, containerd, image, sums, what):
    """`ctr pull` and `ctr run`: no labels, so everything is pulled and unpacked by containerd."""
    snapshotter = containerd.snapshotter
    containerd.ctr("images", "pull", "--plain-http", "--snapshotter", snapshotter, image)
    output = containerd.ctr("run", "--rm", "--net-host", "--snapshotter", snapshotter, "--cgroup", f"{box.cgroup}/ctr",
                            image, "plain", "/model-reader", "/models")
    check_sums(reader_reports(output)[0], sums, what)
    say(f"{what}: right")


def by_cri(containerd, image, sums, what):
    """A pod over CRI; with Headrace's labels its own layers are lazy."""
    before = containerd.box.received_bytes()
    containerd.cri("pull", image)
    pulled = containerd.box.received_bytes() - before
    name = image.rsplit("/", 1)[-1].split(":")[0]
    pod = Pod(containerd, name, [{"name": "reader", "image": image, "args": ["/models", "--repeat", "2"]}])
    for report in reader_reports(pod.wait("reader", 120)):
        check_sums(report, sums, what)
    pod.remove()
    say(f"{what}: right ({pulled / 1e6:.2f} MB pulled before it ran)")
    return pulled


def plain_containers(box, version):
    sums = push_images(box)
    control = Containerd(box, f"overlayfs-{version}", version)
    everything = by_cri(control, OURS, sums, f"containerd {version}, overlayfs, CRI, our image")
    by_ctr(box, control, OURS, sums, f"containerd {version}, overlayfs, ctr, our image")
    by_ctr(box, control, ORDINARY, sums, f"containerd {version}, overlayfs, ctr, ordinary image")
    control.stop()

    headrace = Headrace(box)
    containerd = Containerd(box, f"ctrd-{version}", version, headrace)
    by_ctr(box, containerd, ORDINARY, sums, f"containerd {version}, Headrace, ctr, ordinary image")
    by_cri(containerd, ORDINARY, sums, f"containerd {version}, Headrace, CRI, ordinary image")
    lazily = by_cri(containerd, OURS, sums, f"containerd {version}, Headrace, CRI, our image")
    containerd.stop()
    headrace.stop()
    return everything, lazily
