"""What fs-cases is told by Headrace's mount and not by a native file system (ext4), and why that is right. fusefs/vfs/README.md says the same to users."""

import re

O_DIRECT = 0o40000

# Regular expressions: the case, what Headrace says, what ext4 says.
DIFFERENCES = (
    # No flags, versions, extents, nor a device below: as erofs and squashfs. chattr, lsattr and filefrag say that they have nothing to do here.
    (r"FS_IOC_(GETFLAGS|FSGETXATTR|GETVERSION) .*", "ENOTTY", "0"),
    (r"FS_IOC_FIEMAP .*", "EOPNOTSUPP", "0"),
    (r"FITRIM .*", "ENOTTY", "0|EPERM"),
    # Directories have no data; ext4 takes an offset behind the end of a directory for one of its hashes.
    (r"lseek data behind \(open 0\) .*", "ENXIO", str(1 << 40)),
    (r"lseek hole behind \(open 0\) .*", "ENXIO", str((1 << 63) - 1)),
    # FUSE has the names of trusted.* from the server for everybody (on ext4: for whoever has CAP_SYS_ADMIN). Their values stay where they are.
    (r"listxattr xattrs/file", "279", "266"),
    # Direct reads need not be aligned: there is no device that wants it.
    (rf"(read|read into nowhere|sendfile to /dev/null) \(open {O_DIRECT}\) .*", r"\d+|EFAULT", "EINVAL"),
)


def accepted(what, ours, native):
    return any(re.fullmatch(case, what) and re.fullmatch(mine, ours) and re.fullmatch(theirs, native) for case, mine, theirs in DIFFERENCES)
