"""Faults on demand: what goes wrong, for which calls, how often."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace


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


@dataclass(slots=True)
class _Rule:
    operations: frozenset[str]
    injection: Injection
    times: int | None
    skip: int
    every: int
    seen: int = 0


class Faults:
    """The faults of one server. The first rule that fits a call strikes it.

    Operations: ``create get update delete list fork sessions get_session stop extend snapshot
    network run commands command logs kill write read mkdir snapshots get_snapshot
    delete_snapshot``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
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
        with self._lock:
            self._rules.append(_Rule(frozenset(operations), injection, times, skip, every))

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def pick(self, operation: str) -> Injection | None:
        """The fault for this call, counted as used."""
        with self._lock:
            for rule in self._rules:
                if rule.operations and operation not in rule.operations:
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.seen += 1
                if rule.seen % rule.every:
                    continue
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times == 0:
                        self._rules.remove(rule)
                self.struck.append((operation, rule.injection.fault))
                return replace(rule.injection)
        return None

    def count(self, operations: Iterable[str] = ()) -> int:
        """How many faults have struck these operations; none means all."""
        wanted = set(operations)
        with self._lock:
            return sum(1 for name, _ in self.struck if not wanted or name in wanted)
