"""fio writes a file with verify headers on a native file system, and reads it back from elsewhere: each block says where it belongs and what its checksum is."""

import json
import os
import shutil
from pathlib import Path

from sandbox import Failed, check, run, say

MIB = 1 << 20
SIZE = 12 * MIB
HEADER_EVERY = 4096
# (engine, further options). Each in order and at random, by two jobs at once that share nothing.
ENGINES = (("psync", ()), ("mmap", ()), ("libaio", ("--direct=1", "--iodepth=16")), ("io_uring", ("--direct=1", "--iodepth=16")), ("io_uring", ("--iodepth=8",)))


def _fio(*options, timeout=120):
    return run(["fio", "--output-format=json", "--verify=crc32c", "--verify_state_save=0", f"--verify_interval={HEADER_EVERY}", f"--size={SIZE}", *options], timeout=timeout)


def available():
    return shutil.which("fio") is not None


def write(path):
    """With blocks whose content differs in every one."""
    _fio("--name=write", f"--filename={path}", "--rw=write", "--bs=64k", "--do_verify=0", "--ioengine=psync", "--end_fsync=1", "--refill_buffers=1", "--randseed=17")


def read(path, engine, options, pattern):
    """Bytes read; Failed if a block is wrong."""
    size = "64k" if pattern == "read" else "4k"
    output = _fio("--name=read", f"--filename={path}", f"--rw={pattern}", f"--bs={size}", f"--ioengine={engine}", "--numjobs=2", "--group_reporting",
                  "--verify_fatal=1", "--allow_file_create=0", "--readonly", *options)
    job = json.loads(output[output.index("{"):])["jobs"][0]
    check(job["error"] == 0, f"fio {engine} {pattern}: error {job['error']}")
    return job["read"]["io_bytes"]


def read_by_all(path, what):
    done = []
    for engine, options in ENGINES:
        for pattern in ("read", "randread"):
            moved = read(path, engine, options, pattern)
            check(moved == 2 * SIZE, f"fio {engine} {pattern} read {moved} bytes")
            done.append(f"{engine}{' direct' if '--direct=1' in options else ''} {pattern}")
    say(f"{what}: fio finds every header right ({', '.join(done)})")


def notices(path, work):
    """A copy with one wrong byte in the middle of a block, and one with two blocks exchanged, are noticed."""
    data = bytearray(Path(path).read_bytes())
    flipped = bytearray(data)
    flipped[SIZE // 2 + 1000] ^= 1
    exchanged = bytearray(data)
    exchanged[0:HEADER_EVERY], exchanged[HEADER_EVERY:2 * HEADER_EVERY] = data[HEADER_EVERY:2 * HEADER_EVERY], data[0:HEADER_EVERY]
    for name, content in (("flipped", flipped), ("exchanged", exchanged)):
        wrong = work / name
        wrong.write_bytes(content)
        try:
            read(wrong, "psync", (), "read")
        except Failed:
            os.unlink(wrong)
            continue
        raise Failed(f"fio does not notice a file with {name} bytes")
