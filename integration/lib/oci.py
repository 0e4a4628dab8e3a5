"""Images made without any code of Headrace: what the tests compare Headrace with. Pushes over plain http."""

import hashlib
import http.client
import io
import json
import subprocess
import tarfile
from pathlib import Path

from sandbox import Failed, check

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
BLOCK = 4 << 20


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_sums(path):
    """{name: sha256} of a file in sha256sum's format."""
    sums = {}
    for line in Path(path).read_text().splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    return sums


def compare_with_sums(directory, sums, what):
    """Every file below `directory` is in `sums` with its content, and the other way round."""
    found = {str(path.relative_to(directory)): path for path in Path(directory).rglob("*") if path.is_file()}
    check(set(found) == set(sums), f"{what}: files {sorted(found)} instead of {sorted(sums)}")
    for name, path in found.items():
        check(sha256_file(path) == sums[name], f"{what}: {name} differs from the original")


class RegistryClient:
    """As much of the distribution API as a push and a check need."""

    def __init__(self, host):
        self.host = host

    def _request(self, method, path, body=None, headers=None, expect=(200,)):
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        content = response.read() if method != "HEAD" else b""
        connection.close()
        if response.status not in expect:
            raise Failed(f"{method} {self.host}{path}: {response.status} {content[:300]!r}")
        return response, content

    def get(self, path):
        return self._request("GET", path)[1]

    def raw_manifest(self, repository, reference):
        return self._request("GET", f"/v2/{repository}/manifests/{reference}", headers={
            "Accept": f"{MANIFEST}, application/vnd.oci.image.index.v1+json"})[1]

    def manifest(self, repository, reference):
        content = self.raw_manifest(repository, reference)
        return json.loads(content), "sha256:" + hashlib.sha256(content).hexdigest()

    def blob(self, repository, digest):
        return self._request("GET", f"/v2/{repository}/blobs/{digest}")[1]

    def download(self, repository, digest, path):
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        response = connection.getresponse()
        check(response.status == 200, f"GET {repository} {digest}: {response.status}")
        with open(path, "wb") as out:
            while block := response.read(BLOCK):
                out.write(block)
        connection.close()

    def push_blob(self, repository, digest, source):
        """`source`: bytes or a Path."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if self._request("HEAD", f"/v2/{repository}/blobs/{digest}", expect=(200, 404))[0].status == 200:
            return size
        response, _ = self._request("POST", f"/v2/{repository}/blobs/uploads/", body=b"", expect=(202,))
        location = response.getheader("Location").split(self.host, 1)[-1]
        body = source if isinstance(source, bytes) else open(source, "rb")
        try:
            self._request("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", body=body, expect=(201,),
                          headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)})
        finally:
            if not isinstance(source, bytes):
                body.close()
        return size

    def push_manifest(self, repository, tag, manifest):
        self.push_bytes(repository, tag, json.dumps(manifest).encode(), MANIFEST)

    def push_bytes(self, repository, reference, document, media_type):
        """A manifest or index as it stands: its digest stays."""
        self._request("PUT", f"/v2/{repository}/manifests/{reference}", body=document,
                      headers={"Content-Type": media_type}, expect=(201,))


def tar_of_directory(source, prefix, target):
    """An ordinary tar of a directory, owned by root, as any builder would make it."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        def owner(info):
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            return info
        for path in sorted(Path(source).rglob("*")):
            tar.add(path, arcname=str(Path(prefix.strip("/")) / path.relative_to(source)), recursive=False, filter=owner)


def push_image(registry, repository, tag, layers, work, entrypoint=(), compression="zstd"):
    """Makes an image of `layers` = [(directory, prefix)] with ordinary tools and pushes it. Returns its manifest."""
    client = RegistryClient(registry)
    descriptors, diff_ids = [], []
    for number, (directory, prefix) in enumerate(layers):
        tar = Path(work) / f"layer{number}.tar"
        tar_of_directory(directory, prefix, tar)
        diff_ids.append("sha256:" + sha256_file(tar))
        media_type, blob = LAYER, tar
        if compression == "zstd":
            blob = tar.with_suffix(".tar.zst")
            subprocess.run(["zstd", "-q", "-1", "-f", str(tar), "-o", str(blob)], check=True)
            media_type += "+zstd"
        elif compression == "gzip":
            blob = tar.with_suffix(".tar.gz")
            with open(blob, "wb") as out:
                subprocess.run(["gzip", "-1", "-c", str(tar)], check=True, stdout=out)
            media_type += "+gzip"
        digest = "sha256:" + sha256_file(blob)
        descriptors.append({"mediaType": media_type, "digest": digest, "size": client.push_blob(repository, digest, blob)})
        tar.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
    return push_config_and_manifest(client, repository, tag, descriptors, diff_ids, entrypoint)


def push_mixed(client, repository, tag, *parts, entrypoint=(), settings=None):
    """An image whose layers are those of others: parts = (repository, manifest, layer numbers or None for all)."""
    descriptors, diff_ids = [], []
    for source, manifest, numbers in parts:
        config = json.loads(client.blob(source, manifest["config"]["digest"]))
        for number in range(len(manifest["layers"])) if numbers is None else numbers:
            layer = manifest["layers"][number]
            client.push_blob(repository, layer["digest"], client.blob(source, layer["digest"]))
            descriptors.append(layer)
            diff_ids.append(config["rootfs"]["diff_ids"][number])
    return push_config_and_manifest(client, repository, tag, descriptors, diff_ids, entrypoint, settings)


def push_config_and_manifest(client, repository, tag, descriptors, diff_ids, entrypoint, settings=None):
    """settings: more of the image's configuration, {"User": ...}."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
                         "config": {"Entrypoint": list(entrypoint), **(settings or {})}}).encode()
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    client.push_blob(repository, digest, config)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
                "config": {"mediaType": CONFIG, "digest": digest, "size": len(config)}}
    client.push_manifest(repository, tag, manifest)
    return manifest


def tar_contents(data):
    """{name: (type, size, sha256)} of a tar given as bytes or a file object."""
    out = {}
    with tarfile.open(fileobj=io.BytesIO(data) if isinstance(data, bytes) else data, mode="r|") as tar:
        for info in tar:
            digest = ""
            if info.isreg():
                sha = hashlib.sha256()
                file = tar.extractfile(info)
                while block := file.read(BLOCK):
                    sha.update(block)
                digest = sha.hexdigest()
            out[info.name.rstrip("/")] = (info.type, info.size, digest)
    return out
