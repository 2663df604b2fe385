"""What every loopback service is: HTTP on a free port, a log of the requests, and an end."""

from __future__ import annotations

import abc
import threading
from types import TracebackType
from typing import Self

from servers.http import Exchange, HttpServer, Request, Response


class LoopbackService(abc.ABC):
    """A service on a loopback port; use it as a context manager.

    Attributes:
        url: Where it is, without a slash at the end.
        requests: What came, unless ``recording`` is off.
        internal_errors: Tracebacks of mistakes in this server; tests want it empty.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self.recording = True
        self.internal_errors: list[str] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = HttpServer(("127.0.0.1", port), self._answer, self._headers)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Stop and leave nothing behind. Safe to call twice."""

    def clear_requests(self) -> None:
        """Forget what was seen so far."""
        with self._lock:
            self.requests.clear()

    def wait_until_left(self, timeout_s: float) -> None:
        """Block until every client has gone and what it asked for has been carried out."""
        self._http.wait_until_left(timeout_s)

    def _record(self, request: Request) -> None:
        with self._lock:
            if self.recording:
                self.requests.append(request)

    @abc.abstractmethod
    def _answer(self, exchange: Exchange) -> Response | None:
        """Return what to answer, or None when that has been done."""

    def _headers(self) -> dict[str, str]:
        """What the head of every answer has."""
        return {}
