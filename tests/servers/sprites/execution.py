"""Running commands: over HTTP POST, over a WebSocket, and the sessions that come of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from servers.http import Exchange, Response
from servers.sprites.machine import Machine
from servers.sprites.switches import Switches
from servers.websocket import WebSocket

FRAME_BYTES = 32 * 1024
HISTORY_BYTES = 64 * 1024
POST_BYTES = 10 * 1024 * 1024
OUT, ERR, EXIT = 1, 2, 3


@dataclass
class Session:
    """One running command."""

    process: subprocess.Popen[bytes]
    command: str
    machine: Machine
    created: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        return str(self.process.pid)

    def listed(self) -> dict[str, object]:
        return {
            "id": self.id,
            "created": int(self.created),
            "command": self.command,
            "workdir": str(self.machine.home),
            "tty": False,
            "bytes_per_second": 0,
            "is_active": True,
            "last_activity": int(self.created),
        }


class Sink(Protocol):
    """Where the output of a command goes."""

    def frame(self, kind: int, data: bytes) -> None: ...

    def readable(self) -> bool:
        """Take what the client sent; False when it has gone."""

    def exited(self, code: int, rest: list[tuple[int, bytes]]) -> None: ...


class Sessions:
    """The commands that run on all machines."""

    def __init__(self, switches: Switches) -> None:
        self.switches = switches
        self._running: dict[str, Session] = {}
        self._finished: set[str] = set()
        self._count = 0
        self._random = random.Random(4711)

    def of(self, machine: Machine) -> list[Session]:
        return [one for one in list(self._running.values()) if one.machine is machine]

    def find(self, machine: Machine, session_id: str) -> Session | None:
        found = self._running.get(session_id)
        return found if found is not None and found.machine is machine else None

    def has_ended(self, session_id: str) -> bool:
        return session_id in self._finished

    def post(self, exchange: Exchange, machine: Machine) -> Callable[[], None] | None:
        """``POST exec``: the body is standard input, the answer one frame per chunk.

        Returns what sends the end of the answer: after it, nothing is attached any more.
        """
        if len(exchange.request.body) > POST_BYTES:
            exchange.send(Response(413, {"error": "request body too large"}))
            return None
        session = self._start(exchange, machine)
        if session is None:
            return None
        given = exchange.request.body if exchange.request.query.get("stdin") == "true" else b""
        threading.Thread(target=_feed, args=(session.process, given), daemon=True).start()
        sink = _PostSink(exchange, self.switches, self._random)
        exchange.begin_chunks("application/octet-stream")
        self._run(session, sink, exchange)
        return sink.end

    def websocket(self, exchange: Exchange, machine: Machine) -> None:
        """``GET exec`` with an upgrade."""
        session = self._start(exchange, machine)
        if session is None:
            return
        socket = WebSocket(exchange, {"X-Sprite-Capabilities": "signal"})
        socket.send(
            json.dumps(
                {
                    "type": "session_info",
                    "session_id": session.id,
                    "command": session.command,
                    "created": int(session.created),
                    "cols": 0,
                    "rows": 0,
                    "is_owner": True,
                    "tty": False,
                }
            )
        )
        if exchange.request.query.get("stdin") != "true" and session.process.stdin:
            session.process.stdin.close()
        sink = _SocketSink(socket, session, self.switches)
        self._run(session, sink, exchange)
        sink.linger()

    def kill(self, exchange: Exchange, machine: Machine, session_id: str) -> Response | None:
        """Signal a command's process group and tell how it ended."""
        session = self.find(machine, session_id)
        if session is None:
            ended = self.has_ended(session_id)
            text = "session already exited" if ended else "session not found"
            return Response(410 if ended else 404, {"error": text})
        name = exchange.request.query.get("signal", "SIGTERM")
        number = signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session.process.pid, number)
        code = _code(session.process.wait(10))
        exchange.begin_chunks("application/x-ndjson")
        for event in (
            {"type": "signal", "message": f"sent {number.name}", "pid": session.process.pid},
            {"type": "exited", "message": "process exited"},
            {"type": "complete", "exit_code": code},
        ):
            exchange.chunk(json.dumps(event).encode() + b"\n")
        exchange.end_chunks()
        return None

    def _start(self, exchange: Exchange, machine: Machine) -> Session | None:
        argv = [value for name, value in exchange.request.pairs if name == "cmd"]
        if not argv:
            exchange.send(Response(400, {"error": "cmd is required"}))
            return None
        pairs = [value.partition("=") for name, value in exchange.request.pairs if name == "env"]
        env = {name: value for name, _, value in pairs}
        folder = exchange.request.query.get("dir")
        if folder and not Path(folder).is_dir():
            script = 'echo "chdir: no such directory: $1"; exit 1'
            argv, folder = ["sh", "-c", script, "sh", folder], None
        try:
            process = machine.popen(argv, cwd=folder, env=env)
        except OSError:
            argv = ["sh", "-c", 'echo "exec: $1: not found" >&2; exit 127', "sh", argv[0]]
            try:
                process = machine.popen(argv, cwd=None, env=None)
            except OSError:
                exchange.send(Response(404, {"error": "sprite not found"}))
                return None
        session = Session(process, " ".join(argv), machine)
        self._running[session.id] = session
        return session

    def _run(self, session: Session, sink: Sink, exchange: Exchange) -> None:
        """Pass output on until the command has ended, whatever it left in the background."""
        process = session.process
        assert process.stdout is not None
        assert process.stderr is not None
        self._count += 1
        loses = self.switches.lose_every and self._count % self.switches.lose_every == 0
        streams = {process.stdout.fileno(): OUT, process.stderr.fileno(): ERR}
        for handle in streams:
            os.set_blocking(handle, False)
        alive = os.pidfd_open(process.pid)
        selector = selectors.DefaultSelector()
        for handle in (*streams, alive, exchange.socket.fileno()):
            selector.register(handle, selectors.EVENT_READ)

        def take(handle: int) -> bytes:
            try:
                return os.read(handle, self._size())
            except BlockingIOError:
                return b""

        def deliver(kind: int, data: bytes) -> None:
            if not (loses and kind == OUT):
                sink.frame(kind, data)

        gone_since: float | None = None
        try:
            if self.switches.late_attach_s:
                for data in self._missed(session, streams):
                    deliver(OUT, data)
            while True:
                ready = {key.fd for key, _ in selector.select(0.5)}
                if gone_since is not None and time.monotonic() - gone_since > self._grace(exchange):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                for handle in ready & streams.keys():
                    data = take(handle)
                    if data:
                        deliver(streams[handle], data)
                    else:
                        selector.unregister(handle)
                if exchange.socket.fileno() in ready and not sink.readable():
                    selector.unregister(exchange.socket.fileno())
                    exchange.muted = True
                    gone_since = time.monotonic()
                if alive in ready:
                    break
            rest: list[tuple[int, bytes]] = []
            for handle, kind in streams.items():
                with contextlib.suppress(OSError):
                    while data := os.read(handle, self._size()):
                        if not (loses and kind == OUT):
                            rest.append((kind, data))
            sink.exited(_code(process.wait()), rest)
        finally:
            self._running.pop(session.id, None)
            self._finished.add(session.id)
            selector.close()
            os.close(alive)
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _missed(self, session: Session, streams: dict[int, int]) -> list[bytes]:
        """Output from before the client was attached: the last 64 KiB, both streams as one."""
        end = time.monotonic() + self.switches.late_attach_s
        history = b""
        while time.monotonic() < end:
            for handle in streams:
                with contextlib.suppress(BlockingIOError):
                    history = (history + os.read(handle, 1 << 20))[-HISTORY_BYTES:]
            time.sleep(0.002)
            if session.process.poll() is not None:
                break
        return [history[at : at + FRAME_BYTES] for at in range(0, len(history), FRAME_BYTES)]

    def _size(self) -> int:
        return self._random.randint(1, FRAME_BYTES) if self.switches.odd_sizes else FRAME_BYTES

    def _grace(self, exchange: Exchange) -> float:
        text = exchange.request.query.get("max_run_after_disconnect", "10s")
        number = float(text.rstrip("s") or 0)
        return number or 1e9


