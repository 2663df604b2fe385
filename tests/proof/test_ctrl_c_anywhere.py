"""Ctrl-C at any point of the interpreter at which it can come, all through a creation.

Python looks for signals when a function begins and when a call of C code returns. A profile
function sees just these points, in this library and in all that it uses.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from helpers.proof import SETTLED_S, World

from ekairos_sandbox import RaisingService, SandboxService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository


def interrupted_at(point: int, call: Callable[[], object]) -> tuple[int, str]:
    """Interrupt a call at a point, from 1 on; 0: never.

    Returns:
        How many points came, and which one it was; empty if the call did not end by it.
    """
    count, where = 0, ""

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count, where
        if event not in ("call", "c_return"):
            return
        count += 1
        if count == point:
            sys.setprofile(None)
            code = frame.f_code
            where = f"{code.co_filename}:{frame.f_lineno} {code.co_name} {event} {argument}"
            raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call()
    except KeyboardInterrupt:
        # It is dealt with here, as in a program: whatever its traceback holds is still held.
        sys.setprofile(before)
        return count, where
    finally:
        sys.setprofile(before)
    return count, ""


class Interrupted:
    """A program that is interrupted while it creates, and goes on."""

    def __init__(self, folder: Path) -> None:
        self.world = World({})
        self.store = SqliteSandboxRepository(folder / "records.db")
        self.service: RaisingService = SandboxService(
            self.store,
            environ={"API_KEY": "s3cr3t-4711-value"},
            clock=self.world.clock,
            providers=[self.world.fake],
        ).raising

    def create(self) -> str:
        return self.world.create(self.service, None)

    def problems(self) -> list[str]:
        """Say what is not as it should be, at once and once every deadline has passed."""
        found = []
        records = list(self.service.iter_sandboxes())
        running = len(self.world.fake.sandboxes)
        if running > sum(record.status in ("creating", "active") for record in records):
            found.append(f"{running} run, of which nobody knows: {records}")
        if self.store._pool._used:
            found.append("a fork would wait for a connection that nobody uses")
        mine = self.create()
        self.world.clock.advance(SETTLED_S)
        self.service.reconcile(apply=True)
        left = {record.id: record for record in self.service.iter_sandboxes()}
        active = {record.id for record in left.values() if record.status == "active"} - {mine}
        if len(self.world.fake.sandboxes) != 1 + len(active):
            found.append(f"left: {self.world.fake.sandboxes}")
        if any(r.status not in ("active", "error", "shutdown") for r in left.values()):
            found.append(f"left in between: {left}")
        if active:
            found.append("untold")
        self.service.close()
        return found


def tried(folder: Path, step: int) -> tuple[int, dict[str, list[str]]]:
    """Interrupt at every ``step``-th point; return how often, and what was wrong where."""
    number = itertools.count()

    def fresh() -> Interrupted:
        return Interrupted(folder / str(next(number)))

    fresh().create()  # what is only done once, like importing, is done
    last, _ = interrupted_at(0, fresh().create)
    wrong: dict[str, list[str]] = {}
    points = range(1 + step // 2, last + 1, step)
    for point in points:
        program = fresh()
        _, where = interrupted_at(point, program.create)
        if not where:
            continue  # it was shorter this time, or other C code has swallowed it
        problems = program.problems()
        if problems:
            wrong[where] = problems
    return len(points), wrong


@pytest.mark.parametrize("step", [40, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Pydantic serializer")
# In a finalizer nobody can hear of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_point_of_a_creation_leaves_nothing_that_nobody_knows(step: int) -> None:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        count, wrong = tried(Path(folder), step)
    print(f"{count} points")
    # The very last ones: all is done, and only the handle is not in the caller's hands yet.
    last = {where for where, problems in wrong.items() if problems == ["untold"]}
    assert {where: wrong[where] for where in set(wrong) - last} == {}
    assert len(last) <= 3
    assert all("raising.py" in where for where in last), last
