"""Faults on demand: what goes wrong, for which requests, how often."""

from __future__ import annotations

import enum
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from servers.faults import FaultQueue
from servers.http import Request


class Fault(enum.Enum):
    """A way for a request to fail. The value says what the client sees."""

    TIMEOUT = "429 timeout"
    RATE_LIMITED = "429 rate-limited"
    DEADLOCK = "500 sql-exception deadlock-detected"
    SERIALIZATION = "500 sql-exception serialization-failure"
    UNKNOWN = "500 unknown"
    BAD_GATEWAY = "502 with an HTML page"
    UNAVAILABLE = "503 with an HTML page"
    SLOW = "the answer comes late"
    HOLD = "carried out, or answered, only when the test says so"
    DROP_BEFORE = "connection closed, nothing was done"
    DROP_AFTER = "connection closed, the request was carried out"
    GARBAGE = "200 with a body that is not JSON, the request was carried out"
    TRUNCATED = "200 with half of the body, the request was carried out"
    READ_ONLY = "400 app-read-only"
    DISABLED = "400 app-disabled"
    CREATION_DISABLED = "400 app-creation-disabled"


APPLIED = frozenset({Fault.SLOW, Fault.HOLD, Fault.DROP_AFTER, Fault.GARBAGE, Fault.TRUNCATED})
"""Faults under which the request is carried out unless told otherwise."""

_EITHER = frozenset({Fault.UNKNOWN, Fault.BAD_GATEWAY, Fault.UNAVAILABLE})
"""Faults that leave it open whether the request was carried out."""


class Gate:
    """Holds one request: ``reached`` says that it is there, ``release`` lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_reached(self, timeout_s: float = 10.0) -> None:
        """Block until the request has arrived; TimeoutError when it does not."""
        if not self._reached.wait(timeout_s):
            raise TimeoutError("no request arrived at the gate")

    def release(self) -> None:
        self._released.set()

    def pass_through(self) -> None:
        self._reached.set()
        self._released.wait()


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault as it strikes one request.

    Attributes:
        applied: Whether the request is carried out all the same. The service may have committed
            before a proxy answers 502, so both values make sense for most faults.
        retry_after: Seconds in the hint of RATE_LIMITED; None means no hint.
        seconds: How long SLOW waits, before the request is carried out.
        reset: Whether a dropped connection is reset instead of closed.
        gate: Where HOLD waits.
        after: Whether HOLD waits between the commit and the answer instead of before.
    """

    fault: Fault
    applied: bool
    retry_after: int | None = None
    seconds: float = 1.0
    reset: bool = False
    gate: Gate | None = None
    after: bool = False


class Faults:
    """The queue of faults of one server. The first rule that fits a request strikes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: FaultQueue[Injection, Request] = FaultQueue()
        self._random: random.Random | None = None
        self._rates: dict[Fault, float] = {}
        self._random_path: str | None = None
        self._gates: list[Gate] = []
        self._closed = False
        self.struck: list[tuple[Fault, str]] = []

    def add(
        self,
        fault: Fault,
        *,
        path: str | None = None,
        method: str | None = None,
        contains: bytes | None = None,
        times: int | None = 1,
        skip: int = 0,
        applied: bool | None = None,
        retry_after: int | None = None,
        seconds: float = 1.0,
        reset: bool = False,
    ) -> None:
        """Let matching requests fail.

        Args:
            fault: What happens.
            path: Only requests to this path; a trailing ``*`` matches any ending.
            method: Only this method.
            contains: Only requests whose body has these bytes.
            times: How many requests to strike; None for all until ``clear``.
            skip: How many matching requests to let through first.
            applied: Whether the request is carried out; by default as the fault says.
            retry_after: See ``Injection``.
            seconds: See ``Injection``.
            reset: See ``Injection``.
        """
        if fault is Fault.HOLD or (fault is Fault.SLOW and applied is False):
            raise ValueError(f"{fault} can not be added like this")
        done = fault in APPLIED if applied is None else applied
        injection = Injection(fault, done, retry_after, seconds, reset)
        self._add(injection, path, method, contains, times, skip)

    def hold(
        self,
        *,
        path: str | None = None,
        method: str | None = None,
        contains: bytes | None = None,
        skip: int = 0,
        after: bool = False,
    ) -> Gate:
        """Stop the next matching request before it is carried out, or before it is answered.

        Closing the server releases it too.
        """
        gate = Gate()
        with self._lock:
            self._gates.append(gate)
            if self._closed:
                gate.release()
        injection = Injection(Fault.HOLD, applied=True, gate=gate, after=after)
        self._add(injection, path, method, contains, 1, skip)
        return gate

    def close(self) -> None:
        """Let everything go that is held."""
        with self._lock:
            self._closed = True
            for gate in self._gates:
                gate.release()

    def _add(
        self,
        injection: Injection,
        path: str | None,
        method: str | None,
        contains: bytes | None,
        times: int | None,
        skip: int,
    ) -> None:
        def fits(request: Request) -> bool:
            return (
                (method is None or method == request.method)
                and _path_fits(path, request.path)
                and (contains is None or contains in request.body)
            )

        self._queue.add(injection, fits, times=times, skip=skip)

    def random(
        self, seed: int, rates: Mapping[Fault, float], *, path: str | None = "/admin/*"
    ) -> None:
        """Let every request fail by chance; each fault has its own rate, the sum at most 1.

        For a 500 ``unknown``, a 502 and a 503 a second throw decides whether the request is
        carried out all the same.
        """
        with self._lock:
            self._random = random.Random(seed)
            self._rates = dict(rates)
            self._random_path = path

    def clear(self) -> None:
        self._queue.clear()
        with self._lock:
            self._random = None

    def pick(self, request: Request) -> Injection | None:
        """The fault for this request, counted as used."""
        with self._lock:
            injection = self._queue.pick(request) or self._by_chance(request.path)
            if injection is not None:
                self.struck.append((injection.fault, request.path))
            return injection

    def _by_chance(self, path: str) -> Injection | None:
        if self._random is None or not _path_fits(self._random_path, path):
            return None
        number = self._random.random()
        for fault, rate in self._rates.items():
            if number < rate:
                heads = fault in _EITHER and self._random.random() < 0.5
                return Injection(fault, heads or fault in APPLIED, seconds=0.05)
            number -= rate
        return None


def _path_fits(pattern: str | None, path: str) -> bool:
    if pattern is None:
        return True
    if pattern.endswith("*"):
        return path.startswith(pattern[:-1])
    return path == pattern


class Overlaps:
    """Meeting points that hold transactions between their checks and their writes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._points: list[_Point] = []
        self._closed = False

    def add(self, count: int, *, creates_only: bool, timeout_s: float) -> None:
        with self._changed:
            self._points.append(_Point(count, creates_only, timeout_s))

    def meet(self, *, creates: bool) -> None:
        """Wait for the others of the first open meeting point, or until its time is over."""
        with self._changed:
            point = next((p for p in self._points if creates or not p.creates_only), None)
            if point is None:
                return
            point.arrived += 1
            if point.arrived >= point.count:
                self._points.remove(point)
                self._changed.notify_all()
                return
            self._changed.wait_for(
                lambda: self._closed or point.arrived >= point.count, timeout=point.timeout_s
            )
            if point in self._points:
                self._points.remove(point)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass(slots=True)
class _Point:
    count: int
    creates_only: bool
    timeout_s: float
    arrived: int = 0
