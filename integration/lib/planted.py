"""Planted secrets: they are written where they belong, and looked for everywhere else."""

import base64
import os
import threading
from pathlib import Path

from sandbox import BUILD, check, need_program, run, say


def forms(*users_and_passwords):
    """What a leak of (user, password) pairs may look like."""
    return [form for user, password in users_and_passwords
            for form in (password.encode(), base64.b64encode(f"{user}:{password}".encode()))]


def write_secret(path, text):
    """Replaces the file in one step; only its owner can read it."""
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    fresh.rename(path)
    return path


class Watcher(threading.Thread):
    """Looks at the arguments and the environment of every process, all the time."""

    def __init__(self, secrets):
        super().__init__(daemon=True)
        self.secrets = secrets
        self.found = set()
        self.looks = 0
        self.stop = threading.Event()
        self.start()

    def run(self):
        while not self.stop.wait(0.01):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        text = (process / name).read_bytes()
                    except OSError:
                        continue
                    if any(secret in text for secret in self.secrets):
                        self.found.add(f"{name} of {text.split(bytes(1))[0].decode(errors='replace')}")


def holds_secret(path, secrets):
    overlap = max(map(len, secrets)) - 1
    try:
        with open(path, "rb") as file:
            tail = b""
            while block := file.read(4 << 20):
                if any(secret in tail + block for secret in secrets):
                    return True
                tail = block[-overlap:]
    except OSError:
        pass
    return False


def look_for_secrets(box, watcher, roots, sockets, known, skip, more=()):
    """No secret (of the watcher, and `more`) in arguments or environments of processes, in the status and metrics behind `sockets`, in logs, in any file
    below `roots` (ours), nor in any that others can read. known: a file that has one, to see that the search works; skip: directories that are noise."""
    watcher.stop.set()
    watcher.join()
    secrets = [*watcher.secrets, *more]
    check(watcher.looks > 100, f"processes were looked at {watcher.looks} times only")
    check(not watcher.found, f"a secret is in {sorted(watcher.found)}")
    for socket in sockets:
        status = run([need_program(BUILD / "bin/fused-ctl", "fused-ctl"), "--socket", socket, "status"])
        check(not any(secret.decode() in status for secret in secrets), "a secret is in the status or the metrics")
    check(holds_secret(known, secrets), "the search does not find what is there")
    looked = 0
    for top in (box.directory, Path("/run")):
        for directory, names, files in os.walk(top):
            directory = Path(directory)
            # Mounts of model files are read elsewhere.
            names[:] = [name for name in names if not os.path.ismount(directory / name) and (directory / name) not in skip]
            for path in (directory / name for name in files):
                if not path.is_file() or path.is_symlink():
                    continue
                ours = any(root in path.parents for root in roots)
                readable = path.stat().st_mode & 0o066
                if (ours or readable or box.logs in path.parents) and path.stat().st_size < 1 << 30:
                    looked += 1
                    check(not holds_secret(path, secrets), f"a secret is in {path}")
    say(f"no secret in {looked} files, the metrics, and {watcher.looks} looks at all processes")
