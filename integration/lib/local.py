"""Faults of the machine under a node: file systems that are small, or lose what they are given; cache files, and who spoils them; images of many equal files."""

import errno
import os
import random
import subprocess
from pathlib import Path

from oci import sha256_file
from parts import headrace_build
from sandbox import Failed, Skip, check, run

CHUNK = 256 << 10


class Files:
    """An image of `count` files of `size` random bytes, served by a FaultServer. sums: {name: sha256}; originals: their directory."""

    def __init__(self, box, server, name, count, size, seed, options=("--chunk-size", "256KiB")):
        work = box.path(f"image-{name}")
        self.layout, self.originals = work / "layout", work / "files"
        self.originals.mkdir()
        self.size = size
        draw = random.Random(seed)
        for number in range(count):
            (self.originals / f"{name}-{number:04}.bin").write_bytes(draw.randbytes(size))
        self.sums = {path.name: sha256_file(path) for path in sorted(self.originals.iterdir())}
        self.names = sorted(self.sums)
        headrace_build(self.originals, f"oci:{self.layout}:1", "--path-prefix", "/models", *options, "-q")
        self.ref = f"{server.host}/{name}:1"
        self.repository = server.add(name, self.layout)

    def mount(self, node, first_id=1):
        """The directory with the files."""
        return node.mount(self.ref, self.layout, first_id) / "models"

    def check_all(self, directory, what):
        for name, digest in self.sums.items():
            check(sha256_file(directory / name) == digest, f"{what}: wrong bytes of {name}")


def small_tmpfs(path, size):
    path.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "small", path])


def resize_tmpfs(path, size):
    run(["mount", "-o", f"remount,size={size}", path])


def fill_up(path):
    """Takes all the room of a file system."""
    with open(path, "wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(4096))
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"filling: {error}")


class LossyDisk:
    """A file system on a disk that has much less room than it says: what does not fit is accepted, and lost when the kernel writes it back."""

    def __init__(self, box, path, room, pretended):
        self.path = path
        self.room = box.path("lossy-disk")
        small_tmpfs(self.room, room)
        image = self.room / "disk"
        with open(image, "wb") as out:
            out.truncate(pretended)
        path.mkdir(parents=True, exist_ok=True)
        # No journal: it would stop the file system at the first error, and the point is one that goes on.
        run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", image])
        try:
            run(["mount", "-o", "loop,noatime,errors=continue", image, path])
        except Failed as error:
            raise Skip(f"no loop device can be mounted here: {error}") from error

    def write_back(self):
        """Everything goes to the disk, or is lost; then the kernel has no page of the cache's files in memory any more."""
        # Not fsync of the files, which would tell us of the errors in place of the daemon.
        subprocess.run(["sync", "--file-system", self.path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
        for file in data_files(self.path):
            forget(file)

    def die(self):
        """Whatever is not in memory cannot be read any more: EIO."""
        # Without direct I/O the loop device makes zeros of what its file does not have.
        device = run(["findmnt", "-n", "-o", "SOURCE", self.path]).strip()
        try:
            run(["losetup", "--direct-io=on", device])
        except Failed as error:
            raise Skip(f"no loop device that fails: {error}") from error
        self.write_back()
        os.truncate(self.room / "disk", 1 << 20)
        # And nothing may be written behind its end, which would make holes, hence zeros, of what is before it.
        fill_up(self.room / "filler")

    def replace(self):
        """An empty file system on a disk that works, in the same place."""
        run(["umount", "--lazy", self.path])
        small_tmpfs(self.path, "64m")


def forget(path):
    """The kernel has no page of the file in memory any more, once everything was written."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def data_files(cache):
    return sorted(Path(cache).glob("??/??/*.data"))


def data_file_of(cache, original):
    """The cache's data file with the content of `original`, of which the first chunk at least is there."""
    with open(original, "rb") as file:
        head = file.read(4096)
    for path in data_files(cache):
        with open(path, "rb") as file:
            if file.read(4096) == head:
                return path
    return None


def chunks_that_differ(path, original):
    """How many chunks of a data file are not what they should be."""
    return sum(a != b for a, b in zip(_chunks(path), _chunks(original)))


def _chunks(path):
    content = Path(path).read_bytes()
    return [content[at:at + CHUNK] for at in range(0, len(content), CHUNK)]
