"""HTTP/1.1 over sockets: whole answers, chunked streams, and connections that break as told."""

from __future__ import annotations

import contextlib
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived; ``path`` is decoded and has no ``/api`` in front."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A chunked answer; every item becomes one chunk. ``CutError`` from it ends the connection."""

    chunks: Iterator[bytes]
    content_type: str = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Drop:
    """No answer: the connection is reset."""


class CutError(Exception):
    """Raised by a stream: close the connection without the end of the chunked body."""


Answer = Response | Stream | Drop


class HttpServer(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = False
    block_on_close = True

    def __init__(
        self,
        address: tuple[str, int],
        answer: Callable[[Request], Answer],
        now_ms: Callable[[], int],
    ) -> None:
        self.answer = answer
        self.now_ms = now_ms
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._open_lock:
            still_open = list(self._open)
        for connection in still_open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of our errors."""


class Handler(http.server.BaseHTTPRequestHandler):
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
            body = self._read_body()
        except ConnectionError:
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        request = Request(
            self.command,
            unquote(parts.path).removeprefix("/api"),
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            body,
        )
        answer = self.server.answer(request)
        if isinstance(answer, Drop):
            self._reset()
        elif isinstance(answer, Response):
            self._send(answer)
        else:
            self._stream(answer)

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            length = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(length)
            if len(data) < length:
                raise ConnectionError("request body cut off")
            return data
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

    def _head(self, status: int, *lines: str) -> bytes:
        reason = self.responses.get(status, ("",))[0]
        date = formatdate(self.server.now_ms() / 1000, usegmt=True)
        head = (f"HTTP/1.1 {status} {reason}", f"Date: {date}", *lines, "", "")
        return "\r\n".join(head).encode("latin-1")

    def _send(self, response: Response) -> None:
        head = self._head(
            response.status,
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            *(f"{name}: {value}" for name, value in response.headers.items()),
        )
        with contextlib.suppress(ConnectionError):
            self.wfile.write(head)
            self.wfile.write(response.body)

    def _stream(self, stream: Stream) -> None:
        head = self._head(200, f"Content-Type: {stream.content_type}", "Transfer-Encoding: chunked")
        try:
            self.wfile.write(head)
            for chunk in stream.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
        except CutError:
            self._reset()
        except ConnectionError:
            self.close_connection = True
        finally:
            close = getattr(stream.chunks, "close", None)
            if close is not None:
                close()

    def _reset(self) -> None:
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            # What was written before has to arrive: a reset discards what is still under way.
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