class _PostSink:
    """Frames as chunks, or as intermediaries make of them."""

    def __init__(self, exchange: Exchange, switches: Switches, rng: random.Random) -> None:
        self._exchange = exchange
        self._switches = switches
        self._random = rng
        self._held = b""
        self._complete = True

    def frame(self, kind: int, data: bytes) -> None:
        self._write(bytes([kind]) + data)

    def readable(self) -> bool:
        return not self._exchange.hung_up()

    def exited(self, code: int, rest: list[tuple[int, bytes]]) -> None:
        for kind, data in rest:
            self.frame(kind, data)
        if self._switches.take("no_exit_frame"):
            self._complete = False
        else:
            self._write(bytes([EXIT, code]))

    def end(self) -> None:
        if self._held:
            self._flush(len(self._held))
        if self._switches.hold_exec_s:
            self._switches.closing.wait(self._switches.hold_exec_s)
        self._exchange.end_chunks()

    def _write(self, data: bytes) -> None:
        how = self._switches.chunking
        if how == "exact":
            self._exchange.chunk(data)
            return
        self._held += data
        if how == "random":
            while len(self._held) > self._random.randint(1, 3000):
                self._flush(self._random.randint(1, len(self._held)))

    def _flush(self, size: int) -> None:
        self._exchange.chunk(self._held[:size])
        self._held = self._held[size:]


