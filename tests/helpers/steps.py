"""Every call of a process to its record store and its provider as a numbered step that can fail.

``Steps`` is one process. ``SteppedStore`` and ``ekairos_sandbox.testing.faulty`` put its calls
through it. A plan says which steps fail, and how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, cast, get_args

from helpers.memory_world import ManualClock

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RepositoryUnavailableError,
)
from ekairos_sandbox.models import RecordChanges, RecordQuery, SandboxRecord
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.results import RecordPage
from ekairos_sandbox.testing.faults import Faults

T = TypeVar("T")

Kind = Literal[
    "refused",
    "lost_before",
    "lost_after",
    "late",
    "garbage",
    "interrupt_before",
    "interrupt_after",
    "kill_before",
    "kill_after",
]
"""``refused``: no effect, and the caller knows. ``lost_before``/``lost_after``: no answer, without
and with the effect. ``late``: the same with the effect, and it took longer than any deadline.
``garbage``: the effect, and an answer that makes no sense. ``interrupt_...``: Ctrl-C at that
moment. ``kill_...``: the process is no more."""

KINDS: tuple[Kind, ...] = get_args(Kind)
LATE_S = 400.0
"""Longer than any creation may take."""

SHELL_LATE_S = 15.0
"""How long its client waits for a script beyond the time that the script is told to wait."""

Plan = Mapping[int, Kind]


class Killed(BaseException):
    """The process was killed: nothing that it would still do happens."""


class Steps(Faults):
    """One process.

    Attributes:
        trace: Its steps so far: what was called, and what went wrong.
        dead: Whether it was killed.
    """

    def __init__(self, plan: Plan, clock: ManualClock) -> None:
        super().__init__()
        self.trace: list[tuple[str, Kind | None]] = []
        self.dead = False
        self._plan = plan
        self._clock = clock

    @property
    def faults(self) -> int:
        """How many steps went wrong so far."""
        return sum(kind is not None for _, kind in self.trace)

    def run(self, operation: str, call: Callable[[], T]) -> T:
        """Make a call of the provider; whose account it is costs no call."""
        if operation in ("account", "attach", "list_checkpoints") and not self.dead:
            return call()
        return self.step(operation, call, stored=False)

    def step(self, operation: str, call: Callable[[], T], *, stored: bool) -> T:
        """Carry out the next step, or let it go wrong."""
        if self.dead:
            raise Killed
        kind = self._plan.get(len(self.trace) + 1)
        self.trace.append((operation, kind))
        if kind is None:
            return call()
        if kind == "refused":
            raise _problem(stored, "connection refused", unknown=False)
        if kind == "lost_before":
            raise _problem(stored, "no answer in time", unknown=True)
        if kind == "interrupt_before":
            raise KeyboardInterrupt
        if kind == "kill_before":
            self.dead = True
            raise Killed
        answer = call()
        if kind == "late":
            self._clock.advance(SHELL_LATE_S if operation == "shell" else LATE_S)
        if kind == "interrupt_after":
            raise KeyboardInterrupt
        if kind == "kill_after":
            self.dead = True
            raise Killed
        if kind == "garbage" and isinstance(answer, bytes):
            return cast(T, b"<html>502 Bad Gateway</html>" + bytes(range(256)))
        if kind == "garbage" and not stored:
            raise ProviderError("the answer makes no sense", outcome="unknown")
        raise _problem(stored, "connection reset", unknown=True)


def _problem(stored: bool, text: str, *, unknown: bool) -> Exception:
    outcome: Any = "unknown" if unknown else "failed"
    if stored:
        return RepositoryUnavailableError(text, outcome=outcome)
    cls = ProviderTimeoutError if "time" in text else ProviderUnavailableError
    return cls(text, outcome=outcome)


class Step(Protocol):
    """Makes a call, or lets it go wrong."""

    def __call__(self, operation: str, call: Callable[[], T], *, stored: bool) -> T: ...


class SteppedStore(SandboxRepository):
    """A record store whose calls are steps of a process."""

    def __init__(self, inner: SandboxRepository, step: Step) -> None:
        self.inner = inner
        self.step = step

    @property
    def owner(self) -> str:
        return self.inner.owner

    def create(self, record: SandboxRecord) -> SandboxRecord:
        return self._step("record create", lambda: self.inner.create(record))

    def get(self, sandbox_id: str) -> SandboxRecord:
        return self._step("record get", lambda: self.inner.get(sandbox_id))

    def transition(
        self, sandbox_id: str, expected_rev: int, changes: RecordChanges
    ) -> SandboxRecord:
        return self._step(
            "record transition", lambda: self.inner.transition(sandbox_id, expected_rev, changes)
        )

    def list(self, query: RecordQuery) -> RecordPage:
        return self._step("record list", lambda: self.inner.list(query))

    def delete(self, sandbox_id: str) -> None:
        self._step("record delete", lambda: self.inner.delete(sandbox_id))

    def check(self, *, acting: bool = True) -> None:
        self._step("store check", lambda: self.inner.check(acting=acting))

    def _step(self, operation: str, call: Callable[[], T]) -> T:
        return self.step(operation, call, stored=True)
