"""The time of a service, which tests can move."""

from __future__ import annotations

import threading
import time


class ServerClock:
    """Time that follows the machine's own and can be pushed ahead. For several threads."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._stopped_at: float | None = None
        self._moved = threading.Condition()
        self._closed = False

    def now(self) -> float:
        """Epoch seconds."""
        started = time.time() if self._stopped_at is None else self._stopped_at
        return started + self._ahead

    def stop(self) -> None:
        """Let no time pass any more but by ``advance``."""
        self._stopped_at = time.time()

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        with self._moved:
            self._ahead += seconds
            self._moved.notify_all()

    def wait_until(self, moment: float) -> None:
        """Block until then, by this clock, or until it is closed."""
        with self._moved:
            while not self._closed and (left := moment - self.now()) > 0:
                self._moved.wait(left)

    def close(self) -> None:
        """Release whoever waits."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()
