"""What stands at the far end of a link: bench-blobserver, plain or as an object store, or a real docker-registry or nginx.

All serve the blobs from memory. The kind is the fourth part of a cell (P2/1Gbit/20ms/object-store); none: bench-blobserver, plain.
"""

import shutil

from bench_image import push_layout
from bench_net import ADMIN_SERVER, PORT
from oci import RegistryClient
from parts import port_answers
from sandbox import DEPS, Failed, need_program, run

KINDS = ("", "object-store", "docker-registry", "nginx")
# As S3 and its kin are described: a first byte after tens of milliseconds, some 90 MB/s on a connection, blobs behind redirects.
OBJECT_STORE = ("--redirect", "--ttfb-ms", 30, "--conn-rate", "90MB")


class DockerRegistry:
    """The real docker-registry in the server namespace of a link; what it holds is in `root` and outlives the link."""

    def __init__(self, bench, link, root):
        program = need_program(DEPS / "registry/usr/bin/docker-registry", "docker-registry")
        config = bench.box.directory / "link-registry.yml"
        config.write_text(f"version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n"
                          f"storage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: ':{PORT}'}}\n")
        self.client = RegistryClient(f"{ADMIN_SERVER}:{PORT}")
        daemon = link.daemon("link-registry", link.in_server(program, "serve", config), {"OTEL_TRACES_EXPORTER": "none"})
        daemon.wait_until(lambda: port_answers(self.client.host), "a registry on the link")
        link.measure_rtt()


def _docker_registry(bench, link, model):
    root = bench.box.path("ram") / "docker-registry"
    first = not root.exists()
    registry = DockerRegistry(bench, link, root)
    if first:
        push_layout(registry.client, model.served, "model")


def _nginx(bench, link, model):
    """The blobs as files, with the paths of a registry; the manifest comes from the layout on the node."""
    program = need_program(shutil.which("nginx") or DEPS / "nginx/usr/sbin/nginx", "nginx")
    work = bench.box.path("nginx")
    run(["chmod", "-R", "a+rX", model.served])
    config = work / "nginx.conf"
    config.write_text(
        f"user root;\ndaemon off;\nworker_processes 1;\npid {work}/pid;\nerror_log stderr warn;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; keepalive_requests 100000; default_type application/octet-stream;\n"
        + "".join(f"  {name}_temp_path {work}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")) +
        f"  server {{ listen {PORT};\n    location = /v2/ {{ return 200 '{{}}'; }}\n"
        f"    location ~ ^/v2/.+/blobs/sha256:([0-9a-f]+)$ {{ alias {model.served}/blobs/sha256/$1; }} }} }}\n")
    daemon = link.daemon("nginx", link.in_server(program, "-c", config, "-p", work))
    daemon.wait_until(lambda: port_answers(f"{ADMIN_SERVER}:{PORT}"), "a listening nginx")
    link.measure_rtt()


def serve(bench, link, model, kind=""):
    if kind == "docker-registry":
        _docker_registry(bench, link, model)
    elif kind == "nginx":
        _nginx(bench, link, model)
    elif kind in ("", "object-store"):
        link.serve(model.served, *(OBJECT_STORE if kind else ()))
        link.counts = True
    else:
        raise Failed(f"no server {kind!r}: {', '.join(filter(None, KINDS))}")


def sent(link, fused):
    """{"blob_bytes","requests"} of a run: as the server counted, or, where it is another's, as headrace-fused did."""
    if link.counts:
        return link.stats()
    metrics = fused.status()["metrics"]
    return {"blob_bytes": metrics["headrace_wire_bytes_total"], "requests": metrics["headrace_wire_requests_total"]}

