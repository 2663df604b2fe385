"""HTTP/1.1 and WebSockets over sockets, as much of them as the Sprites API uses."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_WS_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class HttpServer(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], answer: Callable[[Exchange], None]) -> None:
        self.answer = answer
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
        try:
            body = self._read_body()
        except ConnectionError:
            self.close_connection = True
            return
        exchange = Exchange(self, body)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.server.answer(exchange)
            return
        self.close_connection = True

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is logged."""

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
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(chunks)


class Exchange:
    """One request and the means to answer it.

    Attributes:
        muted: Answer nothing, though everything is done as if.
        status: What was answered; 0 so far, or when the connection was dropped.
    """

    def __init__(self, handler: Handler, body: bytes) -> None:
        parts = urlsplit(handler.path)
        self.handler = handler
        self.method = handler.command
        self.target = handler.path
        self.path = unquote(parts.path)
        self.pairs = parse_qsl(parts.query, keep_blank_values=True)
        self.query = dict(self.pairs)
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = body
        self.muted = False
        self.status = 0

    @property
    def socket(self) -> socket.socket:
        connection: socket.socket = self.handler.connection
        return connection

    def json_body(self) -> Any:
        return json.loads(self.body)

    def json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self.raw(status, json.dumps(value).encode(), "application/json", headers)

    def raw(
        self,
        status: int,
        body: bytes,
        content_type: str = "text/plain",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with a whole body; 204 has none."""
        fields = {"Content-Type": content_type, **(headers or {})}
        if status != 204:
            fields["Content-Length"] = str(len(body))
        self._write(self._head(status, fields) + (b"" if status == 204 else body))

    def begin_chunks(self, content_type: str) -> None:
        self._write(self._head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"}))

    def chunk(self, data: bytes) -> None:
        if data:
            self._write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_chunks(self) -> None:
        self._write(b"0\r\n\r\n")

    def upgrade(self, headers: Mapping[str, str] | None = None) -> WebSocket:
        """Finish the handshake of a WebSocket."""
        key = self.headers.get("sec-websocket-key", "").encode()
        accept = base64.b64encode(hashlib.sha1(key + _WS_KEY).digest()).decode()
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept,
            **(headers or {}),
        }
        self._write(self._head(101, fields))
        self.handler.close_connection = True
        return WebSocket(self.handler)

    def drop(self, *, reset: bool = False) -> None:
        """Close the connection as it is."""
        self.handler.close_connection = True
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
        self.status = status
        reason = self.handler.responses.get(status, ("",))[0]
        lines = [f"HTTP/1.1 {status} {reason}", "Sprite-Version: 0.0.1-loopback"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _write(self, data: bytes) -> None:
        if not self.muted:
            self.handler.wfile.write(data)


class WebSocket:
    """The server's side of a WebSocket after its handshake."""

    def __init__(self, handler: Handler) -> None:
        self._out = handler.wfile
        self._lock = threading.Lock()
        self.socket = handler.connection

    def send(self, data: bytes | str) -> None:
        """Send one message."""
        if isinstance(data, str):
            self._frame(TEXT, data.encode())
        else:
            self._frame(BINARY, data)

    def receive(self) -> bytes | str | None:
        """Return the next message; None when the client has closed."""
        parts: list[bytes] = []
        kind = BINARY
        while True:
            frame = self._read_frame()
            if frame is None:
                return None
            final, opcode, data = frame
            if opcode == PING:
                self._frame(PONG, data)
                continue
            if opcode == PONG:
                continue
            if opcode == CLOSE:
                with contextlib.suppress(OSError):
                    self._frame(CLOSE, data[:2])
                return None
            kind = opcode or kind
            parts.append(data)
            if final:
                whole = b"".join(parts)
                return whole.decode() if kind == TEXT else whole

    def close(self, code: int = 1000) -> None:
        with contextlib.suppress(OSError):
            self._frame(CLOSE, struct.pack(">H", code))

    def _exactly(self, size: int) -> bytes:
        """Read without a buffer, so that a selector sees whatever has not been read."""
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("the client has gone")
            data += piece
        return data

    def _read_frame(self) -> tuple[bool, int, bytes] | None:
        try:
            head = self._exactly(2)
        except ConnectionError:
            return None
        size = head[1] & 0x7F
        if size == 126:
            size = struct.unpack(">H", self._exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._exactly(8))[0]
        mask = self._exactly(4) if head[1] & 0x80 else b"\0\0\0\0"
        data = self._exactly(size)
        key = (mask * (size // 4 + 1))[:size]
        plain = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
        return bool(head[0] & 0x80), head[0] & 0x0F, plain

    def _frame(self, opcode: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | opcode, size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
        with self._lock:
            self._out.write(head + data)