class _SocketSink:
    """Frames as binary messages, the end as text and as a frame."""

    def __init__(self, socket: WebSocket, session: Session, switches: Switches) -> None:
        self._socket = socket
        self._session = session
        self._switches = switches

    def frame(self, kind: int, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(bytes([kind]) + data)

    def readable(self) -> bool:
        stdin = self._session.process.stdin
        try:
            message = self._socket.receive()
        except OSError:
            return False
        if message is None:
            return False
        with contextlib.suppress(OSError, ValueError):
            if isinstance(message, bytes) and stdin is not None:
                if message[:1] == b"\x00":
                    stdin.write(message[1:])
                    stdin.flush()
                elif message[:1] == b"\x04":
                    stdin.close()
            elif isinstance(message, str):
                order = json.loads(message)
                if order.get("type") == "signal":
                    name = f"SIG{order['signal'].removeprefix('SIG')}"
                    os.killpg(self._session.process.pid, signal.Signals[name])
        return True

    def exited(self, code: int, rest: list[tuple[int, bytes]]) -> None:
        if self._switches.take("no_exit_frame"):
            return
        with contextlib.suppress(OSError):
            # Known to come before the last output.
            early = json.dumps({"type": "exit", "exit_code": code})
            if self._switches.exit_text_first:
                self._socket.send(early)
            for kind, data in rest:
                self.frame(kind, data)
            self._socket.send(bytes([EXIT, code]))
            if not self._switches.exit_text_first:
                self._socket.send(early)

    def linger(self) -> None:
        """Stay open after the end, for as long as the client does not close."""
        end = time.monotonic() + self._switches.linger_s
        self._socket.socket.settimeout(0.2)
        while time.monotonic() < end and not self._switches.closing.is_set():
            try:
                if self._socket.receive() is None:
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        self._socket.close()


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(data)
    with contextlib.suppress(OSError, ValueError):
        process.stdin.close()


def _code(returned: int) -> int:
    return returned if returned >= 0 else 128 - returned


def relay(exchange: Exchange, connect: Callable[[str, int], int]) -> None:
    """``WS proxy``: pass bytes between the client and a port of the machine."""
    import socket as sockets

    socket = WebSocket(exchange)
    first = socket.receive()
    order = json.loads(first) if isinstance(first, str) else {}
    host, port = str(order.get("host", "localhost")), int(order.get("port", 0))
    try:
        other = sockets.create_connection(("127.0.0.1", connect(host, port)), timeout=5)
    except OSError:
        socket.send(json.dumps({"status": "error", "error": "connection refused"}))
        socket.close()
        return
    socket.send(json.dumps({"status": "connected", "target": f"10.0.0.1:{port}"}))

    def back() -> None:
        with contextlib.suppress(OSError):
            while data := other.recv(FRAME_BYTES):
                socket.send(data)
        socket.close()

    thread = threading.Thread(target=back, daemon=True)
    thread.start()
    with contextlib.suppress(OSError):
        while isinstance(message := socket.receive(), bytes):
            other.sendall(message)
    with contextlib.suppress(OSError):
        other.shutdown(sockets.SHUT_WR)
    thread.join(5)
    other.close()
