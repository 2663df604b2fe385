"""An end in time for a whole exchange over HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

_of_this_request: ContextVar[Deadline | None] = ContextVar("_of_this_request", default=None)


class Deadline:
    """Shuts the connection of an exchange down at a point in time, whatever it is waiting for.

    The timeout of a socket bounds each read and each write alone: an answer that trickles in
    could take for ever. Looking up names and connecting are left to their own timeouts.

    Args:
        seconds: From now on; None: never.

    Attributes:
        passed: Whether the time is over.
    """

    def __init__(self, seconds: float | None) -> None:
        self.passed = False
        self._end = None if seconds is None else time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer: threading.Timer | None = None

    def watch(self, sock: socket.socket) -> None:
        """Shut this socket down as well when the time is over."""
        if self._end is None:
            return
        # A descriptor of its own: the connection may be closed, and its number reused, any time.
        handle = socket.socket(fileno=socket.dup(sock.fileno()))
        with self._lock:
            self._sockets.append(handle)
            if self.passed:
                _shut(handle)

    def shorten(self, seconds: float) -> None:
        """Let it pass in so many seconds, if there is a deadline and it is not earlier."""
        end = time.monotonic() + seconds
        if self._timer is None or self._end is None or end >= self._end:
            return
        self._timer.cancel()
        self._timer.join()
        self._end = end
        self._start()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Watch every connection that this thread sends a request over meanwhile."""
        token = _of_this_request.set(self)
        try:
            yield
        finally:
            _of_this_request.reset(token)

    def __enter__(self) -> Deadline:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        for handle in self._sockets:
            handle.close()
        self._sockets.clear()

    def _start(self) -> None:
        if self._end is None:
            return
        timer = threading.Timer(max(0.0, self._end - time.monotonic()), self._pass)
        timer.daemon = True
        # An interpreter that is ending starts no thread: there each read has its timeout only.
        with contextlib.suppress(RuntimeError):
            timer.start()
            self._timer = timer

    def _pass(self) -> None:
        with self._lock:
            self.passed = True
            for handle in self._sockets:
                _shut(handle)


def watch_for_this_request(sock: socket.socket) -> None:
    """Put a connection under the deadline of the request that this thread is sending."""
    deadline = _of_this_request.get()
    if deadline is not None:
        deadline.watch(sock)


def _shut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)
