"""Faults planted in the reference: fs-stress and fs-cases must notice each of them, or they look at nothing."""

import os
import shutil

from sandbox import TOOLS, Failed, check, run, say


def _byte(root):
    path = root / "file"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _shorter(root):
    path = root / "file"
    status = path.stat()
    os.truncate(path, status.st_size - 1)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _time(root):
    status = (root / "file").stat()
    os.utime(root / "file", ns=(0, status.st_mtime_ns + 1))


def _mode(root):
    os.chmod(root / "file", 0o640)


def _owner(root):
    os.chown(root / "file", 1, 0)


def _xattr(root):
    os.setxattr(root / "file", "user.note", b"other value")


def _xattr_name(root):
    os.setxattr(root / "file", "user.one-more", b"")


def _target(root):
    (root / "link").unlink()
    os.symlink("elif", root / "link")


def _type(root):
    (root / "link").unlink()
    (root / "link").write_bytes(b"file")


def _name(root):
    status = root.stat()
    (root / "one-more").touch()
    os.utime(root, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _link(root):
    os.link(root / "file", root.parent / "elsewhere")


FAULTS = (_byte, _shorter, _time, _mode, _owner, _xattr, _xattr_name, _target, _type, _name, _link)


def make_small(root):
    """A tree of few files, so that a fault in it is met at once; part of the image."""
    root.mkdir()
    (root / "file").write_bytes(os.urandom(5000))
    os.setxattr(root / "file", "user.note", b"a value")
    os.symlink("file", root / "link")
    os.symlink("file", root / "other-link")
    os.utime(root / "file", ns=(0, 1_600_000_000_000_000_000))
    os.utime(root, ns=(0, 1_600_000_000_000_000_000))


def all_noticed(ours, native, work, seed):
    """ours, native: the small tree by Headrace and natively."""
    for fault in FAULTS:
        copy = work / fault.__name__ / "small"
        copy.parent.mkdir()
        run(["cp", "-a", native, copy])
        fault(copy)
        try:
            run([TOOLS / "fs-stress", ours, copy, "--seconds", "20", "--seed", seed, "--threads", "1", "--processes", "2"], timeout=60)
        except Failed as error:
            check("DIFFERENCE" in str(error), f"fs-stress failed for another reason than a planted fault: {error}")
            continue
        finally:
            shutil.rmtree(copy.parent)
        raise Failed(f"fs-stress does not notice the planted fault {fault.__name__}")
    say(f"{len(FAULTS)} faults planted in the reference: each was noticed")
