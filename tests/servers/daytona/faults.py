"""What shall go wrong, and time that can be moved."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from servers.daytona.wire import Dropped, Request, Response

Kind = Literal["drop", "drop_after", "answer", "answer_after", "cut", "trickle", "hold"]


class ServerClock:
    """The machine's time, which tests may move forward."""

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


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: ``drop``: close without an answer and without effect. ``drop_after``: the same after
            the effect. ``answer``: answer this instead, without effect. ``answer_after``: the same
            after the effect. ``cut``: half of the real answer. ``trickle``: the real answer byte
            by byte. ``hold``: wait by the server's clock, then handle it.
        method: HTTP method, or ``*``.
        path: Pattern that the whole path fits.
        times: How often; a large number for always.
        skip: How many requests pass before it begins.
        response: What is answered.
        seconds: How long to hold, or the pause between two bytes.
    """

    kind: Kind
    method: str
    path: re.Pattern[str]
    times: int = 1
    skip: int = 0
    response: Response = field(default_factory=Response)
    seconds: float = 0.0


class Faults:
    """The faults that are still to come. For several threads."""

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(
        self,
        kind: Kind,
        method: str,
        path: str,
        *,
        times: int = 1,
        skip: int = 0,
        status: int = 500,
        body: Any = None,
        headers: dict[str, str] | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Let the next fitting requests go wrong; see ``Fault``."""
        response = Response(status, body, headers or {})
        fault = Fault(kind, method, re.compile(path), times, skip, response, seconds)
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Let everything work again."""
        with self._lock:
            self._waiting.clear()

    def pick(self, request: Request) -> Fault | None:
        """The fault for a request, used up by one."""
        with self._lock:
            for fault in self._waiting:
                if fault.method not in ("*", request.method):
                    continue
                if not fault.path.fullmatch(request.path):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                if not fault.times:
                    self._waiting.remove(fault)
                return fault
        return None

    def before(self, fault: Fault) -> Response | None:
        """What happens before the effect: an answer in its place, or None to go on."""
        if fault.kind == "drop":
            raise Dropped
        if fault.kind == "answer":
            return fault.response
        if fault.kind == "hold":
            self._clock.wait_until(self._clock.now() + fault.seconds)
        return None

    def after(self, fault: Fault, response: Response) -> Response:
        """What becomes of the real answer."""
        if fault.kind == "drop_after":
            raise Dropped
        if fault.kind == "answer_after":
            return fault.response
        if fault.kind == "cut":
            response.cut = True
        if fault.kind == "trickle":
            response.trickle_s = fault.seconds
        return response
