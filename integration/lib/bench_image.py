"""OCI layouts that the suites need and `headrace` does not make: ordinary images, and one that claims to hold a TiB."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from oci import CONFIG, LAYER, MANIFEST, sha256_file
from sandbox import check

CHUNK = 4 << 20
CHUNK_STORED = 3_300_000  # what a chunk of BF16 weights takes


def _write_blob(layout, content):
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    return "sha256:" + digest


def write_layout(layout, layers, diff_ids, tag="1"):
    """Config, manifest and index around layer descriptors whose blobs are there already."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers, "config": {
        "mediaType": CONFIG, "digest": _write_blob(layout, config), "size": len(config)}}).encode()
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": MANIFEST, "digest": _write_blob(layout, manifest), "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": tag}}]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def layout_of_tar(layout, tar):
    """An ordinary image with one uncompressed layer, the tar itself."""
    (layout / "blobs/sha256").mkdir(parents=True)
    digest = sha256_file(tar)
    os.link(tar, layout / "blobs/sha256" / digest)
    write_layout(layout, [{"mediaType": LAYER, "digest": f"sha256:{digest}", "size": tar.stat().st_size}], [f"sha256:{digest}"])


def layout_of_model(layout, directory, work, compression):
    """An ordinary image of a model: a layer for each shard and one for the small files; compression: "gzip", "zstd" or "none"."""
    (layout / "blobs/sha256").mkdir(parents=True)
    small = [path for path in sorted(directory.iterdir()) if path.suffix != ".safetensors"]
    groups = [small, *([path] for path in sorted(directory.glob("*.safetensors")))]

    def one(number):
        tar = work / f"layer{number}.tar"
        files = groups[number]
        with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
            for path in files:
                info = out.gettarinfo(path, arcname=f"models/{path.name}")
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                with open(path, "rb") as content:
                    out.addfile(info, content)
        diff_id, media_type = "sha256:" + sha256_file(tar), LAYER
        if compression == "gzip":
            subprocess.run(["gzip", "-1", "-f", tar], check=True)
            tar, media_type = Path(f"{tar}.gz"), LAYER + "+gzip"
        if compression == "zstd":
            subprocess.run(["zstd", "-q", "-3", "--rm", "-f", tar], check=True)
            tar, media_type = Path(f"{tar}.zst"), LAYER + "+zstd"
        digest = sha256_file(tar)
        size = tar.stat().st_size
        shutil.move(tar, layout / "blobs/sha256" / digest)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}, diff_id
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(one, range(len(groups))))
    write_layout(layout, [descriptor for descriptor, _ in made], [diff_id for _, diff_id in made])


def read_any_layers(layout):
    """[{"digest","size","data"}] of a layout's only image, whatever made it; `data`: all bytes of the blob."""
    index = json.loads((layout / "index.json").read_text())
    while "layers" not in index:
        digest = index["manifests"][0]["digest"].removeprefix("sha256:")
        index = json.loads((layout / "blobs/sha256" / digest).read_text())
    return [{"digest": layer["digest"], "size": layer["size"], "data": layer["size"]} for layer in index["layers"]]


def push_layout(client, layout, repository, tag="1"):
    """Pushes what the only entry of an OCI layout's index leads to: an image, or an index of several."""
    def path(digest):
        return layout / "blobs/sha256" / digest.removeprefix("sha256:")

    def push(descriptor, name):
        document = json.loads(path(descriptor["digest"]).read_text())
        for child in document.get("manifests", ()):
            push(child, child["digest"])
        for blob in [*filter(None, [document.get("config")]), *document.get("layers", ())]:
            client.push_blob(repository, blob["digest"], path(blob["digest"]))
        client.push_bytes(repository, name, path(descriptor["digest"]).read_bytes(), document["mediaType"])
    index = json.loads((layout / "index.json").read_text())
    check(len(index["manifests"]) == 1, f"{layout} has {len(index['manifests'])} images")
    push(index["manifests"][0], tag)


def _table_of_contents(name, size, noise):
    """A file of `size` bytes in stored chunks of CHUNK_STORED, with digests of nothing: nobody will read it."""
    def digest():
        return f"sha256:{noise.randbytes(32).hex()}"
    entries = [{"type": "dir", "name": "models/", "mode": 0o755, "modtime": "1970-01-01T00:00:00Z"}]
    offset = 1000
    end = offset + -(-size // CHUNK) * CHUNK_STORED
    for at in range(0, size, CHUNK):
        entry = {"type": "chunk", "name": f"models/{name}"}
        if at == 0:
            entry = {"type": "reg", "name": f"models/{name}", "mode": 0o644, "size": size, "modtime": "1970-01-01T00:00:00Z",
                     "digest": digest(), "offset": offset, "endOffset": end}
        else:
            entry.update({"offset": offset, "endOffset": offset + CHUNK_STORED, "chunkOffset": at})
        entries.append({**entry, "chunkSize": min(CHUNK, size - at), "chunkDigest": digest()})
        offset += CHUNK_STORED
    return json.dumps({"version": 1, "entries": entries}, separators=(",", ":")).encode(), end


def layout_of_a_tib(layout, total, layers):
    """`layers` files of together `total` bytes (less what is no whole chunk), a layer each, as `headrace build` lays out a
    large model. Blobs are sparse."""
    (layout / "blobs/sha256").mkdir(parents=True)
    noise = random.Random(1)
    descriptors, diff_ids = [], []
    for number in range(layers):
        name = f"model-{number + 1:05}-of-{layers:05}.safetensors"
        text, end = _table_of_contents(name, total // layers // CHUNK * CHUNK, noise)
        packed = subprocess.run(["zstd", "-q", "-3", "-c"], input=text, stdout=subprocess.PIPE, check=True).stdout
        digest, offset = noise.randbytes(32).hex(), end + 8
        size = offset + len(packed) + 100
        with open(layout / "blobs/sha256" / digest, "wb") as blob:
            blob.truncate(size)
            blob.seek(offset)
            blob.write(packed)
        toc = f"v1,sha256:{hashlib.sha256(packed).hexdigest()},{offset},{len(packed)},{len(text)},{size}"
        descriptors.append({"mediaType": LAYER + "+zstd", "digest": f"sha256:{digest}", "size": size,
                            "annotations": {"containerd.io/snapshot/headrace.toc": toc}})
        diff_ids.append(f"sha256:{noise.randbytes(32).hex()}")
    write_layout(layout, descriptors, diff_ids)
    check(Path(layout / "index.json").exists(), "no layout was written")
