"""Live connections of this process: a bounded cache by durable id."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.provider import Connection, Provider, SandboxRef


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A connection and what has to be known to use it without reading the record.

    Attributes:
        sandbox_id: The durable id.
        provider: The provider.
        ref: What the record knew of the sandbox.
        connection: The way in.
        incarnation: Which incarnation it leads to.
        epoch: The mark that the sandbox must bear.
        home: Directory inside under which jobs are kept.
    """

    sandbox_id: str
    provider: Provider[Any]
    ref: SandboxRef[Any]
    connection: Connection
    incarnation: int
    epoch: str
    home: str


class ConnectionCache:
    """Keeps the most recently used connections and closes what it lets go.

    Args:
        size: How many to keep.
    """

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Live] = OrderedDict()
        reset_in_child(self)

    def get(self, sandbox_id: str) -> Live | None:
        """Return the connection of a sandbox, or None."""
        with self._lock:
            live = self._entries.get(sandbox_id)
            if live is not None:
                self._entries.move_to_end(sandbox_id)
            return live

    def put(self, live: Live) -> None:
        """Keep a connection, in the place of an older one of the same sandbox."""
        with self._lock:
            dropped = [self._entries.pop(live.sandbox_id, None)]
            self._entries[live.sandbox_id] = live
            if len(self._entries) > self._size:
                dropped.append(self._entries.popitem(last=False)[1])
        for old in dropped:
            if old is not None and old is not live:
                old.connection.close()

    def drop(self, sandbox_id: str, live: Live | None = None) -> None:
        """Let go of a sandbox's connection; if ``live`` is given, only if it is that one."""
        with self._lock:
            current = self._entries.get(sandbox_id)
            if current is None or live not in (None, current):
                return
            del self._entries[sandbox_id]
        current.connection.close()

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            entries, self._entries = self._entries, OrderedDict()
        for live in entries.values():
            live.connection.close()

    def after_fork(self) -> None:
        """Start empty: the parent's sockets are left alone."""
        self._lock = threading.Lock()
        self._entries = OrderedDict()
