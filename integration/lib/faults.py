"""A registry that lies and fails: it serves OCI layouts over plain http, and layer blobs as wrongly as it is told, for each repository by itself."""

import hashlib
import json
import re
import socket
import struct
import threading

from oci import MANIFEST
from servers import QuietHandler, Server

# What a fault does to a GET of (a range of) a layer blob.
KINDS = ("reset", "truncate", "stall", "silent", "drip", "429", "503", "wrong-range", "short-range", "200-for-206", "wrong-bytes", "changed-blob", "gone",
         "closed")
# Not in KINDS: "no-tail" sends everything but the end of the blob, TAIL_BYTES: what lies before comes, the last chunk never does.
TAIL_BYTES = 128 << 10
# Those that go on and on but end by themselves: nothing needs to heal.
SLOW = ("drip",)


class Repository:
    """What is served under one name. fault: a kind, or None; times: for so many answers only (-1: until it is healed)."""

    def __init__(self, layout):
        self.lock = threading.Lock()
        self.healed = threading.Event()
        self.fault, self.times, self.acted, self.served = None, -1, 0, 0
        index = json.loads((layout / "index.json").read_text())
        self.blobs = layout / "blobs/sha256"
        self.manifest_digest = index["manifests"][0]["digest"]
        manifest = json.loads(self.blob(self.manifest_digest))
        self.layers = {layer["digest"] for layer in manifest["layers"]}

    def blob(self, digest):
        return (self.blobs / digest.removeprefix("sha256:")).read_bytes()

    def part(self, digest, begin, end):
        with open(self.blobs / digest.removeprefix("sha256:"), "rb") as blob:
            blob.seek(begin)
            return blob.read(end - begin)

    def size(self, digest):
        return (self.blobs / digest.removeprefix("sha256:")).stat().st_size

    def start(self, kind, times=-1):
        with self.lock:
            self.healed.clear()
            self.fault, self.times, self.acted = kind, times, 0

    def heal(self):
        with self.lock:
            self.fault = None
        self.healed.set()

    def take(self):
        """The fault of this answer."""
        with self.lock:
            if self.fault is None or self.times == 0:
                self.served += 1
                return None
            self.times -= 1
            self.acted += 1
            return self.fault


class FaultServer:
    """http://host/v2/... of `repositories` = {name: Repository}. connections: of more at a time the rest is closed at once (None: no limit)."""

    def __init__(self, host, connections=None):
        self.host = host
        self.repositories = {}
        self.limit = threading.Semaphore(connections) if connections else None
        self.turned_away = 0
        self.server = Server(host, self._handler())

    def add(self, name, layout):
        self.repositories[name] = Repository(layout)
        return self.repositories[name]

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def open(self):
        """After close."""
        self.server = Server(self.host, self._handler())

    def _handler(outer):
        class Handler(QuietHandler):
            wbufsize = 0

            def handle(self):
                if outer.limit is None:
                    return super().handle()
                if not outer.limit.acquire(blocking=False):
                    outer.turned_away += 1
                    return self.break_off(reset=True)
                try:
                    super().handle()
                finally:
                    outer.limit.release()

            def do_GET(self):
                found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/?]+)(\?.*)?", self.path)
                repository = outer.repositories.get(found.group(1)) if found else None
                if self.path == "/v2/":
                    return self.answer(200, b"{}")
                if repository is None:
                    return self.answer(404, b"{}")
                digest = found.group(3)
                if found.group(2) == "manifests":
                    body = repository.blob(repository.manifest_digest)
                    return self.send(200, body, {"Content-Type": MANIFEST, "Docker-Content-Digest": repository.manifest_digest})
                if not (repository.blobs / digest.removeprefix("sha256:")).exists():
                    return self.answer(404, b"{}")
                fault = repository.take() if digest in repository.layers and self.command == "GET" else None
                self.serve_blob(repository, digest, fault)

            do_HEAD = do_GET

            def serve_blob(self, repository, digest, fault):
                size = repository.size(digest)
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
                begin, end = (int(asked.group(1)), int(asked.group(2) or size - 1) + 1) if asked else (0, size)
                if fault == "200-for-206":
                    begin, end, asked = 0, size, None
                if fault == "wrong-range":
                    begin, end = begin - 1 if begin else 1, end - 1 if begin else end + 1
                if fault == "short-range":
                    end -= 1
                if fault == "changed-blob":  # what is there now is something else, of the same size
                    body = hashlib.shake_128(digest.encode()).digest(size)[begin:end]
                else:
                    body = repository.part(digest, begin, end)
                if fault == "wrong-bytes":
                    body = body[:-1] + bytes([body[-1] ^ 1])
                if fault == "no-tail" and end <= size - TAIL_BYTES:
                    fault = None
                if fault == "429":
                    return self.answer(429, b"{}", Retry_After="1")
                if fault == "503":
                    return self.answer(503, b"{}")
                if fault == "gone":
                    return self.answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
                if fault == "closed":
                    return self.break_off(reset=False)
                if fault == "silent":
                    repository.healed.wait(120)
                    return self.break_off(reset=True)
                head = {"Content-Type": "application/octet-stream"}
                if asked:
                    head["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
                if fault == "no-tail":
                    return self.send(206, body, head, fault, sent=max(0, size - TAIL_BYTES - begin))
                self.send(206 if asked else 200, body, head, fault, repository)

            def send(self, status, body, head, fault=None, repository=None, sent=0):
                self.send_response(status)
                for name, value in {**head, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                half = len(body) // 2
                if fault in ("reset", "truncate"):
                    self.wfile.write(body[:half])
                    return self.break_off(reset=fault == "reset")
                if fault == "stall":
                    self.wfile.write(body[:half])
                    repository.healed.wait(120)
                    return self.break_off(reset=True)
                if fault == "no-tail":
                    self.wfile.write(body[:sent])
                    return self.break_off(reset=False)
                if fault == "drip":
                    step = max(len(body) // 40, 2048)
                    for at in range(0, len(body), step):
                        self.wfile.write(body[at:at + step])
                        threading.Event().wait(0.05)
                    return
                self.wfile.write(body)

            def break_off(self, reset):
                self.close_connection = True
                if reset:  # no bytes to linger for: RST when the handler ends
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return Handler
