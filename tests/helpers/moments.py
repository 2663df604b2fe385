"""The moments of a process at which it can be killed for real, by ``kill -9``.

These are: before and after each call to the record store and the provider; below them, of each
HTTP request, before each piece of it is sent, when all of it is sent, and when it is answered;
before each statement of SQLite; and before each change to files and each process that is started.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from urllib3.connection import HTTPConnection

from ekairos_sandbox.testing.faults import Faults

T = TypeVar("T")

Deadly = int | str | None
"""A moment by its number, the first one being 1, or the first one of this name; None: none."""

SYSTEM_CALLS = {
    "fcntl.flock", "os.chmod", "os.chown", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.truncate", "socket.connect", "subprocess.Popen",
}  # fmt: skip
"""Events of the interpreter, each raised before it does what others can see."""


class Moments(Faults):
    """The moments of this process. There can be only one in a process.

    Args:
        deadly: When to die.
        tell: Called at every moment with its name.

    Attributes:
        begun: Whether moments count already.
    """

    def __init__(self, deadly: Deadly, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.begun = False
        self._count = 0
        self._deadly = deadly
        self._tell = tell
        self._counting = threading.RLock()
        sys.addaudithook(self._event)
        _watch_answers(self.pass_by)
        _watch_statements(self.pass_by)

    def pass_by(self, name: str) -> None:
        """Die if this is the moment."""
        if not self.begun:
            return
        with self._counting:
            self._count += 1
            self._tell(name)
            if self._deadly in (self._count, name):
                os.kill(os.getpid(), signal.SIGKILL)

    def run(self, operation: str, call: Callable[[], T]) -> T:
        """Make a call of the provider."""
        return self.step(operation, call, stored=False)

    def step(self, operation: str, call: Callable[[], T], *, stored: bool) -> T:
        """Make a call of the provider or, if ``stored``, the record store."""
        del stored
        self.pass_by(f"before {operation}")
        try:
            return call()
        finally:
            self.pass_by(f"after {operation}")

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.begun:
            return
        if event == "http.client.send":
            line = bytes(arguments[1]).partition(b"\r\n")[0]
            head = line.endswith(b"HTTP/1.1")
            self.pass_by(f"sending {line.decode() if head else 'more'}")
        elif event in SYSTEM_CALLS or (event == "open" and arguments[2] & os.O_ACCMODE):
            self.pass_by(event)


def _watch_answers(pass_by: Callable[[str], None]) -> None:
    getresponse = HTTPConnection.getresponse

    def watched(connection: HTTPConnection) -> Any:
        pass_by("sent")
        answer = getresponse(connection)
        pass_by("answered")
        return answer

    HTTPConnection.getresponse = watched  # type: ignore[assignment,method-assign]


def _watch_statements(pass_by: Callable[[str], None]) -> None:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def watched(*arguments: Any, **more: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **more)
        connection.set_trace_callback(lambda sql: pass_by(sql.partition(" ")[0]))
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]
