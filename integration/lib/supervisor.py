"""A stand-in for the service manager: starts a program again when it dies, hears its notifications, and keeps what it stores (sd_notify(3), FDSTORE)."""

import fcntl
import os
import socket
import subprocess
import threading
import time

from sandbox import Failed

# sd_listen_fds(3) wants descriptors from 3 on and the variable of the very process. "$1" says how many there are; they are 10 or higher.
_PASS = 'n=$1; shift; for ((i = 3; i < 3 + n; i++)); do eval "exec $i<&$1 $1<&-"; shift; done; LISTEN_PID=$$ exec "$@"'
RESTART_PAUSE = 0.1  # as RestartSec= of the unit


class Supervisor:
    """One service. keeps: it has a descriptor store; listen: {name: descriptor} of sockets that are listened on for it (10 or higher);
    notify: where its notification socket goes.
    Attributes: starts, kills, deaths (that nobody here ordered)."""

    def __init__(self, box, name, argv, keeps=True, listen=None, notify=None):
        self.name, self.argv, self.keeps = name, [str(word) for word in argv], keeps
        self.listen = listen or {}
        self.log = box.logs / f"{name}.log"
        self.stored = {}
        self.starts = self.kills = self.deaths = 0
        self._ordered = False
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stopping = False
        path = (notify or box.directory) / f"{name}.notify"
        path.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(path))
        self._env = {**os.environ, "NOTIFY_SOCKET": str(path)}
        threading.Thread(target=self._listen, daemon=True).start()
        self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _start(self):
        self._ready.clear()
        argv, env, fds = self.argv, dict(self._env), ()
        stored = sorted(self.listen.items()) + sorted(self.stored.items())
        if stored:
            fds = tuple(fd for _, fd in stored)
            env.update(LISTEN_FDS=str(len(stored)), LISTEN_FDNAMES=":".join(name for name, _ in stored))
            argv = ["bash", "-c", _PASS, "bash", str(len(fds)), *map(str, fds), *argv]
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, pass_fds=fds)
        self.starts += 1

    def _listen(self):
        while True:
            message, fds, _, _ = socket.recv_fds(self._notify, 4096, 8)
            fields = dict(line.split("=", 1) for line in message.decode().splitlines() if "=" in line)
            if "FDSTOREREMOVE" in fields:
                old = self.stored.pop(fields.get("FDNAME"), None)
                if old is not None:
                    os.close(old)
            elif "FDSTORE" in fields and self.keeps and len(fds) == 1:
                self.stored[fields["FDNAME"]] = fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, 10)
            elif fields.get("READY") == "1":
                self._ready.set()
            for fd in fds:
                os.close(fd)

    def _watch(self):
        while True:
            self.process.wait()
            with self._lock:
                if self._stopping:
                    return
                if not self._ordered:
                    self.deaths += 1
                self._ordered = False
            time.sleep(RESTART_PAUSE)
            with self._lock:
                if self._stopping:
                    return
                self._start()

    def kill(self):
        """SIGKILL. The time at which it was sent (monotonic)."""
        with self._lock:
            self._ordered = True
            self.kills += 1
            now = time.monotonic()
            self.process.kill()
        return now

    def restart(self, timeout=60):
        """SIGTERM; ready again when it returns."""
        with self._lock:
            self._ordered = True
            self._ready.clear()
            self.process.terminate()
        self.wait_ready(timeout)

    def wait_ready(self, timeout=30):
        if not self._ready.wait(timeout):
            raise Failed(f"{self.name} was not ready within {timeout} s\n{self.tail()}")

    def tail(self, lines=20):
        text = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return f"--- {self.log.name}\n" + "\n".join("    " + line[:400] for line in text)

    def stop(self, timeout=20):
        with self._lock:
            self._stopping = True
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed(f"{self.name} did not end within {timeout} s of SIGTERM\n{self.tail()}") from None
