"""The client of a provider's SDK, for ``native()``: opened when first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ekairos_sandbox.forks import reset_in_child


class SdkClient:
    """One client in each process, for all sandboxes of a provider.

    What it has given out works until it is closed, whatever becomes of connections.

    Args:
        open_client: Makes a client, which has ``close()``.
    """

    def __init__(self, open_client: Callable[[], Any]) -> None:
        self._open = open_client
        self._lock = threading.Lock()
        self._client: Any = None
        reset_in_child(self)

    def get(self) -> Any:
        """Return the client; raises what ``open_client`` raises."""
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def close(self) -> None:
        """Close the client if there is one; the next ``get`` opens another. Safe to call twice."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def after_fork(self) -> None:
        """Begin without a client: the parent's has sockets and threads of its own."""
        self._lock = threading.Lock()
        self._client = None
