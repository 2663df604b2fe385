"""What shall go wrong, and how the service behaves where it is known to differ."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from servers.faults import FaultQueue
from servers.http import Request

Chunking = Literal["exact", "merge", "random"]
Kind = Literal["before", "after", "status", "slow", "html"]


@dataclass
class Rule:
    """What becomes of a request.

    Attributes:
        kind: ``"before"``/``"after"``: the connection is cut without an answer, before or after
            the effect; ``"status"``: an answer in the place of the effect; ``"html"``: a page of a
            proxy; ``"slow"``: some seconds pass first.
        raw: The body is text as it is, not JSON.
    """

    kind: Kind
    status: int = 500
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reset: bool = False
    raw: bool = False


@dataclass
class Switches:
    """The behaviour of one server.

    Attributes:
        chunking: How the frames of ``POST exec`` arrive.
        odd_sizes: Frames of random length.
        lose_every: Every so many commands lose their standard output on the stream; 0 for none.
        late_attach_s: Commands run so long before the client is attached; see 64 KiB of history.
        hold_exec_s: How long the answer of ``POST exec`` stays open after the exit frame.
        exit_text_first: A WebSocket tells the exit as text before the last output.
        linger_s: How long a WebSocket stays open after the exit.
        wake_s: How long waking up from cold takes.
        cold_fs_hangs_s: How long file requests to a cold machine hang.
        invisible_s: How long a new sprite is not found.
        restore_unavailable_s: How long everything answers 502 after a restore, on the clock.
        restore_holds_s: How long the stream of a restore stays open after its end.
        duplicate_status: 409 or 400.
        false_has_more: The last page says that there is more, without a token.
        sessions_as_object: Whether the list of sessions is an object or an array.
        creations_per_minute: Quota of creations; 0 for none.
        truncate_read_at: The next file reads end there without an error.
        latency_s: What every request takes longer.
        idle: Whether machines fall asleep on the clock.
        keeps_labels: Whether labels given at creation are kept.
    """

    chunking: Chunking = "exact"
    odd_sizes: bool = False
    lose_every: int = 0
    late_attach_s: float = 0.0
    hold_exec_s: float = 0.0
    exit_text_first: bool = True
    linger_s: float = 0.5
    wake_s: float = 0.0
    cold_fs_hangs_s: float = 0.0
    invisible_s: float = 0.0
    restore_unavailable_s: float = 0.0
    restore_holds_s: float = 0.0
    duplicate_status: int = 409
    false_has_more: bool = True
    sessions_as_object: bool = True
    creations_per_minute: int = 0
    truncate_read_at: int = 0
    latency_s: float = 0.0
    idle: bool = False
    keeps_labels: bool = True
    closing: threading.Event = field(default_factory=threading.Event)
    chance: Callable[[str, str], Rule | None] | None = None
    _faults: FaultQueue[Rule, Request] = field(default_factory=FaultQueue)
    _once: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self, kind: Kind, method: str = "", path: str = "", *, times: int = 1, **how: Any
    ) -> None:
        """Let something become of the next requests that fit; the oldest rule counts first.

        Args:
            kind: See ``Rule``.
            method: Only this method.
            path: A pattern that is found in the path.
            times: How many requests.
            how: See ``Rule``.
        """

        def fits(request: Request) -> bool:
            found = re.search(path, request.path)
            return method in ("", request.method) and found is not None

        self._faults.add(Rule(kind, **how), fits, times=times)

    def once(self, name: str, times: int = 1) -> None:
        """Let one of these happen: no_exit_frame, checkpoint_fails, restore_fails, read_cut."""
        with self._lock:
            self._once[name] += times

    def take(self, name: str) -> bool:
        """Whether something shall happen now."""
        with self._lock:
            if self._once[name] <= 0:
                return False
            self._once[name] -= 1
            return True

    def pick(self, request: Request) -> Rule | None:
        """The rule for a request, used up by it."""
        rule = self._faults.pick(request)
        if rule is None and self.chance is not None:
            return self.chance(request.method, request.path)
        return rule

    def clear(self) -> None:
        """Nothing goes wrong any more; ways of behaving stay."""
        self._faults.clear()
        with self._lock:
            self._once.clear()
        self.chance = None
        self.lose_every = 0
