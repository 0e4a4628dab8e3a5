"""Images made by tools that are not ours: Buildah, Podman, Skopeo, umoci, ctr-remote, GNU tar, bsdtar, Python's tarfile, gzip and zstd.

Everything is pushed to the registry of the sandbox. Each maker returns nothing; `Images.made` lists (name, reference, what)."""

import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import oci
from parts import REGISTRY
from sandbox import DEPS, check, run

CTR_REMOTE = DEPS / "ctr-remote/usr/bin/ctr-remote"
BLOB_CACHE = Path("/var/lib/containers/cache")  # what Podman and Buildah remember of registries
STORAGE = "vfs"  # of Buildah and Podman: needs nothing of the kernel


def odd_tree(root):
    """What a root file system may hold, on disk."""
    root = Path(root)
    for name in ("d", "d/deep/er/and/er", "empty-dir", "sticky", "other"):
        (root / name).mkdir(parents=True, exist_ok=True)
    os.chmod(root / "sticky", 0o1777)
    (root / "empty").touch()
    (root / "d/file").write_bytes(b"hello\n")
    (root / "d/big").write_bytes(bytes(range(256)) * 40000)  # 10 MB: several chunks
    (root / "d/random").write_bytes(os.urandom(5_000_000))
    with open(root / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"in the middle" * 1000)
    os.link(root / "d/file", root / "other/hard")
    os.link(root / "d/file", root / "d/deep/er/hard-too")
    os.symlink("../d/file", root / "other/link")
    os.symlink("/" + "x" * 4000, root / "other/long-link")
    os.symlink("nowhere", root / "dangling")
    (root / ("n" * 255)).write_bytes(b"long name")
    long = root / "/".join(["l" * 100] * 4)
    long.mkdir(parents=True)
    (long / "f").write_bytes(b"long path")
    (root / "blank and ünïcode ☃").write_bytes(b"odd name")
    (root / "new\nline").write_bytes(b"odder name")
    os.mkfifo(root / "fifo")
    os.mknod(root / "char", 0o620 | 0o020000, os.makedev(1, 3))
    os.mknod(root / "block", 0o640 | 0o060000, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as left_out:
        here = os.getcwd()
        os.chdir(root)
        left_out.bind("socket")
        os.chdir(here)
    shutil.copy2("/bin/true", root / "setuid")
    os.chmod(root / "setuid", 0o6755)
    os.chown(root / "other/hard", 70_000, 4_000_000_000)
    os.chown(root / "empty-dir", 1000, 100)
    os.setxattr(root / "d/file", "user.note", b"value \x00 with a zero")
    os.setxattr(root / "d", "user.of-a-directory", b"x" * 200)
    shutil.copy2("/bin/true", root / "capable")
    subprocess.run(["setcap", "cap_net_raw+ep", str(root / "capable")], check=True)
    os.utime(root / "d/file", ns=(10**18 + 5, 1_600_000_000_123_456_789))
    os.utime(root / "empty", ns=(0, 0))
    os.utime(root / "d/deep", ns=(1, 253_402_300_799_000_000_000 // 100))
    os.utime(root / "dangling", ns=(5, 1_500_000_000_000_000_000), follow_symlinks=False)


class Images:
    def __init__(self, box):
        self.box = box
        self.work = box.path("images")
        self.client = oci.RegistryClient(REGISTRY)
        self.made = []
        self.storage = ["--root", str(self.work / "storage"), "--runroot", str(self.work / "run"), "--storage-driver", STORAGE]
        os.environ["TMPDIR"] = str(box.path("tmp"))
        registries = self.work / "registries.conf"
        registries.write_text(f'[[registry]]\nlocation = "{REGISTRY}"\ninsecure = true\n')
        os.environ["CONTAINERS_REGISTRIES_CONF"] = str(registries)
        BLOB_CACHE.mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "tmpfs", BLOB_CACHE])
        self.tree = self.work / "odd"
        self.tree.mkdir()
        odd_tree(self.tree)
        self.tree_tar = self.work / "odd.tar"
        run(["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--format=posix", "-C", self.tree, "-cf", self.tree_tar, "."])

    def add(self, name, what):
        self.made.append((name, f"{REGISTRY}/oracle/{name}:1", what))

    # ---- by hand: one tar, any compression, any media type -------------------------------------------------------------------

    def raw(self, name, what, *layers, docker=False):
        """layers: (blob, diff id, suffix of the media type)."""
        descriptors, diff_ids = [], []
        for blob, diff_id, suffix in layers:
            digest = "sha256:" + hashlib.sha256(blob).hexdigest()
            media_type = ("application/vnd.docker.image.rootfs.diff.tar" + (".gzip" if suffix == "gzip" else "") if docker
                          else oci.LAYER + (f"+{suffix}" if suffix else ""))
            self.client.push_blob(f"oracle/{name}", digest, blob)
            descriptors.append({"mediaType": media_type, "digest": digest, "size": len(blob)})
            diff_ids.append(diff_id)
        oci.push_config_and_manifest(self.client, f"oracle/{name}", "1", descriptors, diff_ids, ["/x"])
        self.add(name, what)

    def tar(self, name, what, tar, compress=lambda data: data, suffix=""):
        self.raw(name, what, (compress(tar), "sha256:" + hashlib.sha256(tar).hexdigest(), suffix))

    # ---- Buildah, Podman, Skopeo ---------------------------------------------------------------------------------------------

    def buildah(self, *arguments):
        return run(["buildah", *self.storage, *arguments], timeout=600).strip()

    def buildah_base(self):
        """Three layers: the odd tree, changes with whiteouts and an opaque directory, more changes."""
        container = self.buildah("from", "scratch")
        mount = Path(self.buildah("mount", container))
        run(["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", mount, "-xpf", self.tree_tar])
        self.buildah("unmount", container)
        self.buildah("config", "--entrypoint", '["/x"]', container)
        self.buildah("commit", "--rm", container, "odd")
        container = self.buildah("from", "localhost/odd")
        mount = Path(self.buildah("mount", container))
        (mount / "other/link").unlink()
        shutil.rmtree(mount / "d/deep")
        (mount / "d/deep").mkdir()
        (mount / "d/deep/new").write_text("new in a directory that was replaced")
        (mount / "empty").unlink()
        (mount / "empty").mkdir()
        (mount / "empty/now-a-directory").touch()
        (mount / "d/file").write_text("changed")
        os.chmod(mount / "d/big", 0o600)
        self.buildah("unmount", container)
        self.buildah("commit", "--rm", container, "changed")
        container = self.buildah("from", "localhost/changed")
        mount = Path(self.buildah("mount", container))
        shutil.rmtree(mount / "other")
        (mount / "other").write_text("a file now")
        (mount / "d/deep/new").unlink()
        (mount / "again").write_bytes(os.urandom(100_000))
        self.buildah("unmount", container)
        self.buildah("commit", "--rm", container, "stack")

    def push(self, image, name, what, *options, tool="buildah"):
        # Or a layer that the registry has in another compression is not pushed again. (A tmpfs of this sandbox, see __init__.)
        for remembered in BLOB_CACHE.iterdir():
            remembered.unlink()
        target = f"docker://{REGISTRY}/oracle/{name}:1"
        run([tool, *self.storage, "push", "--tls-verify=false", *options, image, target], timeout=600)
        self.add(name, what)

    def skopeo(self, source, name, what, *options):
        run(["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *options,
             f"docker://{REGISTRY}/oracle/{source}:1", f"docker://{REGISTRY}/oracle/{name}:1"], timeout=600)
        self.add(name, what)

    def by_container_tools(self):
        self.buildah_base()
        for image in ("odd", "stack"):
            self.push(image, f"{image}-chunked", f"Podman, zstd:chunked ({image})", "--format", "oci", "--compression-format",
                      "zstd:chunked", tool="podman")
            self.push(image, f"{image}-oci", f"Buildah, OCI, gzip ({image})", "--format", "oci")
            self.push(image, f"{image}-docker", f"Buildah, docker schema 2, gzip ({image})", "--format", "v2s2")
            self.push(image, f"{image}-zstd", f"Buildah, OCI, zstd ({image})", "--format", "oci", "--compression-format", "zstd")
        self.skopeo("stack-oci", "stack-oci-docker", "Skopeo, OCI to docker schema 2", "--format", "v2s2")
        self.skopeo("stack-docker", "stack-docker-oci", "Skopeo, docker schema 2 to OCI, zstd", "--format", "oci", "--dest-compress-format", "zstd")
        self.uncompressed("odd-oci", "odd-plain", "Skopeo, uncompressed layers")
        self.uncompressed("stack-oci", "stack-plain", "Skopeo, uncompressed layers, whiteouts")

    def uncompressed(self, source, name, what):
        directory = self.work / f"{name}.dir"
        run(["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-decompress", f"docker://{REGISTRY}/oracle/{source}:1", f"dir:{directory}"])
        run(["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "--preserve-digests", f"dir:{directory}", f"docker://{REGISTRY}/oracle/{name}:1"])
        shutil.rmtree(directory)
        self.add(name, what)

    def debian(self):
        tar = DEPS / "debian-root.tar"
        if not tar.exists():
            return
        run(["podman", *self.storage, "import", "--change", "CMD=/bin/true", str(tar), "localhost/debian"], timeout=600)
        self.push("localhost/debian", "debian-chunked", "debootstrap, Podman, zstd:chunked", "--format", "oci", "--compression-format", "zstd:chunked",
                  tool="podman")
        self.push("localhost/debian", "debian-oci", "debootstrap, Podman, OCI, gzip", "--format", "oci", tool="podman")
        self.push("localhost/debian", "debian-zstd", "debootstrap, Podman, OCI, zstd", "--format", "oci", "--compression-format", "zstd", tool="podman")
        self.tar("debian-plain", "debootstrap, GNU tar, uncompressed", tar.read_bytes())

    # ---- umoci ---------------------------------------------------------------------------------------------------------------

    def umoci(self):
        layout = self.work / "umoci"
        run(["umoci", "init", "--layout", layout])
        run(["umoci", "new", "--image", f"{layout}:1"])
        second = self.work / "second.tar"
        with tarfile.open(second, "w", format=tarfile.PAX_FORMAT) as tar:
            for name in ("d/.wh.file", "other/.wh..wh..opq"):
                tar.addfile(tarfile.TarInfo(name))
            info = tarfile.TarInfo("other/after-opaque")
            info.size = 3
            import io
            tar.addfile(info, io.BytesIO(b"yes"))
        for tar in (self.tree_tar, second):
            run(["umoci", "raw", "add-layer", "--image", f"{layout}:1", tar])
        run(["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{REGISTRY}/oracle/umoci:1"])
        self.add("umoci", "umoci, whiteout and opaque directory")

    # ---- tars ----------------------------------------------------------------------------------------------------------------

    def dialects(self):
        def gnu(*options):
            return subprocess.run(["tar", "--numeric-owner", "-C", str(self.tree), *options, "-cf", "-", "."], check=True, capture_output=True).stdout
        small = ["--exclude=./n*", "--exclude=./l*", "--exclude=*long-link", "--exclude=./other/hard", "--exclude=*hard-too", "--exclude=./d/file",
                 "--exclude=new*", "--exclude=blank*", "--exclude=socket"]
        self.tar("tar-gnu", "GNU tar, gnu format, zstd", gnu("--format=gnu"), lambda data: _zstd(data), "zstd")
        self.tar("tar-posix", "GNU tar, posix format with xattrs, gzip", gnu("--format=posix", "--xattrs", "--xattrs-include=*"), gzip.compress, "gzip")
        self.tar("tar-ustar", "GNU tar, ustar format", gnu("--format=ustar", *small))
        self.tar("tar-v7", "GNU tar, v7 format", gnu("--format=v7", *small, "--exclude=./fifo", "--exclude=./char", "--exclude=./block"))
        self.tar("tar-sparse-1.0", "GNU tar, sparse files, PAX 1.0", gnu("--format=posix", "--sparse", "--sparse-version=1.0"))
        self.tar("tar-sparse-0.1", "GNU tar, sparse files, PAX 0.1, gzip", gnu("--format=posix", "--sparse", "--sparse-version=0.1"), gzip.compress, "gzip")
        for form in ("pax", "gnutar"):
            data = subprocess.run(["bsdtar", "--numeric-owner", "--format", form, "-C", str(self.tree), "-cf", "-", "."], check=True, capture_output=True).stdout
            self.tar(f"bsdtar-{form}", f"bsdtar, {form}", data, gzip.compress, "gzip")
        python = self.work / "python.tar"
        for form, name in ((tarfile.GNU_FORMAT, "gnu"), (tarfile.PAX_FORMAT, "pax")):
            with tarfile.open(python, "w", format=form) as tar:
                tar.add(self.tree, arcname=".", filter=lambda info: None if info.name.endswith("socket") else info)
            self.tar(f"python-{name}", f"Python tarfile, {name}", python.read_bytes())

    def compressions(self):
        tar = self.tree_tar.read_bytes()
        half = len(tar) // 2
        self.tar("gzip-members", "two gzip members", tar, lambda data: gzip.compress(data[:half]) + gzip.compress(data[half:]), "gzip")
        self.tar("zstd-frames", "many zstd frames", tar,
                 lambda data: b"".join(_zstd(data[at:at + (1 << 20)]) for at in range(0, len(data), 1 << 20)), "zstd")
        self.tar("gzip-lies", "gzip under the media type of a plain tar", tar, gzip.compress, "")
        # No zero blocks at the end.
        short = subprocess.run(["tar", "-C", str(self.tree), "-b1", "-cf", "-", "d"], check=True, capture_output=True).stdout.rstrip(b"\0")
        self.tar("no-end", "a tar without its end", short + b"\0" * (-len(short) % 512))

    def special(self):
        empty = b"\0" * 1024
        layer = (gzip.compress(empty), "sha256:" + hashlib.sha256(empty).hexdigest(), "gzip")
        tree = self.tree_tar.read_bytes()
        whole = (_zstd(tree), "sha256:" + hashlib.sha256(tree).hexdigest(), "zstd")
        self.raw("empty-layers", "an empty layer below, between and above", layer, whole, layer)
        many = []
        for number in range(127):
            path = self.work / "many.tar"
            with tarfile.open(path, "w") as tar:
                import io
                for name in (f"f{number}", "same"):
                    info = tarfile.TarInfo(name)
                    info.size = 8
                    tar.addfile(info, io.BytesIO(b"%08d" % number))
                if number > 3:
                    tar.addfile(tarfile.TarInfo(f".wh.f{number - 3}"))
            data = path.read_bytes()
            many.append((gzip.compress(data), "sha256:" + hashlib.sha256(data).hexdigest(), "gzip"))
        self.raw("many-layers", "127 layers", *many)
        self.raw("docker-plain", "docker media type, uncompressed", (tree, "sha256:" + hashlib.sha256(tree).hexdigest(), ""), docker=True)
        manifest, digest = self.client.manifest("oracle/odd-oci", "1")
        raw = self.client.raw_manifest("oracle/odd-oci", digest)
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": oci.MANIFEST, "digest": "sha256:" + "1" * 64, "size": 10, "platform": {"os": "windows", "architecture": "amd64"}},
            {"mediaType": oci.MANIFEST, "digest": digest, "size": len(raw), "platform": {"os": "linux", "architecture": "amd64"}}]}
        for blob in [manifest["config"], *manifest["layers"]]:
            self.client.push_blob("oracle/index", blob["digest"], self.client.blob("oracle/odd-oci", blob["digest"]))
        self.client.push_bytes("oracle/index", digest, raw, oci.MANIFEST)
        self._push_index("oracle/index", index)
        self.add("index", "an index of several platforms")

    def _push_index(self, repository, index):
        # docker-registry wants every manifest of an index to be there.
        index["manifests"] = [m for m in index["manifests"] if m["platform"]["os"] == "linux"]
        other = dict(index["manifests"][0], platform={"os": "linux", "architecture": "s390x"})
        index["manifests"].insert(0, other)
        self.client.push_bytes(repository, "1", json.dumps(index).encode(), index["mediaType"])

    # ---- eStargz -------------------------------------------------------------------------------------------------------------

    def estargz(self, containerd):
        """By ctr-remote, out of what containerd has pulled."""
        if not CTR_REMOTE.exists():
            return False
        for source in ("odd-oci", "stack-oci", "debian-oci"):
            reference = f"{REGISTRY}/oracle/{source}:1"
            if not any(reference == made for _, made, _ in self.made):
                continue
            for suffix, options in (("estargz", []), ("estargz-packed", ["--estargz-min-chunk-size", "100000"])):
                if options and source == "debian-oci":
                    continue  # half a minute of compressing
                name = f"{source.split('-')[0]}-{suffix}"
                target = f"{REGISTRY}/oracle/{name}:1"
                to_estargz(containerd, reference, target, *options)
                self.add(name, f"ctr-remote, eStargz{' with packed members' if options else ''} ({source})")
        return True


def to_estargz(containerd, reference, target, *options):
    """Converts what containerd has pulled, by stargz-snapshotter's own tool, and pushes it."""
    base = [CTR_REMOTE, "-a", containerd.socket, "-n", "k8s.io", "images"]
    run([*base, "convert", "--estargz", "--oci", *options, reference, target], timeout=600)
    run([*base, "push", "--plain-http", target], timeout=600)
    run([*base, "rm", target])


def _zstd(data):
    return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, check=True, capture_output=True).stdout
