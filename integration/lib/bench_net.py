"""The link between registry and node: two network namespaces, a rate and a round-trip time.

    server namespace  10.9.0.2 ==== veth, TBF at the server's end: the rate ====>  10.9.0.1  client namespace
                               <--- bench-delay (TUN): requests and ACKs, late by the whole round trip ---

Only what the client sends is delayed: TCP sees the full round trip, and the heavy direction never leaves the kernel, so that
shaping costs next to no processor time on a machine that measures it. Without a delay both directions take the veth.
The MTU is 9000, as in most clouds: with 1500 the headers alone would be the 5 % that the targets allow.
`nsenter --net` and never `ip netns exec`: the latter makes a mount namespace, in which nobody else sees the daemon's mount.
The driver asks the server's /stats over a second, unshaped veth.
"""

import http.client
import json
import socket
from pathlib import Path

from sandbox import Daemon, Failed, Skip, check, run, say

CLIENT, SERVER = "10.9.0.1", "10.9.0.2"
DELAY_CLIENT, DELAY_SERVER = "10.9.1.1", "10.9.1.2"  # ends of the TUN devices
ADMIN_DRIVER, ADMIN_SERVER = "10.9.2.1", "10.9.2.2"
PORT = 5000
REGISTRY = f"{SERVER}:{PORT}"
MTU = 9000
BURST_KIB = 512  # a token bucket this deep holds the rate to 1 % although the kernel sends 64 KiB at once
PLAIN_RTT_MS = 0.2  # what a bare veth counts as: no delay is added below or at this


def parse_rate(text):
    """'1Gbit', '2.5Gbit', '800Mbit' or 'unshaped' in bits a second; None = no limit."""
    if text == "unshaped":
        return None
    for suffix, factor in (("Gbit", 1e9), ("Mbit", 1e6)):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    raise Failed(f"rate {text!r}: as 2.5Gbit, 800Mbit or unshaped")


def parse_latency(text):
    try:
        return float(text.removesuffix("ms"))
    except ValueError:
        raise Failed(f"latency {text!r}: as 20ms") from None


