"""A private sandbox for everything that the demo and the integration tests run.

`main(body)` runs `body(box)` as process 1 of fresh mount, pid, network and ipc namespaces, with a private /run and only a
loopback interface. When the body ends, is interrupted or is killed, the kernel ends every process and mount in there; the
outer process then removes the temporary directory and the cgroups. So nothing is left behind, however it ends.

Exit codes: 0 passed, 77 skipped (said aloud), 130 interrupted, 1 failed.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPS = Path(os.environ.get("HEADRACE_DEPS") or "/var/cache/headrace-deps")
BUILD = Path(os.environ.get("HEADRACE_BUILD") or ROOT / "build/release").resolve()
TOOLS = BUILD / "integration"
CGROUPS = Path("/sys/fs/cgroup")
PREFIX = "headrace."
SKIPPED = 77

_started = time.monotonic()
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Skip(Exception):
    """The machine lacks what a test needs."""


class Failed(Exception):
    """A check did not hold; the message says what."""


def say(text):
    print(f"[{time.monotonic() - _started:7.2f} s] {text}", flush=True)


def check(condition, text):
    if not condition:
        raise Failed(text)


def run(argv, timeout=600, quiet=True, **kwargs):
    """Runs a command and returns its standard output; Failed with its standard error if it fails."""
    argv = [str(word) for word in argv]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout, text=True, errors="replace", **kwargs)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(argv)}: still running after {timeout} s") from error
    except OSError as error:
        raise Failed(f"{argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        detail = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise Failed(f"{' '.join(argv)}: exit code {done.returncode}\n{detail}")
    if not quiet:
        print(done.stdout, end="", flush=True)
    return done.stdout


def answers(path):
    """Somebody listens at the unix socket: a file of that name may be what a process that was killed has left."""
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(str(path))
        except OSError:
            return False
    return True


class Daemon:
    """One background process with its log. It dies with the sandbox at the latest."""

    def __init__(self, box, name, argv, env=None):
        self.name = name
        self.log = box.logs / f"{name}.log"
        box.daemons.append(self)
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env={**os.environ, **(env or {})})

    def wait_until(self, condition, what, timeout=30):
        give_up = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode} before {what}\n{self.tail()}")
            if time.monotonic() > give_up:
                raise Failed(f"{self.name}: no sign of {what} after {timeout} s\n{self.tail()}")
            time.sleep(0.02)

    def tail(self, lines=20):
        try:
            text = self.log.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            text = []
        return f"--- {self.log.name}\n" + "\n".join("    " + line[:400] for line in text)

    def stop(self, timeout=20):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise Failed(f"{self.name} did not end within {timeout} s of SIGTERM\n{self.tail()}") from None
        return self.process.returncode


class Box:
    """What the body gets: its directory, log directory, cgroup and the daemons started so far."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.logs = self.directory / "logs"
        self.logs.mkdir(exist_ok=True)
        self.cgroup = "/" + self.directory.name
        self.daemons = []

    def path(self, name):
        target = self.directory / name
        target.mkdir(parents=True, exist_ok=True)
        return target

    @staticmethod
    def received_bytes():
        """Bytes that came in over the sandbox's only interface so far."""
        for line in Path("/proc/net/dev").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == "lo":
                return int(rest.split()[0])
        raise Failed("no loopback interface")

    def show_logs(self):
        for daemon in self.daemons:
            # The registry logs every HEAD request for a blob that is yet to come as an error.
            print(daemon.tail(6 if daemon.name == "registry" else 25), file=sys.stderr, flush=True)


def need_program(path, what):
    """A program that must be there: of this build (Failed if not), or one that integration/setup provides (Skip if not)."""
    path = Path(path)
    if not path.exists():
        if path.is_relative_to(BUILD):
            raise Failed(f"{what} is not built: {path} is missing")
        raise Skip(f"{what} is not here ({path}); integration/setup provides it")
    return path


def _inside(body, directory):
    """Process 1 of the namespaces."""
    def interrupted(number, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupted)
    run(["ip", "link", "set", "lo", "up"])
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "headrace-run", "/run"])
    box = Box(directory)
    try:
        body(box)
        return 0
    except Skip as reason:
        print(f"SKIPPED: {reason}", flush=True)
        return SKIPPED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
    except Exception:  # a mistake in a test must show the logs as well
        traceback.print_exc()
    box.show_logs()
    return 1


def _remove_cgroups(name):
    """Removes the cgroups below our own parent in every hierarchy, version 1 and unified."""
    if not CGROUPS.is_dir():
        return
    parents = [CGROUPS / name] + [entry / name for entry in CGROUPS.iterdir() if entry.is_dir()]
    give_up = time.monotonic() + 10
    for parent in parents:
        while parent.is_dir():
            try:
                for directory, _, _ in os.walk(parent, topdown=False):
                    os.rmdir(directory)
            except OSError as error:
                if time.monotonic() > give_up:
                    print(f"cannot remove cgroup {parent}: {error.strerror}", file=sys.stderr)
                    break
                time.sleep(0.05)


def _remove_directory(directory):
    for _ in range(3):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.2)
    print(f"cannot remove {directory}", file=sys.stderr)


def _sweep(base):
    """Removes what runs left behind whose outer process was killed with SIGKILL."""
    for directory in base.glob(PREFIX + "*"):
        try:
            with open(directory / "lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_cgroups(directory.name)
                _remove_directory(directory)
        except OSError:
            continue


def _child_setup():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _reap_all():
    """Waits for every process that was in the sandbox: orphans come to us, the subreaper."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            return


def _outside():
    base = Path(os.environ.get("HEADRACE_TMP") or "/var/tmp")
    _sweep(base)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    lock = open(directory / "lock", "wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    received = []
    child = None

    def on_signal(number, frame):
        received.append(number)
        if child is not None:
            child.kill()  # the namespaces end with it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        child = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc",
             sys.executable, *sys.argv],
            env={**os.environ, "HEADRACE_SANDBOX": str(directory)}, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=_child_setup)
        if received:
            child.kill()
        code = child.wait()
        _reap_all()
    finally:
        if os.environ.get("HEADRACE_KEEP_LOGS"):
            shutil.copytree(directory / "logs", os.environ["HEADRACE_KEEP_LOGS"], dirs_exist_ok=True)
        _remove_cgroups(directory.name)
        _remove_directory(directory)
    if received:
        print("interrupted; everything was cleared away", file=sys.stderr)
        return 128 + received[0]
    return code if code >= 0 else 1


def main(body):
    """Runs body(box) in a sandbox and ends the program with its exit code."""
    if os.geteuid() != 0:
        sys.exit("this needs root: it makes namespaces, mounts and containers")
    inside = os.environ.pop("HEADRACE_SANDBOX", None)
    sys.exit(_inside(body, inside) if inside else _outside())
