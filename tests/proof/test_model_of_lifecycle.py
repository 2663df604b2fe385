"""Random histories of one sandbox, with faults, against a model of what must come of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import pytest
from helpers.proof import ID, World
from helpers.steps import KINDS, Killed, Kind, Steps
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ekairos_sandbox import (
    CommandResult,
    RaisingService,
    RemoteFileNotFoundError,
    SandboxError,
    SandboxGoneError,
    SandboxStoppedError,
)

Life = Literal["absent", "runs", "asleep", "vanished", "lost", "stopped", "destroyed"]
"""``asleep``: the provider stopped it by itself. ``vanished``: gone without the record knowing;
``lost``: the record knows."""


class Lifecycle(RuleBasedStateMachine):
    """One durable id, used by two processes in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World({})
        self.life: Life = "absent"
        self.files: dict[str, bytes] = {}
        self.count = 0
        self.processes = [self.world.process(), self.world.process()]

    # What callers do

    @precondition(lambda self: self.life == "absent")
    @rule()
    def create(self) -> None:
        self.world.create(self.processes[0])
        self.life = "runs"

    @precondition(lambda self: self.life != "absent")
    @rule(which=st.sampled_from((0, 1)))
    def run(self, which: int) -> None:
        self.count += 1
        token = f"t{self.count}"
        if self.life in ("stopped", "destroyed"):
            with pytest.raises(SandboxStoppedError):
                self._run(self.processes[which], token)
            assert self.world.effects[token] == 0
            return
        anew = self.life in ("vanished", "lost")
        result = self._run(self.processes[which], token)
        assert self.world.effects[token] == 1
        if anew:
            self.files = {}
        self.life = "runs"
        assert result.success

    @precondition(lambda self: self.life != "absent")
    @rule(which=st.sampled_from((0, 1)), name=st.sampled_from("ab"), content=st.binary(max_size=9))
    def write(self, which: int, name: str, content: bytes) -> None:
        if self.life in ("stopped", "destroyed"):
            with pytest.raises(SandboxStoppedError):
                self.processes[which].write_files(ID, {name: content})
            return
        if self.life in ("vanished", "lost"):
            self.files = {}
        self.processes[which].write_files(ID, {name: content})
        self.files[name] = content
        self.life = "runs"

    @precondition(lambda self: self.life != "absent")
    @rule(which=st.sampled_from((0, 1)), name=st.sampled_from("ab"))
    def read(self, which: int, name: str) -> None:
        service = self.processes[which]
        match self.life:
            case "stopped" | "destroyed":
                with pytest.raises(SandboxStoppedError):
                    service.read_file(ID, name)
            case "vanished" | "lost":
                with pytest.raises(SandboxGoneError):
                    service.read_file(ID, name)
                self.life = "lost"
            case _ if name not in self.files:
                with pytest.raises(RemoteFileNotFoundError):
                    service.read_file(ID, name)
                self.life = "runs"
            case _:
                assert service.read_file(ID, name) == self.files[name]
                self.life = "runs"

    @precondition(lambda self: self.life != "absent")
    @rule(which=st.sampled_from((0, 1)))
    def stop(self, which: int) -> None:
        self.processes[which].stop_sandbox(ID)
        gone = self.life in ("vanished", "lost", "destroyed")
        self.life = "destroyed" if gone else "stopped"

    @precondition(lambda self: self.life != "absent")
    @rule(which=st.sampled_from((0, 1)))
    def destroy(self, which: int) -> None:
        self.processes[which].destroy_sandbox(ID)
        self.life = "destroyed"

    @precondition(lambda self: self.life != "absent")
    @rule(which=st.sampled_from((0, 1)))
    def reconnect(self, which: int) -> None:
        if self.life in ("vanished", "lost", "destroyed"):
            with pytest.raises(SandboxGoneError):
                self.processes[which].reconnect_to_sandbox(ID)
            self.life = "lost" if self.life == "vanished" else self.life
            return
        self.processes[which].reconnect_to_sandbox(ID)
        self.life = "runs"

    @rule()
    def reconcile(self) -> None:
        self.world.process().reconcile(apply=True)
        self.life = "lost" if self.life == "vanished" else self.life

    # What happens to it

    @precondition(lambda self: self.life == "runs")
    @rule()
    def fall_asleep(self) -> None:
        self.world.fake.sandbox(ID).running = False
        self.life = "asleep"

    @precondition(lambda self: self.life in ("runs", "asleep"))
    @rule()
    def vanish(self) -> None:
        self.world.fake.lose(ID)
        self.life = "vanished"

    @rule(seconds=st.sampled_from((1, 90, 5000)))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule(which=st.sampled_from((0, 1)))
    def begin_another_process(self, which: int) -> None:
        self.processes[which] = self.world.process()

    @precondition(lambda self: self.life not in ("absent", "stopped", "destroyed"))
    @rule(step=st.integers(1, 8), kind=st.sampled_from(KINDS))
    def run_with_a_fault(self, step: int, kind: Kind) -> None:
        self.count += 1
        token = f"t{self.count}"
        try:
            self._run(self.world.process(Steps({step: kind}, self.world.clock)), token)
        except (SandboxError, KeyboardInterrupt, Killed):
            pass
        else:
            assert self.world.effects[token] == 1
        assert self.world.effects[token] <= 1
        self._settle()

    @precondition(lambda self: self.life != "absent")
    @rule(step=st.integers(1, 5), kind=st.sampled_from(KINDS), destroy=st.booleans())
    def stop_with_a_fault(self, step: int, kind: Kind, destroy: bool) -> None:
        service = self.world.process(Steps({step: kind}, self.world.clock))
        stop = service.destroy_sandbox if destroy else service.stop_sandbox
        try:
            stop(ID)
        except (SandboxError, KeyboardInterrupt, Killed):
            pass
        else:
            assert self.world.store.get(ID).status == "shutdown"
        self._settle()

    @precondition(lambda self: self.life != "absent")
    @rule(step=st.integers(1, 5), kind=st.sampled_from(KINDS))
    def reconnect_with_a_fault(self, step: int, kind: Kind) -> None:
        with suppress(SandboxError, KeyboardInterrupt, Killed):
            self.world.process(Steps({step: kind}, self.world.clock)).reconnect_to_sandbox(ID)
        self._settle()

    def _settle(self) -> None:
        """After a fault one of several lives is right: reconcile, and go on with what is there."""
        self.world.clock.advance(1000)
        self.world.process().reconcile(apply=True)
        record, state = self.world.store.get(ID), self.world.store.get(ID).state
        assert state is not None
        machines = [m for m in self.world.fake.sandboxes.values() if m.tags is not None]
        before = self.life
        if record.status == "active":
            self.life = "runs" if machines[0].running else "asleep"
            assert before not in ("destroyed",)
            if before in ("vanished", "lost"):
                self.files = {}
        else:
            assert record.status == "shutdown"
            self.life = "lost" if state.stop == "lost" else "stopped" if machines else "destroyed"
        if before in ("stopped", "destroyed"):
            assert self.life in (before, "destroyed", "runs")

    def _run(self, service: RaisingService, token: str) -> CommandResult:
        return service.run_command(ID, "work", [token])

    # What always holds

    @invariant()
    def at_most_one_exists(self) -> None:
        assert len(self.world.fake.sandboxes) <= 1

    @invariant()
    def nothing_runs_twice(self) -> None:
        assert all(count == 1 for count in self.world.effects.values())

    @invariant()
    def record_and_provider_agree(self) -> None:
        machines = list(self.world.fake.sandboxes.values())
        match self.life:
            case "runs":
                assert [machine.running for machine in machines] == [True]
            case "asleep" | "stopped":
                assert [machine.running for machine in machines] == [False]
            case _:
                assert machines == []


Lifecycle.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLifecycle = Lifecycle.TestCase
