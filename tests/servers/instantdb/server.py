"""The loopback InstantDB server: HTTP, faults, and what tests observe."""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from servers.instantdb import errors
from servers.instantdb.apps import App, Apps, AppState, Stage, Status
from servers.instantdb.faults import Fault, Faults, Gate, Injection, Overlaps
from servers.instantdb.request import BadJsonError, Request
from servers.instantdb.routes import Response, Routes, error_response, not_found
from servers.instantdb.wire import HttpServer

Json = Any

_HTML = b"<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request as it arrived, and what was answered.

    ``status`` is 0 when the connection was closed without an answer.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client_port: int
    status: int
    fault: Fault | None


class InstantServer:
    """An InstantDB admin server on a free loopback port; use it as a context manager.

    Attributes:
        url: What a client takes as its API address.
        faults: What shall go wrong; see ``Faults``.
        requests: Every request in the order of the answers, unless ``recording`` is off.
        on_request: Called with every request before its answer is sent.
        internal_errors: Tracebacks of mistakes in this server; tests want it empty.
        apps: The apps themselves, and switches of the whole service.
    """

    def __init__(self, port: int = 0) -> None:
        self.apps = Apps()
        self.faults = Faults()
        self.requests: list[Recorded] = []
        self.recording = True
        self.on_request: Callable[[Recorded], object] = lambda seen: None
        self.internal_errors: list[str] = []
        self._overlaps = Overlaps()
        self._routes = Routes(self.apps, self._overlaps)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._closing = threading.Event()
        self._http = HttpServer(("127.0.0.1", port), self._answer)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._routes.base_url = self.url
        self._thread = threading.Thread(target=self._accept, name="instantdb")
        self._thread.start()

    def __enter__(self) -> InstantServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, release whatever still waits, and end all threads. Safe to call twice."""
        self._closing.set()
        self._overlaps.close()
        self.faults.close()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self._http.server_port), timeout=1).close()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            self._http.handle_request()

    def create_app(self, schema: Json = None, *, title: str = "app", rules: Json = None) -> App:
        """A new app, with its schema pushed when one is given (the document of a push)."""
        return self.apps.create(schema, title=title, code=rules).app

    def rows(self, app_id: str, namespace: str) -> list[dict[str, Json]]:
        """All entities of a namespace in order of creation, read past the protocol."""
        return self._state(app_id).rows(namespace)

    def rules(self, app_id: str) -> Json:
        """The rule document of an app, or None."""
        return self._state(app_id).code

    def set_status(self, app_id: str, status: Status) -> None:
        """Put one app into maintenance: ``active``, ``read-only`` or ``disabled``."""
        self._state(app_id).status = status

    def set_stage(self, stage: Stage) -> None:
        """Put the whole service into a stage of its winding down."""
        self.apps.stage = stage

    @property
    def job_polls(self) -> int:
        """How many polls find an index job ``processing`` before it is done."""
        return self._routes.job_polls

    @job_polls.setter
    def job_polls(self, polls: int) -> None:
        self._routes.job_polls = polls

    def overlap_creates(self, count: int, *, timeout_s: float = 10.0) -> None:
        """Let ``count`` transactions with a strict create pass their checks before any writes."""
        self._overlaps.add(count, creates_only=True, timeout_s=timeout_s)

    def overlap_transactions(self, count: int, *, timeout_s: float = 10.0) -> None:
        """Let any ``count`` transactions pass their checks before any of them writes."""
        self._overlaps.add(count, creates_only=False, timeout_s=timeout_s)

    def counts(self) -> Counter[str]:
        """How many requests came in, by ``METHOD path``."""
        with self._lock:
            return Counter(self._counts)

    def seen(self, path: str) -> list[Recorded]:
        """The recorded requests to one path."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def clear_requests(self) -> None:
        with self._lock:
            self.requests.clear()
            self._counts.clear()

    def _state(self, app_id: str) -> AppState:
        state = self.apps.get(app_id)
        if state is None:
            raise KeyError(app_id)
        return state

    def _answer(self, request: Request) -> Response | Injection:
        """The response to a request, or the fault that drops its connection."""
        injection = self.faults.pick(request.method, request.path, request.raw)
        if injection is not None and injection.fault is Fault.SLOW:
            self._closing.wait(injection.seconds)
        gate = injection.gate if injection is not None else None
        after = injection is not None and injection.after
        if gate is not None and not after:
            gate.pass_through()
        response: Response | None = None
        if injection is None or injection.applied:
            response = self._handle(request)
        if gate is not None and after:
            gate.pass_through()
        result = _damage(injection, response)
        recorded = Recorded(
            request.method,
            request.path,
            request.query,
            request.headers,
            request.raw,
            request.client_port,
            result.status if isinstance(result, Response) else 0,
            injection.fault if injection is not None else None,
        )
        with self._lock:
            self._counts[f"{request.method} {request.path}"] += 1
            if self.recording:
                self.requests.append(recorded)
        self.on_request(recorded)
        return result

    def _handle(self, request: Request) -> Response:
        try:
            endpoint = self._routes.find(request)
            if endpoint is None:
                return not_found()
            request.parse()
            return endpoint(request)
        except BadJsonError:
            return Response(400, b"Malformed JSON in request body.", "text/plain")
        except errors.ApiError as error:
            return error_response(error)
        except Exception:
            self.internal_errors.append(traceback.format_exc())
            return error_response(errors.unknown())


_FAILURES: dict[Fault, Callable[[Injection], errors.ApiError]] = {
    Fault.TIMEOUT: lambda _: errors.timed_out(),
    Fault.RATE_LIMITED: lambda injection: errors.rate_limited(injection.retry_after),
    Fault.DEADLOCK: lambda _: errors.sql_exception("deadlock-detected"),
    Fault.SERIALIZATION: lambda _: errors.sql_exception("serialization-failure"),
    Fault.UNKNOWN: lambda _: errors.unknown(),
    Fault.READ_ONLY: lambda _: errors.app_read_only(),
    Fault.DISABLED: lambda _: errors.app_disabled(),
    Fault.CREATION_DISABLED: lambda _: errors.app_creation_disabled(),
}


def _damage(injection: Injection | None, response: Response | None) -> Response | Injection:
    """What the client gets to see of a response under a fault."""
    if injection is None or injection.fault in (Fault.SLOW, Fault.HOLD):
        assert response is not None
        return response
    fault = injection.fault
    if fault in _FAILURES:
        return error_response(_FAILURES[fault](injection))
    if fault is Fault.BAD_GATEWAY or fault is Fault.UNAVAILABLE:
        return Response(502 if fault is Fault.BAD_GATEWAY else 503, _HTML, "text/html")
    if fault in (Fault.DROP_BEFORE, Fault.DROP_AFTER) or response is None:
        return injection
    if fault is Fault.GARBAGE:
        return Response(200, b'{"tx-id": 12,,', response.content_type)
    response.headers["x-truncated"] = str(len(response.body) // 2)
    return response


__all__ = ["App", "Fault", "Gate", "InstantServer", "Recorded"]
