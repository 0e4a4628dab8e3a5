"""Servers of the tests that stand around a registry: certificates of an own authority, and a token server."""

import base64
import http.server
import json
import ssl
import subprocess
import threading
import time
import urllib.parse

from sandbox import run

# docker-registry accepts tokens until so long after their end.
REGISTRY_LEEWAY = 60


class Authority:
    """ca.crt, and for each name NAME.cert with NAME.key that it signed. `server` is good for 127.0.0.1 and localhost, `node` is a client's."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = directory / "ca.crt"
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", directory / "ca.key", "-out", self.ca, "-days", "2", "-subj", "/CN=test authority")
        self._sign("server", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        self._sign("node", "extendedKeyUsage=clientAuth")

    def _sign(self, name, extensions):
        work = self.directory
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", work / f"{name}.key", "-out", work / f"{name}.csr", "-subj", f"/CN={name}")
        (work / "extensions").write_text(extensions + "\n")
        self._openssl("x509", "-req", "-in", work / f"{name}.csr", "-CA", self.ca, "-CAkey", work / "ca.key", "-CAcreateserial", "-days", "2",
                      "-extfile", work / "extensions", "-out", work / f"{name}.cert")

    @staticmethod
    def _openssl(*arguments):
        run(["openssl", *arguments])

    def server_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.cert", self.directory / "server.key")
        return context

    def yaml(self):
        """For docker-registry's http section."""
        return f"tls: {{certificate: {self.directory}/server.cert, key: {self.directory}/server.key}}"


class QuietHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body, content_type="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """Serves in a thread; TLS with `authority`. A client that breaks off is no news."""
    daemon_threads = True

    def __init__(self, host, handler, authority=None):
        name, _, port = host.partition(":")
        super().__init__((name, int(port)), handler)
        self.tls = authority.server_context() if authority else None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request, client_address):
        if self.tls:  # in the thread of the connection: a client that does not shake hands holds up nobody
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def shutdown_request(self, request):
        self.close_request(request)  # no FIN of its own before: with SO_LINGER 0 it is a reset

    def handle_error(self, request, client_address):
        pass


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """The distribution project's token server: GET with basic credentials or none, POST with a refresh token. Anybody may pull from
    public/*, users may do everything. Tokens are RS256 by a key of our own and live for `life` seconds; they say that they live for `said`.

    users: {name: password}, refresh: {refresh token: name}; both may be changed at any time. Counted by user ("" is anybody): given, refused.
    """

    SERVICE, ISSUER = "test-registry", "test-token-server"

    def __init__(self, host, directory, users, life=3, authority=None):
        self.host, self.users, self.refresh, self.life, self.said = host, dict(users), {}, life, life
        self.url = f"{'https' if authority else 'http'}://{host}/token"
        self.key, self.bundle = directory / "token.key", directory / "token.crt"
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", self.bundle, "-days", "2", "-subj", "/CN=tokens"])
        pem = self.bundle.read_text().split("-----")[2]
        self.certificate = "".join(pem.split())
        self.lock = threading.Lock()
        self.given, self.refused, self.tokens = {}, {}, []
        self.server = Server(host, self._handler(), authority)

    def yaml(self):
        """docker-registry's auth section."""
        return f"auth: {{token: {{realm: '{self.url}', service: {self.SERVICE}, issuer: {self.ISSUER}, rootcertbundle: {self.bundle}}}}}\n"

    def count(self, table, user):
        with self.lock:
            return table.get(user, 0)

    def secrets(self):
        """The signatures of all tokens so far: whoever has one can read."""
        with self.lock:
            return [token.rsplit(".", 1)[-1].encode() for token in self.tokens]

    def _handler(outer):
        class Handler(QuietHandler):
            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                user, password = "", None
                if (self.headers["Authorization"] or "").startswith("Basic "):
                    user, _, password = base64.b64decode(self.headers["Authorization"][6:]).decode().partition(":")
                self.decide(user, password is None or outer.users.get(user) == password, query.get("scope", []))

            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                user = outer.refresh.get(form.get("refresh_token", [""])[0])
                scopes = [scope for text in form.get("scope", []) for scope in text.split(" ")]
                self.decide(user or "?", user is not None, scopes)

            def decide(self, user, right, scopes):
                with outer.lock:
                    table = outer.given if right else outer.refused
                    table[user] = table.get(user, 0) + 1
                if not right:
                    return self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}')
                token = outer.make_token(user, scopes)
                self.answer(200, json.dumps({"token": token, "expires_in": outer.said}).encode())
        return Handler

    def make_token(self, user, scopes):
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = [action for action in actions.split(",") if user or (name.startswith("public/") and action == "pull")]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        with self.lock:
            number = len(self.tokens)
        claims = {"iss": self.ISSUER, "sub": user, "aud": self.SERVICE, "exp": now + self.life - REGISTRY_LEEWAY, "nbf": now - 300, "iat": now,
                  "jti": str(number), "access": access}
        head = {"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(self.key)], input=signed.encode(), stdout=subprocess.PIPE, check=True).stdout
        token = signed + "." + _base64url(signature)
        with self.lock:
            self.tokens.append(token)
        return token
