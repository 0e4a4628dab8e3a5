"""The real parts that the tests put together: registry, containerd, Headrace's daemons, pods over the CRI API."""

import ctypes
import json
import os
import random
import shutil
import socket
import string
import time
from pathlib import Path

from sandbox import BUILD, DEPS, TOOLS, Daemon, Failed, answers, check, need_program, run

REGISTRY = "127.0.0.1:5000"
CAP_SYS_RESOURCE = 24


def port_answers(host):
    name, _, port = host.partition(":")
    try:
        socket.create_connection((name, int(port)), 1).close()
        return True
    except OSError:
        return False


def _may_lower_oom_score():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
    return False


def bcrypt(password):
    """A line of htpasswd wants it; libcrypt has it, Python's standard library no longer does."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    salt = "".join(random.choices(string.ascii_letters + string.digits, k=21)) + "u"
    made = library.crypt(password.encode(), f"$2b$05${salt}".encode())
    check(made and made.startswith(b"$2b$"), "libcrypt makes no bcrypt")
    return made.decode()


class Registry:
    """docker-registry on the loopback interface of the sandbox. users: {name: password} that it asks for (htpasswd). Several with other
    names may share the storage of the first one (`root`). extra: further lines of its configuration; http: of that section."""

    def __init__(self, box, host=REGISTRY, users=None, name="registry", root=None, extra="", http=""):
        program = need_program(DEPS / "registry/usr/bin/docker-registry", "docker-registry")
        self.host = host
        self.root = root or box.path(name)
        config = box.directory / f"{name}.yml"
        config.write_text(f"version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n"
                          f"storage: {{filesystem: {{rootdirectory: {self.root}}}}}\nhttp: {{addr: '{host}'{', ' + http if http else ''}}}\n{extra}")
        if users is not None:
            self.passwords = box.directory / "htpasswd"
            self.set_users(users)
            with open(config, "a") as out:
                out.write(f"auth: {{htpasswd: {{realm: test, path: {self.passwords}}}}}\n")
        self.daemon = Daemon(box, name, [program, "serve", config], {"OTEL_TRACES_EXPORTER": "none"})
        self.daemon.wait_until(lambda: port_answers(host), f"a registry on {host}")

    def set_users(self, users):
        """The registry reads the file again when it has changed."""
        fresh = self.passwords.with_suffix(".new")
        fresh.write_text("".join(f"{name}:{bcrypt(password)}\n" for name, password in users.items()))
        os.utime(fresh, (time.time() + 2, time.time() + 2))
        fresh.rename(self.passwords)


class Headrace:
    """headrace-fused and headrace-snapshotter with all their state below one directory.

    prefix: a command that runs them elsewhere (another network namespace); fused: further arguments of headrace-fused;
    config: headrace.toml of both.
    """

    plugin = "headrace"  # containerd's name for it

    def __init__(self, box, name="headrace", prefix=(), fused_arguments=(), config=None):
        self.root = box.path(name)
        self.socket = self.root / "snapshotter.sock"
        control = self.root / "control.sock"
        self.mount_point = Path("/run") / name
        self.mount_point.mkdir(parents=True, exist_ok=True)
        shared = ["--config", config] if config else []
        fused = need_program(BUILD / "bin/headrace-fused", "headrace-fused")
        snapshotter = need_program(BUILD / "bin/headrace-snapshotter", "headrace-snapshotter")
        self.fused = Daemon(box, f"{name}-fused", [
            *prefix, fused, *shared, "--root", self.root / "fused", "--mountpoint", self.mount_point, "--control-socket", control,
            *fused_arguments])
        self.fused.wait_until(lambda: answers(control) and os.path.ismount(self.mount_point), "its mount and control socket")
        self.snapshotter = Daemon(box, f"{name}-snapshotter", [
            *prefix, snapshotter, *shared, "--root", self.root / "snapshotter", "--socket", self.socket, "--control-socket", control])
        self.snapshotter.wait_until(lambda: answers(self.socket), "its socket")

    def stop(self):
        self.snapshotter.stop()
        self.fused.stop()


def headrace_build(directory, target, *options, timeout=3600):
    """`headrace build`; plain http because the registry is a test's."""
    program = need_program(BUILD / "bin/headrace", "the headrace command")
    return run([program, "build", directory, target, "--plain-http", *options], timeout=timeout)


def headrace_convert(source, target, *options, timeout=3600):
    program = need_program(BUILD / "bin/headrace", "the headrace command")
    return run([program, "convert", source, target, "--plain-http", *options], timeout=timeout)


