"""A plain HTTP server on loopback that answers as a test says."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server(http.server.ThreadingHTTPServer):
    """Answers as the test says and keeps the headers of what came.

    Attributes:
        answer: Called with the handler of each request, whose body was read unless ``deaf``.
        seen: The headers of each request, by lower-case name.
        ports: The client's port of each request.
        lines: The first line of each request.
        done: Set when the server stops; what waits longer than a client should ends by it.
    """

    daemon_threads = False

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.seen: list[dict[str, str]] = []
        self.ports: list[int] = []
        self.lines: list[str] = []
        self.answer: Answer = plain
        self.done = threading.Event()
        self.deaf = False
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        if tls is not None:
            self.url = self.url.replace("http:", "https:")
            # The handshake is for the request's own thread.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error of ours."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 20
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.server.ports.append(self.client_address[1])
        self.server.lines.append(self.requestline)
        if not self.server.deaf:
            self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.answer(self)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing is logged."""


def plain(handler: http.server.BaseHTTPRequestHandler) -> None:
    send(handler, 200, b'{"a": 1}')


def send(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, **headers: str
) -> None:
    handler.send_response(status)
    handler.send_header("content-length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve until the end of the block; then no thread and no socket of it is left."""
    server = Server(tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        server.shutdown()
        thread.join()
        server.server_close()
