"""A provider whose sandboxes are entries in a dictionary, with a script of faults.

Scripts run for real, in a temporary folder with the host's ``sh``, so that preparing and running
commands behave as everywhere else.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from helpers.host_shell import HostShell

from ekairos_sandbox.exceptions import IdConflictError, SandboxError, SandboxNotRunningError
from ekairos_sandbox.provider import (
    Connection,
    CreateSpec,
    Ownership,
    Provider,
    ProviderContext,
    ProviderOptions,
    SandboxInfo,
    SandboxRef,
    Tags,
    gone,
    may_adopt,
    not_stored,
    same_sandbox,
)


class MemoryOptions(ProviderOptions):
    name: str | None = None
    flavour: str | None = None
    secret: str | None = not_stored(default=None)


@dataclass
class Machine:
    name: str
    external_id: str
    tags: Tags | None
    home: Path
    running: bool = True
    created_at: int | None = None


@dataclass
class Fault:
    """Raise ``error`` instead of answering, after the effect if ``effect``."""

    error: BaseException
    effect: bool


@dataclass
class World:
    """What exists at the provider, and what shall go wrong there."""

    folder: Path
    account: str = "memory:acme"
    machines: dict[str, Machine] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    during: dict[str, Callable[[], object]] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def fail(self, call: str, error: BaseException, *, effect: bool = False) -> None:
        """Let the next ``call`` raise, before or after its effect."""
        self.faults[call].append(Fault(error, effect))

    def meanwhile(self, call: str, act: Callable[[], object]) -> None:
        """Do something once, in the middle of the next ``call``, after its effect."""
        self.during[call] = act

    def do(self, call: str, effect: Callable[[], Any]) -> Any:
        """Carry a call out with whatever shall go wrong."""
        self.calls[call] += 1
        fault = self.faults[call].popleft() if self.faults[call] else None
        if fault is not None and not fault.effect:
            raise fault.error
        result = effect()
        act = self.during.pop(call, None)
        if act is not None:
            act()
        if fault is not None:
            raise fault.error
        return result

    def running(self) -> list[str]:
        """Names of the machines that run."""
        return sorted(m.name for m in self.machines.values() if m.running)

    def lose(self, name: str) -> None:
        """Delete a machine behind everybody's back."""
        self.remove(self.machines[name])

    def remove(self, machine: Machine) -> None:
        kill_jobs(machine.home)
        shutil.rmtree(machine.home, ignore_errors=True)
        self.machines.pop(machine.name, None)


def kill_jobs(home: Path) -> None:
    """End what commands below a folder have left running."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={home}".encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            continue


class MemoryConnection(Connection):
    def __init__(self, world: World, machine: Machine, ownership: Ownership = "created") -> None:
        self.world = world
        self.machine = machine
        self.external_id = machine.external_id
        self.home = str(machine.home)
        self.url = f"https://{machine.name}.example"
        self.data = {"id": machine.external_id}
        self.ownership = ownership
        self.inner = HostShell(machine.home)

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        def effect() -> bytes:
            machine = self.world.machines.get(self.machine.name)
            if machine is None or machine.external_id != self.external_id:
                raise gone(SandboxRef(self.machine.name), "memory", operation="shell")
            if not machine.running:
                raise SandboxNotRunningError("it is stopped", provider="memory")
            return self.inner.shell(script, timeout_s=timeout_s, max_bytes=max_bytes)

        output: bytes = self.world.do("shell", effect)
        return output


class MemoryProvider(Provider[MemoryOptions]):
    name: ClassVar[str] = "memory"
    options_model = MemoryOptions
    create_timeout_s: ClassVar[float] = 120.0

    def __init__(self, world: World, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        self.world = world

    def account(self) -> str:
        return self.world.account

    def create(self, spec: CreateSpec[MemoryOptions]) -> Connection:
        def effect() -> Connection:
            machine = self.world.machines.get(spec.name)
            if machine is None:
                number = next(self.world.ids)
                home = self.world.folder / f"machine-{number}"
                home.mkdir(parents=True)
                now = self.context.clock.now_ms()
                machine = Machine(spec.name, f"m{number}", spec.tags, home, created_at=now)
                self.world.machines[spec.name] = machine
                return MemoryConnection(self.world, machine)
            ownership = may_adopt(spec, self._info(machine))
            if ownership is None:
                raise IdConflictError(f"the name {spec.name} is taken", provider=self.name)
            machine.running = True
            return MemoryConnection(self.world, machine, ownership)

        made: Connection = self.world.do("create", effect)
        return made

    def attach(self, ref: SandboxRef[MemoryOptions]) -> Connection:
        machine = self.world.machines.get(ref.name)
        if machine is None or not same_sandbox(ref, self._info(machine)):
            nowhere = Machine(ref.name, ref.external_id or "", ref.tags, self.world.folder)
            return MemoryConnection(self.world, nowhere)
        return MemoryConnection(self.world, machine)

    def connect(self, ref: SandboxRef[MemoryOptions]) -> Connection:
        def effect() -> Connection:
            machine = self._machine(ref, "connect")
            machine.running = True
            return MemoryConnection(self.world, machine)

        connection: Connection = self.world.do("connect", effect)
        return connection

    def inspect(self, ref: SandboxRef[MemoryOptions]) -> SandboxInfo:
        info: SandboxInfo = self.world.do(
            "inspect", lambda: self._info(self._machine(ref, "inspect"))
        )
        return info

    def find(self, name: str) -> SandboxInfo | None:
        def effect() -> SandboxInfo | None:
            machine = self.world.machines.get(name)
            return self._info(machine) if machine else None

        found: SandboxInfo | None = self.world.do("find", effect)
        return found

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        infos = [self._info(machine) for machine in list(self.world.machines.values())]
        for info in infos:
            self.world.do("list", lambda: None)
            yield info
        if not infos:
            self.world.do("list", lambda: None)

    def stop(self, ref: SandboxRef[MemoryOptions]) -> None:
        self.world.do("stop", lambda: self._end(ref, destroy=False))

    def destroy(self, ref: SandboxRef[MemoryOptions]) -> None:
        self.world.do("destroy", lambda: self._end(ref, destroy=True))

    def _end(self, ref: SandboxRef[MemoryOptions], *, destroy: bool) -> None:
        try:
            machine = self._machine(ref, "stop")
        except SandboxError:
            return
        if destroy:
            self.world.remove(machine)
        else:
            kill_jobs(machine.home)
            machine.running = False

    def _machine(self, ref: SandboxRef[MemoryOptions], operation: str) -> Machine:
        machine = self.world.machines.get(ref.name)
        if machine is None or not same_sandbox(ref, self._info(machine)):
            raise gone(ref, self.name, operation=operation)
        return machine

    @staticmethod
    def _info(machine: Machine) -> SandboxInfo:
        state: Literal["running", "stopped"] = "running" if machine.running else "stopped"
        return SandboxInfo(
            machine.name, machine.external_id, state, machine.tags, machine.created_at
        )


class ManualClock:
    """A clock that stands still until it is told to move; sleeping moves it."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.now = now_ms
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


def environment(**variables: str) -> Mapping[str, str]:
    """An environment that holds just these variables."""
    return variables
