"""Stand-ins for the images of the CRI suite, under the names that it pulls: busybox with a few programs of ours, made here."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import oci
from parts import REGISTRY
from sandbox import CGROUPS, DEPS, TOOLS, need_program, run, say

E2E = "e2e-test-images"
STAGING = "k8s-staging-cri-tools"
# Debian's busybox lacks these.
SCRIPTS = {"pgrep": "#!/bin/sh\nexec pidof \"$1\"\n", "ipcs": "#!/bin/sh\nexec cat /proc/sysvipc/shm\n"}
ROOM = "a-word-that-is-long-enough-for-a-title"


def _directory(box):
    root = box.path("busybox")
    for name in ("bin", "etc", "home", "mnt", "proc", "root", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var/run", "var/www", "dev"):
        (root / name).mkdir(parents=True, exist_ok=True)
    os.chmod(root / "tmp", 0o1777)
    # The one with libraries: the shell of busybox-static runs its applets itself, also those that a test has hidden.
    busybox = root / "bin/busybox"
    shutil.copy(need_program(DEPS / "busybox/bin/busybox", "busybox"), busybox)
    for library in re.findall(r"(/\S+) \(0x", run(["ldd", busybox])):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    for applet in run([busybox, "--list"]).split():  # hard links: a test hides one of them
        if applet not in ("busybox", "init", "linuxrc"):
            os.link(busybox, root / "bin" / applet)
    for name, text in SCRIPTS.items():
        (root / "bin" / name).write_text(text)
        os.chmod(root / "bin" / name, 0o755)
    server = need_program(TOOLS / "web-server", "web-server")
    for name in ("nginx", "httpd"):
        (root / "usr/sbin" / name).unlink(missing_ok=True)
        shutil.copy(server, root / "usr/sbin" / name)
    shutil.copy(need_program(TOOLS / "effective-uid", "effective-uid"), root / "usr/bin/effective-uid")
    os.chmod(root / "usr/bin/effective-uid", 0o4755)
    shutil.copy(need_program(TOOLS / "pause", "pause"), root / "pause")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
                                     "default-user:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\nnobody:x:65534:\ngroup-defined-in-image:x:50000:default-user\n")
    return root


def push_cri_images(box):
    """Everything under its own name on the registry of the sandbox; {repository:tag: manifest digest}."""
    client = oci.RegistryClient(REGISTRY)
    base = oci.push_image(REGISTRY, "busybox", "1", [(_directory(box), "/")], box.path("cri-images"), compression="gzip")
    nginx = {"Cmd": ["/usr/sbin/nginx", "80", ROOM]}
    images = {f"{E2E}/busybox:1.29-2": {"Cmd": ["sh"]}, f"{E2E}/nginx:1.14-2": nginx,
              f"{E2E}/httpd:2.4.39-4": {"Cmd": ["/usr/sbin/httpd", "80", ROOM]},
              f"{E2E}/nonewprivs:1.3": {"Entrypoint": ["/usr/bin/effective-uid"]},
              f"{STAGING}/hostnet-nginx-amd64:latest": {"Cmd": ["/usr/sbin/nginx", "12003", ROOM]},
              "pause:3.9": {"Entrypoint": ["/pause"]}}
    users = {"uid": "1002", "username": "www-data", "uid-group": "1003:1004", "username-group": "www-data:1004"}
    for name, user in users.items():
        images[f"{STAGING}/test-image-user-{name}:latest"] = {"User": user}
    images[f"{STAGING}/test-image-predefined-group:latest"] = {"User": "1000", "Cmd": ["sh"]}
    for name in ("test-image-latest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-1:latest", "test-image-2:latest", "test-image-3:latest"):
        images[f"{STAGING}/{name}"] = {"Cmd": ["sh"], "Labels": {"name": name}}  # each an image of its own
    for tag in ("1", "2", "3"):
        images[f"{STAGING}/test-image-tags:{tag}"] = {"Cmd": ["sh"], "Labels": {"name": "tags"}}
    for reference, settings in images.items():
        repository, _, tag = reference.partition(":")
        oci.push_mixed(client, repository, tag, ("busybox", base, None), settings={"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], **settings})
    return images


def network(box):
    """(directory of the CNI plugins, of a configuration): a bridge with addresses of its own and mapped ports."""
    plugins = need_program(DEPS / "cni/usr/lib/cni", "CNI plugins")
    configuration = box.path("cni")
    chain = {"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True,
         "ipam": {"type": "host-local", "dataDir": str(box.path("cni-addresses")), "ranges": [[{"subnet": "10.88.0.0/16"}]],
                  "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}}]}
    (configuration / "10-pods.conflist").write_text(json.dumps(chain))
    return plugins, configuration


@contextlib.contextmanager
def nothing_left():
    """Takes away what the suite makes outside the sandbox, unless it was there: cgroups of pods that name no parent, the CNI library's cache."""
    cache, made = Path("/var/lib/cni"), not Path("/var/lib/cni").exists()
    before = _pod_cgroups()
    cache.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "tmpfs", cache])
    try:
        yield
    finally:
        run(["umount", "-l", cache])
        if made:
            cache.rmdir()
        for top in _pod_cgroups() - before:
            _remove_cgroups(top)


def _remove_cgroups(top):
    """The suite's tests of plugins lose a container of containerd's, with any snapshotter: its processes, which are in this sandbox, end first."""
    give_up = time.monotonic() + 10
    while top.exists():
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                for pid in (Path(directory) / "cgroup.procs").read_text().split():
                    if pid != "0":  # 0: of another process namespace, not ours
                        os.kill(int(pid), signal.SIGKILL)
                os.rmdir(directory)
        if time.monotonic() > give_up:
            say(f"cannot remove the cgroups {top}")
            return
        time.sleep(0.05)


def _pod_cgroups():
    return {path for pattern in ("k8s.io", "*/k8s.io") for path in CGROUPS.glob(pattern)}
