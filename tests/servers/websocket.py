"""WebSockets: the handshake and the frames of the server's side."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import struct
import threading
from collections.abc import Mapping

from servers.http import Exchange

_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    """The connection of an exchange after the handshake.

    Args:
        exchange: The request for it.
        headers: Further headers of the answer.
    """

    def __init__(self, exchange: Exchange, headers: Mapping[str, str] | None = None) -> None:
        key = exchange.request.headers.get("sec-websocket-key", "").encode()
        accept = base64.b64encode(hashlib.sha1(key + _KEY).digest()).decode()
        fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
        exchange.switch_protocols({**fields, **(headers or {})})
        self.socket = exchange.socket
        self._lock = threading.Lock()

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
            self.socket.sendall(head + data)
