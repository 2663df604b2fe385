"""The faults that are still to come: which requests they strike, and how often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Fault = TypeVar("Fault")
Call = TypeVar("Call")


@dataclass(slots=True)
class _Planned(Generic[Fault, Call]):
    fault: Fault
    fits: Callable[[Call], bool]
    times: int | None
    skip: int
    every: int
    seen: int = 0

    def strikes(self, call: Call) -> bool:
        if not self.fits(call):
            return False
        self.seen += 1
        return self.seen > self.skip and (self.seen - self.skip) % self.every == 0


class FaultQueue(Generic[Fault, Call]):
    """The faults of one server. The oldest one that fits a call strikes it. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[_Planned[Fault, Call]] = []

    def add(
        self,
        fault: Fault,
        fits: Callable[[Call], bool],
        *,
        times: int | None = 1,
        skip: int = 0,
        every: int = 1,
    ) -> None:
        """Let calls fail.

        Args:
            fault: How.
            fits: Which calls.
            times: How many of them; None for all until ``clear``.
            skip: How many to let through first.
            every: Strike each so-manieth of them only.
        """
        with self._lock:
            self._planned.append(_Planned(fault, fits, times, skip, every))

    def pick(self, call: Call) -> Fault | None:
        """The fault for this call, used up by one."""
        with self._lock:
            for planned in self._planned:
                if not planned.strikes(call):
                    continue
                if planned.times is not None:
                    planned.times -= 1
                    if planned.times <= 0:
                        self._planned.remove(planned)
                return planned.fault
        return None

    def clear(self) -> None:
        """Let everything work again."""
        with self._lock:
            self._planned.clear()
