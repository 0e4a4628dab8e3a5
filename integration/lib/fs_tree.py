"""The tree of the test fs-readonly: an image of two layers with everything that a file system may hold, made without our code, and the same tree on a native file system."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from pathlib import Path

import oci
from oracle_images import odd_tree
from sandbox import TOOLS, Failed, Skip, need_program, run

USER = 1000  # of fs-cases and fs-stress
MIB = 1 << 20
# Links to links. A walk along more than 20 that the kernel has to begin anew, because a name on its way was forgotten or somebody mounted something, is ELOOP: it goes on
# counting. Seen now and then; so stress leaves them alone, and no case has between 20 and 40.
CHAINS = "chains"
OPTIONS = "nosuid,nodev,noatime"  # as Headrace's mount has them
SIZES = (1, 511, 4095, 4096, 4097, 65_535, 65_537, MIB - 1, MIB, MIB + 1, 4 * MIB + 17)


def _links(root):
    os.symlink("loop-b", root / "loop-a")
    os.symlink("loop-a", root / "loop-b")
    os.symlink("loop-self", root / "loop-self")
    os.symlink("d", root / "link-to-d")
    (root / CHAINS).mkdir()
    os.symlink("../d/file", root / CHAINS / "00")
    for number in range(1, 45):  # Linux follows 40
        os.symlink(f"{number - 1:02}", root / CHAINS / f"{number:02}")


def _rights(root):
    for name, mode, owner in (("private", 0o700, 0), ("of-user", 0o755, USER), ("no-search", 0o644, 0), ("setgid", 0o2775, 0)):
        (root / name).mkdir()
        (root / name / "file").write_bytes(name.encode())
        os.chown(root / name / "file", owner, owner)
        os.chmod(root / name, mode)
        os.chown(root / name, owner, owner)
    (root / "private/secret").write_bytes(b"secret")
    (root / "unreadable").write_bytes(b"unreadable")
    os.chmod(root / "unreadable", 0)
    for name, owner in (("of-user", USER), ("of-root", 0), ("of-another", 1001)):
        (root / "sticky" / name).write_bytes(name.encode())
        os.chown(root / "sticky" / name, owner, owner)
    shutil.copy(need_program(TOOLS / "effective-uid", "effective-uid"), root / "suid-root")
    os.chmod(root / "suid-root", 0o4755)
    (root / "script").write_text("#!/bin/sh\necho it runs\n")
    os.chmod(root / "script", 0o755)


def make_tree(root, draw):
    """What the lower layer holds."""
    root.mkdir()
    odd_tree(root)
    _links(root)
    _rights(root)
    for name in ("many", "sizes", "weights", "xattrs", "replaced", "upper"):
        (root / name).mkdir()
    for number in range(1200):
        (root / f"many/{number:04}").write_bytes(b"%d" % number)
    for size in SIZES:
        (root / f"sizes/{size}").write_bytes(draw.randbytes(size))
    (root / "weights/model.bin").write_bytes(draw.randbytes(24 * MIB + 777))
    (root / "weights/tokens").write_bytes(b"".join(b"token %d\n" % draw.randrange(10**6) for _ in range(200_000)))
    for number in range(20):
        os.setxattr(root / "xattrs", f"user.number-{number}", b"v" * number)
    (root / "xattrs/file").write_bytes(b"x")
    os.setxattr(root / "xattrs/file", "user.long", draw.randbytes(2000))
    os.setxattr(root / "xattrs/file", "trusted.note", b"for root only")
    os.setxattr(root / "xattrs/file", "user." + "n" * 250, b"")
    deep = root
    for _ in range(60):
        deep = deep / "deep-directory"
        deep.mkdir()
    (deep / "file").write_bytes(b"at the bottom")
    for name in (b"\xff\xfe not unicode", b" ", b"\\", b"'\"$`*?", b"-rf"):
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(name)
    for name in ("gone", "d/gone", "replaced/old", "upper/changed"):
        (root / name).write_text("of the lower layer")


def make_changes(root, draw):
    """What the upper layer holds, but for its whiteouts. Directories in it are whole entries: they say what the merged ones look like."""
    root.mkdir()
    for name in ("upper", "d", "replaced"):
        (root / name).mkdir()
    os.setxattr(root / "d", "user.of-a-directory", b"x" * 200)
    (root / "upper/new").write_bytes(draw.randbytes(300_000))
    (root / "upper/changed").write_bytes(draw.randbytes(100_000))
    os.link(root / "upper/new", root / "upper/new-too")
    (root / "replaced/new").write_text("in a directory that was replaced")
    for name in ("upper", "d", "replaced"):
        os.utime(root / name, ns=(5, 1_650_000_000_123_456_789))


WHITEOUTS = (".wh.gone", "d/.wh.gone", "replaced/.wh..wh..opq")


def make_tar(tree, target, whiteouts=()):
    run(["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--format=posix", "-C", tree, "-cf", target, "."])
    with tarfile.open(target, "a", format=tarfile.PAX_FORMAT) as tar:
        for name in whiteouts:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())


def write_layout(directory, tars):
    """An OCI layout with one image, layers gzipped."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
    contents = [Path(tar).read_bytes() for tar in tars]
    layers = [add(gzip.compress(data, 1), oci.LAYER + "+gzip") for data in contents]
    config = add(json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {
        "type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in contents]}}).encode(), oci.CONFIG)
    manifest = add(json.dumps({"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": layers}).encode(), oci.MANIFEST)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


class Native:
    """The image's tree on ext4, unpacked by GNU tar, mounted read-only with the options of Headrace's mount: what everything is compared with."""

    def __init__(self, box, tars, size="160M"):
        image = box.path("native") / "disk"
        self.root = box.path("native") / "mount"
        self.root.mkdir()
        run(["truncate", "-s", size, image])
        # Room for large attributes and long links.
        run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "1024", "-O", "ea_inode,^has_journal", "-E", "lazy_itable_init=1,nodiscard", image])
        try:
            run(["mount", "-o", f"loop,{OPTIONS}", image, self.root])
        except Failed as error:
            raise Skip(f"no loop device can be mounted here: {error}") from error
        (self.root / "lost+found").rmdir()
        lower, upper = tars
        self._unpack(lower)
        for name in ("gone", "d/gone"):
            (self.root / name).unlink()
        shutil.rmtree(self.root / "replaced")
        self._unpack(upper, "--exclude=.wh.*")
        run(["mount", "-o", f"remount,ro,{OPTIONS}", self.root])

    def _unpack(self, tar, *options):
        run(["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--overwrite", *options, "-C", self.root, "-xpf", tar])


class Image:
    """The image as others make it (`plain`) and converted by Headrace (`lazy`): OCI layouts; and the native tree."""

    def __init__(self, box, seed, more=None):
        """more: called with the lower tree before it is packed."""
        draw = random.Random(seed)
        work = box.path("image")
        lower, upper = work / "lower", work / "upper"
        make_tree(lower, draw)
        if more:
            more(lower)
        make_changes(upper, draw)
        self.tars = [work / "lower.tar", work / "upper.tar"]
        make_tar(lower, self.tars[0])
        make_tar(upper, self.tars[1], WHITEOUTS)
        shutil.rmtree(lower)
        shutil.rmtree(upper)
        self.plain, self.lazy = work / "plain", work / "lazy"
        write_layout(self.plain, self.tars)
        self.native = Native(box, self.tars)
