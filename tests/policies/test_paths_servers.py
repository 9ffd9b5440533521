"""
`paths` against what real servers make of a path: whatever it lets pass under `/v1`, each of them routes under `/v1`.

The servers are Python's http.server, werkzeug, nginx and Node; those that are not installed are skipped.
"""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from addon.policies.paths import covers

PATHS = int(os.environ.get("ALTER_TEST_CASES", "2000"))

PIECES = (
    "/", "/", "/", "v1", "v1", "v2", "admin", "..", ".", "...", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", ";", ";x=1", "%3b",
    "%252e", "%252f", "%", "%2", "%zz", "%u002e", "%00", "%09", "%0a", "%20", "%7f", "%c0%ae", "%c0%af", "%e2%80%a4", "%ef%bc%8f",
    "a", "%41", "%76", "%31", "~", "+", "&", "=", "@", ":", "!", "$", "'", "(", ")", "*", ",", "-", "_", "//", "/../", "/./", "/.;/",
)  # fmt: skip


def paths(count):
    """Paths of random pieces, most of which begin as an allowed one would. The same each time."""
    chosen = random.Random(47)
    for _ in range(count):
        start = "/v1" if chosen.random() < 0.8 else "/"
        yield (start + "".join(chosen.choices(PIECES, k=chosen.randint(0, 7)))).encode()


class Asked:
    """A connection to a server that answers every path with where it was routed to."""

    def __init__(self, port):
        self._port = port
        self._socket = None

    def __call__(self, path):
        """(status, body) for a path, sent as it is; a connection that the server closes is opened anew."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            self._file = self._socket.makefile("rb")
        self._socket.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: a.test\r\n\r\n")
        first = self._file.readline()
        length, closes = 0, False
        while (line := self._file.readline()) not in {b"\r\n", b""}:
            name, _, value = line.lower().partition(b":")
            length = int(value) if name == b"content-length" else length
            closes = closes or (name == b"connection" and b"close" in value)
        body = self._file.read(length)
        if closes or not first:
            self.close()
        return (int(first.split()[1]) if first else 400), body.decode("latin-1")

    def close(self):
        if self._socket is not None:
            self._file.close()
            self._socket.close()
            self._socket = None


def answer(handler, text):
    body = text.encode("utf-8", "surrogateescape")
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class Files(SimpleHTTPRequestHandler):
    """Which file http.server would serve."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def __init__(self, *args):
        super().__init__(*args, directory="/")

    def do_GET(self):
        answer(self, self.translate_path(self.path))

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def _python():
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def _werkzeug():
    pytest.importorskip("werkzeug")
    from werkzeug.exceptions import HTTPException  # noqa: PLC0415
    from werkzeug.routing import Map, RequestRedirect, Rule  # noqa: PLC0415
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415
    from werkzeug.wrappers import Request, Response  # noqa: PLC0415

    routes = Map([
        Rule("/v1", endpoint="/v1"), Rule("/v1/", endpoint="/v1/"), Rule("/v1/<path:rest>", endpoint="/v1/"),
        Rule("/", endpoint="/"), Rule("/<path:rest>", endpoint="/other"),
    ])  # fmt: skip

    @Request.application
    def application(request):
        try:
            endpoint, _ = routes.bind_to_environ(request.environ).match()
        except RequestRedirect as redirect:
            endpoint = redirect.new_url.partition("a.test")[2]
        except HTTPException:
            return Response(status=404)
        return Response(endpoint)

    class Quiet(WSGIRequestHandler):
        def log(self, *_):
            pass

    server = make_server("127.0.0.1", 0, application, request_handler=Quiet, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def _free():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@contextlib.contextmanager
def _process(command, port, **options):
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                assert process.poll() is None, "it did not start"
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait()


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log /dev/null crit;
events {{ worker_connections 64; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location = /v1 {{ return 200 "/v1"; }}
        location /v1/ {{ return 200 "/v1/"; }}
        location / {{ return 200 "/other"; }}
    }}
}}
"""


@contextlib.contextmanager
def _nginx(folder):
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    port = _free()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    with _process([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], port):
        yield port


NODE = """
require('http').createServer((request, response) => {
  let path = request.url.split('?')[0];
  for (const parse of [() => new URL(request.url, 'http://a.test').pathname, () => require('path').posix.normalize(path)]) {
    const found = parse();
    if (!(found === '/v1' || found.startsWith('/v1/'))) path = found;
  }
  try { path = require('path').posix.normalize(decodeURIComponent(path)); } catch { response.statusCode = 400; }
  response.setHeader('Content-Length', Buffer.byteLength(path));
  response.end(path);
}).listen(%d, '127.0.0.1');
"""


@contextlib.contextmanager
def _node(_):
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    port = _free()
    with _process([program, "-e", NODE % port], port):
        yield port


SERVERS = {"http.server": lambda _: _python(), "werkzeug": lambda _: _werkzeug(), "nginx": _nginx, "node": _node}


@pytest.fixture(params=SERVERS)
def server(request, tmp_path):
    with SERVERS[request.param](tmp_path) as port, contextlib.closing(Asked(port)) as asked:
        yield asked


def test_what_passes_under_a_prefix_is_routed_under_it(server):
    passed = 0
    for path in paths(PATHS):
        if not covers(("/v1",), path):
            continue
        passed += 1
        status, where = server(path)
        assert status >= 400 or where == "/v1" or where.startswith("/v1/"), (path, status, where)
    assert passed > PATHS / 20


@pytest.mark.parametrize("path", [b"/v1", b"/v1/", b"/v1/charges", b"/v1/a:b@c,d", b"/v1/%41"])
def test_ordinary_paths_pass_and_arrive(server, path):
    assert covers(("/v1",), path)
    status, where = server(path)
    assert status == 200
    assert where == "/v1" or where.startswith("/v1/")


def test_the_servers_do_route_some_of_the_others_elsewhere(server):
    """Or this would prove nothing."""
    elsewhere = 0
    for path in paths(PATHS // 4):
        if path.startswith(b"/v1/") and not covers(("/v1",), path) and path.isascii():
            status, where = server(path)
            elsewhere += status < 400 and not where.startswith("/v1")
    assert elsewhere
