"""A live identity provider: an HTTPS server of our own that can be slow, lie, move, or be gone."""

import contextlib
import http.server
import json
import ssl
import threading
import time

import pytest
import trustme

from tests.provider import Provider


class LiveProvider:
    """Serves discovery and key set of `provider`. `answer` replaces what a path gets; `requests` lists what came."""

    def __init__(self, certificates, *, host="localhost"):
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificates.issue_cert(host).configure_cert(self._tls)
        self.requests = []
        self.answers = {}
        self.port = 0
        self._server = None
        self.start()
        self.provider = Provider(issuer=f"https://localhost:{self.port}")

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def start(self):
        live = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                live.requests.append((self.path, dict(self.headers)))
                answer = live.answers.get(self.path) or live.standard(self.path)
                with contextlib.suppress(OSError):
                    answer(self)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_):
                pass

        self._server = Server(("127.0.0.1", self.port), Handler, bind_and_activate=False)
        self._server.allow_reuse_address = True
        self._server.server_bind()
        self._server.server_activate()
        self._server.socket = self._tls.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def standard(self, path):
        if path == "/.well-known/openid-configuration":
            document = {"issuer": self.provider.issuer, "jwks_uri": f"{self.url}/keys", "scopes_supported": ["openid"]}
            return body(json.dumps(document).encode())
        return body(self.provider.jwks()) if path == "/keys" else body(b"", status=404)

    def fetches(self):
        return [path for path, _ in self.requests if path == "/keys"]


def body(data, *, status=200, **headers):
    """A plain answer."""

    def send(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return send


def drip(data, *, seconds=0.05):
    """A byte at a time."""

    def send(handler):
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(seconds)

    return send


@pytest.fixture(scope="session")
def certificates():
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(certificates, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    certificates.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def live(certificates):
    provider = LiveProvider(certificates)
    yield provider
    provider.stop()
