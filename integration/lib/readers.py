"""Programs that read one file, each in a process of its own: a page fault that waits stops all of Python, and SIGBUS ends it."""

import signal
import subprocess
import sys

from sandbox import Failed, check

EIO_CODE, SIGBUS = 5, -signal.SIGBUS

READER = """
import hashlib, mmap, os, sys
how, path = sys.argv[1:]
try:
    fd = os.open(path, os.O_RDONLY)
    print("open", flush=True)
    if how == "mmap":
        text = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        digest = hashlib.sha256(text).hexdigest()
    else:
        with open(fd, "rb") as file:
            text = file.read()
            digest = hashlib.sha256(text).hexdigest()
except OSError as error:
    print(error.strerror, flush=True)
    os._exit(error.errno)
print(digest, len(text), flush=True)
"""


class Reading:
    """One column of one fault: `file` of a mounted image is read."""

    def __init__(self, how, path, digest):
        self.how, self.path, self.digest = how, path, digest
        self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", READER, how, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
        self.opened = self.process.stdout.readline().decode().strip()  # unbuffered: the rest is for communicate()

    def waits(self):
        return self.process.poll() is None

    def end(self, timeout=60):
        """(exit code, what was printed last)."""
        try:
            out, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed(f"{self.how} of {self.path} still waits after {timeout} s") from None
        return self.process.returncode, out.decode().strip()

    def right(self, what):
        code, said = self.end()
        check(code == 0 and said.split()[:1] == [self.digest], f"{what}, {self.how}: exit code {code}, {'wrong bytes: ' if code == 0 else ''}{said}")
