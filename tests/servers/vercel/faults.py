"""Faults on demand: what goes wrong, for which calls, how often."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from servers.faults import FaultQueue


class Fault(enum.Enum):
    """A way for a call to fail. The value says what the client sees."""

    RESET_BEFORE = "connection reset, nothing was done"
    RESET_AFTER = "connection reset, the call was carried out"
    RATE_LIMITED = "429"
    SERVER_ERROR = "500 with JSON"
    BAD_GATEWAY = "502 with an HTML page, nothing was done"
    BAD_GATEWAY_AFTER = "502 with an HTML page, the call was carried out"
    GARBAGE = "200 with half a JSON body, the call was carried out"
    FORBIDDEN = "403"
    EMPTY_404 = "404 without a body"
    NOT_READY = "400, the image is not ready"
    PAGE = "200 with an HTML page, nothing was done"
    ECHO = "400 that repeats the environment and the source of a creation"
    SLOW = "the answer comes late"
    CUT = "a stream is cut after some records"
    CUT_MID_LINE = "a stream is cut within a record"
    END_EARLY = "a stream ends properly after some records"
    ERROR_RECORD = "a stream ends with an error record"
    STALL = "a stream falls silent after some records"


STREAMED = frozenset(
    (Fault.CUT, Fault.CUT_MID_LINE, Fault.END_EARLY, Fault.ERROR_RECORD, Fault.STALL)
)


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault as it strikes one call.

    Attributes:
        records: How many records of a stream come through first.
        retry_after: Seconds in the header of a 429; None leaves it out.
        seconds: How long ``SLOW`` waits before the call is carried out.
    """

    fault: Fault
    records: int = 0
    retry_after: int | None = None
    seconds: float = 1.0


class Faults:
    """The faults of one server. The first rule that fits a call strikes it.

    Operations: ``create get update delete list fork sessions get_session stop extend snapshot
    network run commands command logs kill write read mkdir snapshots get_snapshot
    delete_snapshot``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: FaultQueue[Injection, str] = FaultQueue()
        self.struck: list[tuple[str, Fault]] = []

    def add(
        self,
        fault: Fault,
        *operations: str,
        times: int | None = 1,
        skip: int = 0,
        every: int = 1,
        records: int = 0,
        retry_after: int | None = None,
        seconds: float = 1.0,
    ) -> None:
        """Let calls fail.

        Args:
            fault: How.
            operations: Which; none means all.
            times: How many; None for all until ``clear``.
            skip: How many to let through first.
            every: Strike each so-manieth call only.
            records: See ``Injection``.
            retry_after: See ``Injection``.
            seconds: See ``Injection``.
        """
        injection = Injection(fault, records, retry_after, seconds)
        self._queue.add(
            injection,
            lambda operation: not operations or operation in operations,
            times=times,
            skip=skip,
            every=every,
        )

    def clear(self) -> None:
        self._queue.clear()

    def pick(self, operation: str) -> Injection | None:
        """The fault for this call, counted as used."""
        injection = self._queue.pick(operation)
        if injection is not None:
            with self._lock:
                self.struck.append((operation, injection.fault))
        return injection

    def count(self, operations: Iterable[str] = ()) -> int:
        """How many faults have struck these operations; none means all."""
        wanted = set(operations)
        with self._lock:
            return sum(1 for name, _ in self.struck if not wanted or name in wanted)
