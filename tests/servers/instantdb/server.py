"""The loopback InstantDB server: HTTP, faults, and what tests observe."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from servers.http import Exchange, Request, Response
from servers.instantdb import errors
from servers.instantdb.apps import App, Apps, AppState, Stage, Status
from servers.instantdb.call import BadJsonError
from servers.instantdb.faults import Fault, Faults, Gate, Injection, Overlaps
from servers.instantdb.routes import Routes, error_response, not_found
from servers.loopback import LoopbackService

Json = Any

_HTML = b"<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"


class InstantServer(LoopbackService):
    """An InstantDB admin server on a free loopback port; use it as a context manager.

    Attributes:
        faults: What shall go wrong; see ``Faults``.
        requests: Every request in the order of the answers, unless ``recording`` is off.
        on_request: Called with every request before its answer is sent.
        apps: The apps themselves, and switches of the whole service.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.apps = Apps()
        self.faults = Faults()
        self.on_request: Callable[[Request], object] = lambda seen: None
        self._overlaps = Overlaps()
        self._routes = Routes(self.apps, self._overlaps)
        self._routes.base_url = self.url
        self._counts: Counter[str] = Counter()
        self._http.start()

    def close(self) -> None:
        """Stop, release whatever still waits, and end all threads. Safe to call twice."""
        self._closing.set()
        self._overlaps.close()
        self.faults.close()
        self._http.stop()
        self._http.server_close()

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

    def seen(self, path: str) -> list[Request]:
        """The recorded requests to one path."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def clear_requests(self) -> None:
        super().clear_requests()
        with self._lock:
            self._counts.clear()

    def _state(self, app_id: str) -> AppState:
        state = self.apps.get(app_id)
        if state is None:
            raise KeyError(app_id)
        return state

    def _answer(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        injection = self.faults.pick(request)
        response: Response | None
        if injection is None:
            response = self._handle(request)
        else:
            request.fault = injection.fault
            response = self._strike(injection, request)
        request.status = response.status if response is not None else 0
        with self._lock:
            self._counts[f"{request.method} {request.path}"] += 1
        self._record(request)
        self.on_request(request)
        if response is None:
            exchange.drop(reset=injection is not None and injection.reset)
        return response

    def _strike(self, injection: Injection, request: Request) -> Response | None:
        """What the client gets to see under a fault; None where the connection is dropped."""
        if injection.fault is Fault.SLOW:
            self._closing.wait(injection.seconds)
        if injection.gate is not None and not injection.after:
            injection.gate.pass_through()
        response = self._handle(request) if injection.applied else None
        if injection.gate is not None and injection.after:
            injection.gate.pass_through()
        return _damage(injection, response)

    def _headers(self) -> dict[str, str]:
        return {"Date": formatdate(usegmt=True)}

    def _handle(self, request: Request) -> Response:
        try:
            found = self._routes.find(request)
            if found is None:
                return not_found()
            endpoint, call = found
            call.parse()
            return endpoint(call)
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


def _damage(injection: Injection, response: Response | None) -> Response | None:
    fault = injection.fault
    if fault in (Fault.SLOW, Fault.HOLD):
        return response
    if fault in _FAILURES:
        return error_response(_FAILURES[fault](injection))
    if fault is Fault.BAD_GATEWAY or fault is Fault.UNAVAILABLE:
        return Response(502 if fault is Fault.BAD_GATEWAY else 503, _HTML, "text/html")
    if fault in (Fault.DROP_BEFORE, Fault.DROP_AFTER) or response is None:
        return None
    if fault is Fault.GARBAGE:
        return Response(200, b'{"tx-id": 12,,', response.content_type)
    response.cut = True
    return response


__all__ = ["App", "Fault", "Gate", "InstantServer"]
