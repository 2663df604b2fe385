"""HTTP/1.1 over sockets: reads requests, answers them, breaks connections off when told to."""

from __future__ import annotations

import contextlib
import enum
import http.server
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

ONE_WRITE = 64 * 1024
"""Bodies shorter than this go out together with their head; larger ones are not copied for it."""


@dataclass(slots=True)
class Request:
    """One request as it arrived, and what became of it.

    Attributes:
        target: Path and query as they were sent.
        path: Decoded, without the query.
        query: The last value of each name.
        headers: By lower-case name.
        body: The whole of it, out of its chunks.
        client_port: Tells connections apart.
        status: What was answered; 0 so far, or when the connection was closed instead.
        fault: What went wrong on purpose.
    """

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client_port: int
    status: int = 0
    fault: enum.Enum | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The query in its order, with names that come more than once."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def token(self) -> str:
        """The bearer token, or an empty text."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def json(self) -> Any:
        """The body as JSON; an empty object where there is none."""
        return json.loads(self.body or b"{}")


@dataclass(slots=True)
class Response:
    """A whole answer.

    Attributes:
        body: Bytes as they are; None is an empty body, anything else is sent as JSON.
        headers: Further ones.
        cut: Send half of the body and close.
        trickle_s: Send the body byte by byte with this pause.
    """

    status: int = 200
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    trickle_s: float = 0.0

    def encoded(self) -> bytes:
        """The body as bytes."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Exchange:
    """One request and the means to answer it.

    Attributes:
        request: The request.
        muted: Answer nothing, though everything is done as if.
    """

    def __init__(self, handler: Handler, request: Request) -> None:
        self.request = request
        self.muted = False
        self._handler = handler

    @property
    def socket(self) -> socket.socket:
        connection: socket.socket = self._handler.connection
        return connection

    def send(self, response: Response) -> None:
        """Answer at once; 204 has no body."""
        body = response.encoded()
        fields = dict(response.headers)
        if response.status != 204:
            length = str(len(body))
            fields = {"Content-Type": response.content_type, "Content-Length": length, **fields}
        if response.cut:
            self._handler.close_connection = True
            body = body[: len(body) // 2]
        head = self._head(response.status, fields)
        if response.trickle_s:
            self._write(head)
            pause = threading.Event()
            for byte in body:
                self._write(bytes([byte]))
                pause.wait(response.trickle_s)
        elif len(body) < ONE_WRITE:
            self._write(head + body)
        else:
            self._write(head)
            self._write(body)

    def begin_chunks(self, content_type: str) -> None:
        """Answer piece by piece: ``chunk`` as often as there is something, then ``end_chunks``."""
        fields = {"Content-Type": content_type, "Transfer-Encoding": "chunked"}
        self._write(self._head(200, fields))

    def chunk(self, data: bytes) -> None:
        if data:
            self._write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_chunks(self) -> None:
        self._write(b"0\r\n\r\n")

    def switch_protocols(self, fields: Mapping[str, str]) -> None:
        """Answer 101: after it, the socket is the caller's until the exchange ends."""
        self._write(self._head(101, fields))
        self._handler.close_connection = True

    def drop(self, *, reset: bool = False) -> None:
        """Close the connection as it is.

        Args:
            reset: Send a reset, which discards what is still under way to the client.
        """
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            if reset:
                linger = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.socket.close()
            else:
                self.socket.shutdown(socket.SHUT_RDWR)

    def hung_up(self) -> bool:
        """Whether the client has closed its side; to be asked when the socket is readable."""
        try:
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _head(self, status: int, fields: Mapping[str, str]) -> bytes:
        self.request.status = status
        reason = self._handler.responses.get(status, ("",))[0]
        every = {**self._handler.server.headers(), **fields}
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {every[name]}" for name in every)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _write(self, data: bytes) -> None:
        if not self.muted:
            self._handler.wfile.write(data)


class HttpServer(http.server.ThreadingHTTPServer):
    """Answers requests, each connection in a thread of its own.

    Nothing is answered before ``start``; after ``stop`` and ``server_close``, no thread is left.

    Args:
        address: Where; port 0 is a free one.
        answer: Returns what to answer, or None when it has answered the exchange itself. The
            connection ends where it raises.
        headers: What the head of every answer has, beside what the answer says.
    """

    request_queue_size = 256
    daemon_threads = False

    def __init__(
        self,
        address: tuple[str, int],
        answer: Callable[[Exchange], Response | None],
        headers: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self.answer = answer
        self.headers = headers
        self._open: dict[socket.socket, Any] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept)
        super().__init__(address, Handler)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests and cut every connection. Safe to call twice.

        What still answers goes on to its end, for which ``server_close`` waits.
        """
        self._stopping.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.close_connections()

    def close_connections(self) -> None:
        """Cut every connection there is."""
        with self._changed:
            still_open = list(self._open)
        for connection in still_open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_until_left(self, timeout_s: float) -> None:
        """Block until every client has gone and what it asked for has been carried out."""
        with socket.create_connection(("127.0.0.1", self.server_port), timeout_s) as own:
            # They are accepted in order: once this one is, so are all that were made before.
            address = own.getsockname()
            self._wait_for(lambda: address in self._open.values(), timeout_s)
        self._wait_for(lambda: not self._open, timeout_s)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open[request] = client_address
            self._changed.notify_all()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify_all()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of our errors."""

    def _wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), "clients are still connected"

    def _accept(self) -> None:
        while not self._stopping.is_set():
            self.handle_request()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    def do_GET(self) -> None:
        try:
            exchange = Exchange(self, self._read())
            response = self.server.answer(exchange)
            if response is not None:
                exchange.send(response)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is logged."""

    def _read(self) -> Request:
        body = self._read_body()
        parts = urlsplit(self.path)
        return Request(
            self.command,
            self.path,
            unquote(parts.path),
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            body,
            self.client_address[1],
        )

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
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(chunks)