def layer_formats(headrace):
    """How the layers that are shown are read: {name of the image's repository, last part: {formats}}."""
    ctl = need_program(BUILD / "bin/fused-ctl", "fused-ctl")
    status = json.loads(run([ctl, "--socket", headrace.root / "control.sock", "status"]))
    found = {}
    for layer in status["layers"]:
        found.setdefault(layer["image_ref"].split("/")[-1].split(":")[0], set()).add(layer["format"])
    return found


class Containerd:
    """A private containerd. `version`: "2", "1.7" or "1.6"; `headrace`: None for containerd's own overlayfs, or another
    snapshotter with its plugin name, socket and root. prefix: a command that runs it elsewhere; hosts: its certs.d directory; image_socket: where
    the CRI image service is asked instead, as a kubelet with --image-service-endpoint does; cni: (directory of plugins, of their configuration);
    nri: the socket of its plugin interface."""

    def __init__(self, box, name, version="2", headrace=None, pause_image=f"{REGISTRY}/pause:1", prefix=(), hosts=None, image_socket=None,
                 cni=None, nri=None):
        self.box = box
        self.bin = DEPS / f"containerd-{version}/usr/bin"
        self.version = version
        self.snapshotter = headrace.plugin if headrace else "overlayfs"
        self.hosts = hosts
        self.image_socket = image_socket
        self.cni, self.nri = cni, nri
        program = need_program(self.bin / "containerd", f"containerd {version}")
        need_program(shutil.which("runc") or "/usr/sbin/runc", "runc")
        self.directory = box.path(name)
        self.state = Path("/run") / name
        self.socket = self.state / "containerd.sock"
        config = self.directory / "config.toml"
        maker = self._config_v3 if version == "2" else self._config_v2
        config.write_text(maker(headrace, pause_image))
        self.daemon = Daemon(box, name, [*prefix, program, "--config", config, "--log-level", "info"],
                             {"PATH": f"{self.bin}:{os.environ['PATH']}"})
        self.daemon.wait_until(lambda: answers(self.socket), "its socket")
        self.cri("ready", "--timeout", "30", timeout=60)

    def _common(self, headrace):
        text = (f"root = '{self.directory}/root'\nstate = '{self.state}/state'\n"
                f"[grpc]\n  address = '{self.socket}'\n[ttrpc]\n  address = '{self.socket}.ttrpc'\n")
        if headrace:
            text += (f"[proxy_plugins.{headrace.plugin}]\n  type = 'snapshot'\n  address = '{headrace.socket}'\n"
                     f"  [proxy_plugins.{headrace.plugin}.exports]\n    root = '{headrace.root}'\n"
                     "    enable_remote_snapshot_annotations = 'true'\n")
        return text

    def _config_v3(self, headrace, pause_image):
        restrict = "true" if not _may_lower_oom_score() else "false"
        text = "version = 3\n" + self._common(headrace)
        text += "[plugins.'io.containerd.nri.v1.nri']\n"
        if self.nri:
            nowhere = self.box.path("nri-plugins")
            text += f"  disable = false\n  socket_path = '{self.nri}'\n  plugin_path = '{nowhere}'\n  plugin_config_path = '{nowhere}'\n"
        else:
            text += "  disable = true\n"
        text += f"[plugins.'io.containerd.cri.v1.images']\n  snapshotter = '{self.snapshotter}'\n"
        if headrace:
            text += "  disable_snapshot_annotations = false\n"
        text += f"  [plugins.'io.containerd.cri.v1.images'.pinned_images]\n    sandbox = '{pause_image}'\n"
        if self.hosts:
            text += (f"  [plugins.'io.containerd.cri.v1.images'.registry]\n    config_path = '{self.hosts}'\n"
                     "[plugins.'io.containerd.transfer.v1.local']\n  max_concurrent_downloads = 8\n"
                     "  concurrent_layer_fetch_buffer = 8388608\n")
        if headrace:  # for `ctr images pull`, which uses the transfer service
            text += ("[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n"
                     f"  platform = 'linux/amd64'\n  snapshotter = '{self.snapshotter}'\n"
                     "[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n"
                     "  platform = 'linux/amd64'\n  snapshotter = 'overlayfs'\n")
        text += f"[plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = {restrict}\n"
        if self.cni:
            text += f"  [plugins.'io.containerd.cri.v1.runtime'.cni]\n    bin_dir = '{self.cni[0]}'\n    conf_dir = '{self.cni[1]}'\n"
        text += ("  [plugins.'io.containerd.cri.v1.runtime'.containerd]\n    default_runtime_name = 'runc'\n"
                 "    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n"
                 "      runtime_type = 'io.containerd.runc.v2'\n")
        return text

    def _config_v2(self, headrace, pause_image):
        restrict = "true" if not _may_lower_oom_score() else "false"
        cri = "plugins.'io.containerd.grpc.v1.cri'"
        text = "version = 2\n" + self._common(headrace)
        if self.version != "1.6":
            text += "[plugins.'io.containerd.nri.v1.nri']\n  disable = true\n"
        text += (f"[{cri}]\n  sandbox_image = '{pause_image}'\n  restrict_oom_score_adj = {restrict}\n"
                 f"  [{cri}.containerd]\n    snapshotter = '{self.snapshotter}'\n    default_runtime_name = 'runc'\n"
                 f"    disable_snapshot_annotations = {'false' if headrace else 'true'}\n"
                 f"    [{cri}.containerd.runtimes.runc]\n      runtime_type = 'io.containerd.runc.v2'\n")
        return text

    def cri(self, *arguments, timeout=1900):
        program = need_program(TOOLS / "cri-client", "cri-client")
        images = ["--image-endpoint", self.image_socket] if self.image_socket else []
        return json.loads(run([program, "-e", self.socket, *images, *arguments], timeout=timeout))

    def ctr(self, *arguments, timeout=600):
        return run([self.bin / "ctr", "-a", self.socket, *arguments], timeout=timeout)

    def stop(self):
        for pod in self.cri("pods"):
            self.cri("remove-pod", pod["id"])
        self.daemon.stop()


