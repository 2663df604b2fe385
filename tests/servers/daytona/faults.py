"""What shall go wrong, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from servers.clock import ServerClock
from servers.faults import FaultQueue
from servers.http import Request, Response

Kind = Literal["drop", "drop_after", "answer", "answer_after", "cut", "trickle", "hold"]


class Dropped(Exception):
    """Close the connection without an answer."""


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: ``drop``: close without an answer and without effect. ``drop_after``: the same after
            the effect. ``answer``: answer this instead, without effect. ``answer_after``: the same
            after the effect. ``cut``: half of the real answer. ``trickle``: the real answer byte
            by byte. ``hold``: wait by the server's clock, then handle it.
        response: What is answered.
        seconds: How long to hold, or the pause between two bytes.
    """

    kind: Kind
    response: Response = field(default_factory=Response)
    seconds: float = 0.0


class Faults:
    """The faults that are still to come."""

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._queue: FaultQueue[Fault, Request] = FaultQueue()

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
        """Let the next fitting requests go wrong.

        Args:
            kind: See ``Fault``.
            method: HTTP method, or ``*``.
            path: Pattern that the whole path fits.
            times: How many; a large number for all.
            skip: How many to let through first.
            status: Of what is answered.
            body: JSON, or bytes.
            headers: Further headers.
            seconds: See ``Fault``.
        """

        def fits(request: Request) -> bool:
            found = re.fullmatch(path, request.path)
            return method in ("*", request.method) and found is not None

        response = Response(status, body, headers=headers or {})
        self._queue.add(Fault(kind, response, seconds), fits, times=times, skip=skip)

    def clear(self) -> None:
        """Let everything work again."""
        self._queue.clear()

    def pick(self, request: Request) -> Fault | None:
        """The fault for a request, used up by one."""
        return self._queue.pick(request)

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
