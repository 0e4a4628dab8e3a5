"""Nodes that are headrace-fused alone, and readers that take their time: what the tests of registries are made of."""

import hashlib
import json
import os
import random
import threading
import time
from pathlib import Path

from oci import sha256_file
from sandbox import BUILD, Daemon, Failed, answers, check, need_program, run


def fused_ctl(socket, *arguments, timeout=90):
    return json.loads(run([need_program(BUILD / "bin/fused-ctl", "fused-ctl"), "--socket", socket, *arguments], timeout=timeout))


def metrics(socket):
    return fused_ctl(socket, "status")["metrics"]


class Node:
    """headrace-fused with a root and a cache of its own. config: text of its headrace.toml; prefix: a command that runs it; env: added to the environment."""

    def __init__(self, box, name, config="", arguments=(), prefix=(), env=None):
        self.root = box.path(name)
        self.socket = self.root / "control.sock"
        self.mount_point = Path("/run") / name
        self.mount_point.mkdir(parents=True, exist_ok=True)
        text = self.root / "headrace.toml"
        text.write_text(config)
        fused = need_program(BUILD / "bin/headrace-fused", "headrace-fused")
        self.daemon = Daemon(box, name, [*prefix, fused, "--config", text, "--root", self.root / "fused", "--mountpoint", self.mount_point,
                                         "--control-socket", self.socket, *arguments], env)
        self.daemon.wait_until(lambda: answers(self.socket) and os.path.ismount(self.mount_point), "its mount and control socket")

    def mount(self, ref, layout, first_id=1):
        """The image's directory. layout: an OCI layout with the same image; its manifest is what containerd would have pulled."""
        return Path(fused_ctl(self.socket, "mount", "--ref", ref, "--layout", layout, "--first-id", first_id)["paths"][-1])

    def mount_fails(self, ref, layout, first_id=1):
        """Why."""
        try:
            self.mount(ref, layout, first_id)
        except Failed as error:
            return str(error)
        raise Failed(f"{ref} was mounted, and should not have been")

    def metrics(self):
        return metrics(self.socket)

    def log(self):
        return self.daemon.log.read_text(errors="replace")

    def stop(self):
        self.daemon.stop()


def make_files(directory, count, size, seed):
    """Files of random bytes, {name: sha256}."""
    directory.mkdir(parents=True)
    draw = random.Random(seed)
    sums = {}
    for number in range(count):
        name = f"part-{number:03}.bin"
        (directory / name).write_bytes(draw.randbytes(size))
        sums[name] = sha256_file(directory / name)
    return sums


def at_once(work, calls):
    """work(*call) for each of the calls, each on a thread of its own; the first failure is raised."""
    failures = []

    def one(call):
        try:
            work(*call)
        except Exception as error:  # noqa: BLE001: whatever it is, the test fails with it
            failures.append(error)
    threads = [threading.Thread(target=one, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class PacedReader(threading.Thread):
    """Reads one file after the other with a pause between two. `done`: how many so far; `error`: what went wrong; `longest`: the longest read."""

    def __init__(self, directory, sums, pause):
        super().__init__(daemon=True)
        self.directory, self.sums, self.pause = directory, sums, pause
        self.done, self.error, self.longest = 0, None, 0.0
        self.start()

    def run(self):
        for name, digest in sorted(self.sums.items()):
            begin = time.monotonic()
            try:
                bytes_read = (self.directory / name).read_bytes()
            except OSError as error:
                self.error = f"{self.directory / name}: {error.strerror}"
                return
            self.longest = max(self.longest, time.monotonic() - begin)
            if hashlib.sha256(bytes_read).hexdigest() != digest:
                self.error = f"{self.directory / name}: wrong bytes"
                return
            self.done += 1
            time.sleep(self.pause)

    def finish(self, timeout, what):
        self.join(timeout)
        check(self.error is None, f"{what}: {self.error}")
        check(not self.is_alive(), f"{what}: still reading after {timeout} s, {self.done} of {len(self.sums)} files")
        check(self.done == len(self.sums), f"{what}: {self.done} of {len(self.sums)} files were read")


def wait_for(condition, what, timeout=30):
    give_up = time.monotonic() + timeout
    while not condition():
        check(time.monotonic() < give_up, f"no sign of {what} after {timeout} s")
        time.sleep(0.02)