class Pod:
    """A pod on the host network, made over CRI."""

    def __init__(self, containerd, name, containers, share_process_namespace=False):
        self.containerd = containerd
        self.logs = containerd.box.path(f"pods/{containerd.daemon.name}-{name}")
        spec = self.logs / "spec.json"
        spec.write_text(json.dumps({
            "name": name, "log_directory": str(self.logs), "cgroup_parent": containerd.box.cgroup,
            "share_process_namespace": share_process_namespace, "containers": containers}))
        self.result = containerd.cri("run", spec)
        self.id = self.result["pod"]

    def started_ns(self):
        return self.result["steps"][-1]["end_ns"]

    def wait(self, container, timeout):
        state = self.containerd.cri("wait", self.result["containers"][container], "--timeout", str(timeout), timeout=timeout + 60)
        output = self.output(container)
        check(state["exit_code"] == 0, f"container {container} ended with {state['exit_code']}: {output[-2000:]}")
        return output

    def output(self, container):
        """Standard output of a container, put together again from CRI's log lines."""
        text = ""
        path = self.logs / f"{container}.log"
        for line in path.read_text().splitlines() if path.exists() else []:
            _, stream, tag, content = (line.split(" ", 3) + [""])[:4]
            if stream == "stdout":
                text += content + ("" if tag == "P" else "\n")
        return text

    def remove(self):
        self.containerd.cri("remove-pod", self.id)


def reader_reports(output):
    """The JSON lines of model-reader."""
    reports = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    for report in reports:
        if "error" in report:
            raise Failed(f"model-reader: {report['error']}")
    return reports


def check_sums(report, sums, what):
    """Every file of the model was read and has the SHA-256 of the original."""
    files = {name.rsplit("/", 1)[-1]: file["sha256"] for name, file in report["files"].items()}
    check(set(files) == set(sums), f"{what}: read {sorted(files)} instead of {sorted(sums)}")
    for name, digest in files.items():
        check(digest == sums[name], f"{what}: {name} does not have the SHA-256 of the original")


def now_ns():
    return time.time_ns()


def make_model(box, gib, shard_gib=1.0, seed=1, name="model"):
    """Returns (directory, {file: sha256}, bytes)."""
    directory = box.directory / name
    maker = need_program(TOOLS / "model-maker", "model-maker")
    made = json.loads(run([maker, directory, "--gib", gib, "--shard-gib", shard_gib, "--seed", seed]))
    from oci import read_sums
    return directory, read_sums(f"{directory}.sha256"), made["bytes"]


def program_directory(box):
    """A directory with the static programs that run in pods: /model-reader and /pause."""
    directory = box.path("programs")
    for name in ("model-reader", "pause"):
        shutil.copy2(need_program(TOOLS / name, name), directory / name)
        os.utime(directory / name, (0, 0))
    return directory
