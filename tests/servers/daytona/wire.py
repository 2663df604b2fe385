"""HTTP/1.1 over sockets: reads requests, writes responses, drops connections when told to."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(slots=True)
class Request:
    """One request after its bytes were read."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one where it is none."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.raw or b"{}")
            if isinstance(found, dict):
                return found
        return {}

    @property
    def token(self) -> str:
        """The bearer token, or an empty text."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass(slots=True)
class Response:
    """What is sent back.

    Attributes:
        status: HTTP status.
        body: JSON, or bytes.
        headers: Further headers.
        cut: Send half of the body and close.
        trickle_s: Send the body byte by byte with this pause.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    trickle_s: float = 0.0

    def encoded(self) -> bytes:
        """The body as bytes."""
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


class Dropped(Exception):
    """Close the connection without an answer."""


Answer = Callable[[Request], Response]


class HttpServer(http.server.ThreadingHTTPServer):
    """Accepts connections, one thread for each."""

    request_queue_size = 256
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        self.answer = answer
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End what is still open."""
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of our errors."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is logged."""

    def _serve(self) -> None:
        try:
            raw = self._read_body()
        except ConnectionError:
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        request = Request(
            self.command,
            unquote(parts.path),
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            raw,
        )
        try:
            response = self.server.answer(request)
        except Dropped:
            self._drop()
            return
        self._send(response)

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._read_chunks()
        length = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length)
        if len(data) < length:
            raise ConnectionError("request body cut off")
        return data

    def _read_chunks(self) -> bytes:
        chunks: list[bytes] = []
        while True:
            line = self.rfile.readline()
            if not line:
                raise ConnectionError("request body cut off")
            size = int(line.split(b";")[0], 16)
            data = self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return b"".join(chunks)
            chunks.append(data)

    def _send(self, response: Response) -> None:
        body = response.encoded()
        reason = self.responses.get(response.status, ("",))[0]
        headers = {"Content-Type": "application/json", **response.headers}
        head = [f"HTTP/1.1 {response.status} {reason}", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if response.cut:
            self.close_connection = True
            body = body[: len(body) // 2]
        with contextlib.suppress(ConnectionError):
            self.wfile.write("\r\n".join([*head, "", ""]).encode("latin-1"))
            if not response.trickle_s:
                self.wfile.write(body)
                return
            pause = threading.Event()
            for byte in body:
                self.wfile.write(bytes([byte]))
                pause.wait(response.trickle_s)

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.shutdown(socket.SHUT_RDWR)