class Link:
    """A shaped link; `rate` and `latency` as in the name of a cell. close() removes it; the sandbox would, too."""

    def __init__(self, bench, rate="unshaped", latency="0.2ms"):
        self.bench = bench
        self.rate, self.latency = rate, latency
        self.bits, self.rtt_ms = parse_rate(rate), parse_latency(latency)
        number = bench.number("link")
        self.client, self.server = f"client{number}", f"server{number}"
        self.counts = False  # does the server count what it sends (/stats)?
        self._delay = None
        self._admin = None
        self._daemons = []
        try:
            self._make(number)
        except BaseException:
            self.close()
            raise

    def _make(self, number):
        Path("/run/netns").mkdir(exist_ok=True)
        for name in (self.client, self.server):
            run(["ip", "netns", "add", name])
            run(["ip", "-n", name, "link", "set", "lo", "up"])
        run(["ip", "link", "add", f"vs{number}", "netns", self.server, "type", "veth",
             "peer", "name", f"vc{number}", "netns", self.client])
        for name, device, address in ((self.server, f"vs{number}", SERVER), (self.client, f"vc{number}", CLIENT)):
            run(["ip", "-n", name, "addr", "add", f"{address}/30", "dev", device])
            run(["ip", "-n", name, "link", "set", device, "mtu", MTU, "up"])
            run(self.inside(name, "sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done"))
        self._admin = f"admin{number}"
        run(["ip", "link", "add", self._admin, "type", "veth", "peer", "name", "admin", "netns", self.server])
        run(["ip", "addr", "add", f"{ADMIN_DRIVER}/30", "dev", self._admin])
        run(["ip", "link", "set", self._admin, "up"])
        run(["ip", "-n", self.server, "addr", "add", f"{ADMIN_SERVER}/30", "dev", "admin"])
        run(["ip", "-n", self.server, "link", "set", "admin", "up"])
        if self.bits:
            # The queue holds what is on the way plus 10 ms, so that a sender that fills the pipe loses nothing.
            queue = max(4 << 20, int(self.bits / 8 * (self.rtt_ms + 10) / 1000))
            run(["tc", "-n", self.server, "qdisc", "add", "dev", f"vs{number}", "root", "tbf", "rate",
                 f"{int(self.bits)}bit", "burst", f"{BURST_KIB}kb", "limit", queue])
        if self.rtt_ms > PLAIN_RTT_MS:
            self._add_delay(number)
        self.measured_rtt_ms = None

    def _add_delay(self, number):
        """bench-delay carries what the client sends; it halves --rtt-ms for each direction, so it is given twice the time."""
        tool = self.bench.tool("bench-delay")
        before = {name: self._devices(name) for name in (self.client, self.server)}
        self._delay = Daemon(self.bench.box, f"delay{number}", [
            tool, "--rtt-ms", 2 * self.rtt_ms, "--a-netns", self.client, "--b-netns", self.server,
            "--a-addr", f"{DELAY_CLIENT}/30", "--b-addr", f"{DELAY_SERVER}/30", "--mtu", MTU])
        self._delay.wait_until(lambda: "ready" in self._delay.log.read_text(), "its ready line")
        tun = (self._devices(self.client) - before[self.client]).pop()
        far = (self._devices(self.server) - before[self.server]).pop()
        for name, device in ((self.client, tun), (self.server, far)):
            run(self.inside(name, "sh", "-c", f"echo 0 >/proc/sys/net/ipv4/conf/{device}/rp_filter"))
        run(["ip", "-n", self.client, "route", "add", f"{SERVER}/32", "dev", tun, "src", CLIENT])

    def _devices(self, name):
        return {link["ifname"] for link in json.loads(run(["ip", "-n", name, "-j", "link"]))}

    @staticmethod
    def inside(name, *argv):
        return ["nsenter", f"--net=/run/netns/{name}", *argv]

    def in_client(self, *argv):
        return self.inside(self.client, *argv)

    def in_server(self, *argv):
        return self.inside(self.server, *argv)

    def daemon(self, name, argv, env=None):
        """A daemon that ends with the link."""
        daemon = Daemon(self.bench.box, f"{name}-{self.bench.number(name)}", argv, env)
        self._daemons.append(daemon)
        return daemon

    def serve(self, layout, *options):
        """Starts bench-blobserver in the server namespace."""
        server = self.daemon("blobserver", self.in_server(
            self.bench.tool("bench-blobserver"), "--layout", layout, "--listen", f"0.0.0.0:{PORT}", *options))
        server.wait_until(lambda: "listening" in server.log.read_text(), "its listening line")
        self.measure_rtt()
        return server

    def measure_rtt(self):
        """Time of a TCP connect over the link: the best of ten. Raises if the link is not what it claims to be."""
        code = ("import socket, time\nbest = 1e9\nfor _ in range(10):\n"
                f"    start = time.perf_counter()\n    socket.create_connection(('{SERVER}', {PORT}), 5).close()\n"
                "    best = min(best, time.perf_counter() - start)\nprint(best * 1000)\n")
        self.measured_rtt_ms = float(run(self.in_client("python3", "-c", code), timeout=60))
        say(f"link {self.rate}/{self.latency}: a round trip takes {self.measured_rtt_ms:.2f} ms")
        if self._delay:
            check(abs(self.measured_rtt_ms - self.rtt_ms) < max(1.0, 0.1 * self.rtt_ms),
                  f"link {self.rate}/{self.latency}: the round trip takes {self.measured_rtt_ms:.2f} ms")

    def _ask(self, method, path):
        connection = http.client.HTTPConnection(ADMIN_SERVER, PORT, timeout=20)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            content = response.read()
            check(response.status in (200, 204), f"{method} {path}: {response.status}")
            return content
        except OSError as error:
            raise Failed(f"{method} {path} of the blob server: {error}") from error
        finally:
            connection.close()

    def stats(self):
        return json.loads(self._ask("GET", "/stats"))

    def reset_stats(self):
        self._ask("POST", "/reset")

    def close(self):
        for daemon in reversed(self._daemons):
            daemon.stop()
        self._daemons.clear()
        if self._delay:
            self._delay.stop()
            self._delay = None
        # A namespace goes some time after its last socket; the driver's veth must be gone when the next link takes its address.
        if self._admin and self._admin in (name for _, name in socket.if_nameindex()):
            run(["ip", "link", "del", self._admin])
        for name in (self.client, self.server):
            if Path("/run/netns", name).exists():
                run(["ip", "netns", "del", name])


def need_net_admin():
    """Skips where not even a veth can be made."""
    try:
        run(["ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"])
        run(["ip", "link", "del", "probe0"])
    except Failed as error:
        raise Skip(f"no veth devices here: {error}") from error
