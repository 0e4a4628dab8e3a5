"""A root file system as a value: every attribute and byte, to be compared with another one."""

import hashlib
import os
import stat

BLOCK = 1 << 20


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _xattrs(path):
    out = {}
    for name in os.listxattr(path, follow_symlinks=False):
        # What overlayfs keeps for itself.
        if not name.startswith("trusted.overlay."):
            out[name] = os.getxattr(path, name, follow_symlinks=False)
    return out


def dump(root):
    """{relative path (bytes): attributes}. Hard links of a file are told by the first of their names."""
    root = os.fsencode(root)
    found, first_names = {}, {}
    paths = [root]
    for directory, names, files in os.walk(root):
        paths += [os.path.join(directory, name) for name in names + files]
    for path in sorted(paths):
        info = os.lstat(path)
        relative = os.path.relpath(path, root)
        entry = {
            "type": stat.S_IFMT(info.st_mode), "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid,
            "mtime": info.st_mtime_ns, "xattrs": _xattrs(path),
        }
        if stat.S_ISREG(info.st_mode):
            entry["size"] = info.st_size
            entry["sha256"] = _sha256(path)
        if not stat.S_ISDIR(info.st_mode):
            entry["links"] = info.st_nlink
            entry["same file as"] = first_names.setdefault((info.st_dev, info.st_ino), relative)
        if stat.S_ISLNK(info.st_mode):
            entry["target"] = os.readlink(path)
        if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            entry["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
        found[relative] = entry
    return found


def differences(ours, theirs, ignore=frozenset()):
    """Lines that say what differs; `ignore`: (path, field) or (path, None) for the whole entry."""
    lines = []
    for path in sorted(set(ours) | set(theirs)):
        if (path, None) in ignore:
            continue
        if path not in ours or path not in theirs:
            lines.append(f"{path!r}: only in {'overlayfs' if path in theirs else 'Headrace'}")
            continue
        for field in sorted(set(ours[path]) | set(theirs[path])):
            a, b = ours[path].get(field), theirs[path].get(field)
            if a != b and (path, field) not in ignore:
                lines.append(f"{path!r}: {field}: {a!r} instead of {b!r}")
    return lines
