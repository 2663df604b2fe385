"""Operations with faults at every step, and what must hold afterwards whatever went wrong.

``carry_out`` makes a world in memory, carries one operation out under a plan of faults, lets
another process reconcile once every deadline has passed, and checks the promises.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from helpers.memory_world import ManualClock
from helpers.steps import Killed, Plan, SteppedStore, Steps

from ekairos_sandbox import (
    OutcomeUnknownError,
    RaisingService,
    SandboxError,
    SandboxRecord,
    SandboxService,
)
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing import (
    FakeCommand,
    FakeProvider,
    FakeResult,
    MemorySandboxRepository,
    faulty,
)

ID = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"
SECRET = "s3cr3t-4711-value"
OUTPUT = bytes(range(256)) * 3
SETTLED_S = 1000.0


class World:
    """One record store and one provider, and processes that use them.

    Attributes:
        effects: How often each command had its effect, by its token.
        steps: The process that the operation is carried out in.
        created: Ids that a caller was told.
        asked: What was asked for, of ``stop`` and ``destroy``.
    """

    def __init__(self, plan: Plan) -> None:
        self.clock = ManualClock()
        self.store = MemorySandboxRepository()
        self.fake = FakeProvider(ProviderContext(environ={}, clock=self.clock))
        self.fake.handle(self._command)
        self.effects: Counter[str] = Counter()
        self.steps = Steps(plan, self.clock)
        self.asked: set[str] = set()

    def process(self, steps: Steps | None = None) -> RaisingService:
        """Return the service of a new process; without ``steps`` nothing goes wrong in it."""
        if steps is None:
            store: Any = self.store
            provider: Any = self.fake
        else:
            store, provider = SteppedStore(self.store, steps.step), faulty(self.fake, steps)
        return SandboxService(
            store, environ={"API_KEY": SECRET}, clock=self.clock, providers=[provider]
        ).raising

    def create(self, service: RaisingService, sandbox_id: str | None = ID) -> str:
        made = service.create_sandbox(
            provider="fake", env_from=["API_KEY"], params={"mine": 1}, sandbox_id=sandbox_id
        )
        return made.sandbox_id

    def _command(self, command: FakeCommand) -> FakeResult:
        token, *how = command.argv[1:]
        self.effects[token] += 1
        return FakeResult(stdout=OUTPUT, stderr=b"err", duration_s=float(how[0]) if how else 0)


@dataclass
class Operation:
    """Something to do, and what it needs to be there before.

    Attributes:
        name: What tests call it.
        before: Makes the situation, without faults; returns the service to act with, or None for
            a new process.
        act: Does it.
        runs: Whether it runs the command ``token``.
        collects: Whether it collects the result of one that has run.
    """

    name: str
    before: Callable[[World, Steps], RaisingService | None]
    act: Callable[[World, RaisingService], object]
    runs: bool = False
    collects: bool = False


def _nothing(world: World, steps: Steps) -> None:
    del world, steps


def _made(world: World, steps: Steps) -> None:
    del steps
    world.create(world.process())


def _made_here(world: World, steps: Steps) -> RaisingService:
    """Made by the very process that acts, so that its connection is warm."""
    service = world.process(steps)
    plan, steps._plan = steps._plan, {}
    world.create(service)
    steps._plan = plan
    steps.trace.clear()
    return service


def _asleep(world: World, steps: Steps) -> None:
    _made(world, steps)
    world.fake.sandbox(ID).running = False


def _ran(world: World, steps: Steps) -> None:
    """A command has ended, and the provider has stopped the sandbox since."""
    _made(world, steps)
    _run(world, world.process())
    world.fake.sandbox(ID).running = False


def _lost(world: World, steps: Steps) -> None:
    _made(world, steps)
    world.fake.lose(ID)


def _stopped(world: World, steps: Steps) -> None:
    _made(world, steps)
    world.asked.add("stop")
    world.process().stop_sandbox(ID)


def _kept(world: World, steps: Steps) -> None:
    _made(world, steps)
    sandbox = world.process().get_sandbox(ID)
    sandbox.write_files({"a": b"1"})
    sandbox.create_checkpoint()


def _disorder(world: World, steps: Steps) -> None:
    """A creation that was never finished, a stop that was never told, a sandbox that is lost."""
    del steps
    for step in (4, 2):
        with suppress(Killed):
            world.create(world.process(Steps({step: "kill_before"}, world.clock)), None)
    lost = world.create(world.process(), None)
    world.fake.lose(lost)
    stopped = world.create(world.process(), None)
    world.asked.add("stop")
    with suppress(Killed):
        world.process(Steps({3: "kill_before"}, world.clock)).stop_sandbox(stopped)
    world.clock.advance(SETTLED_S)


def _run(world: World, service: RaisingService) -> object:
    result = service.run_command(ID, "work", ["token"], command_id="job-1")
    assert (result.exit_code, result.stdout, result.stderr) == (0, OUTPUT, b"err")
    return result


def _collect(world: World, service: RaisingService) -> object:
    result = service.get_command(ID, "job-1").wait()
    assert (result.exit_code, result.stdout, result.stderr) == (0, OUTPUT, b"err")
    return result


def _start(world: World, service: RaisingService) -> object:
    service.start_command(ID, "work", ["token", "60"], command_id="job-1")
    result = service.get_sandbox(ID).get_command("job-1").wait()
    assert (result.exit_code, result.stdout, result.stderr) == (0, OUTPUT, b"err")
    return result


def _stop(world: World, service: RaisingService) -> object:
    world.asked.add("stop")
    return service.stop_sandbox(ID)


def _destroy(world: World, service: RaisingService) -> object:
    world.asked.add("destroy")
    return service.destroy_sandbox(ID)


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("create", _nothing, lambda w, s: w.create(s, None)),
        Operation("create with an id", _nothing, lambda w, s: w.create(s)),
        Operation("run warm", _made_here, _run, runs=True),
        Operation("run cold", _made, _run, runs=True),
        Operation("run on stopped", _asleep, _run, runs=True),
        Operation("run on lost", _lost, _run, runs=True),
        Operation("start and wait", _made, _start, runs=True),
        Operation("collect from stopped", _ran, _collect, collects=True),
        Operation("write", _made, lambda w, s: s.write_files(ID, {"a": b"1", "b": b"2"})),
        Operation("write on lost", _lost, lambda w, s: s.write_files(ID, {"a": b"1"})),
        Operation("read", _kept, lambda w, s: s.read_file(ID, "a")),
        Operation("read on lost", _lost, lambda w, s: s.read_file(ID, "a")),
        Operation("stop", _made, _stop),
        Operation("stop warm", _made_here, _stop),
        Operation("stop on lost", _lost, _stop),
        Operation("destroy", _made, _destroy),
        Operation("destroy on stopped", _stopped, _destroy),
        Operation("reconnect", _made, lambda w, s: s.reconnect_to_sandbox(ID)),
        Operation("reconnect on stopped", _stopped, lambda w, s: s.reconnect_to_sandbox(ID)),
        Operation("checkpoint", _made, lambda w, s: s.create_checkpoint(ID)),
        Operation("restore", _kept, lambda w, s: s.restore_checkpoint(ID, "c1")),
        Operation("reconcile", _disorder, lambda w, s: s.reconcile(apply=True)),
    )
}


@dataclass
class Outcome:
    """What became of an operation.

    Attributes:
        error: What it raised, or None.
        steps: How many steps it took.
        trace: The steps.
    """

    error: BaseException | None
    steps: int
    trace: list[tuple[str, str | None]]


def carry_out(name: str, plan: Plan) -> Outcome:
    """Carry an operation out under a plan of faults and check every promise.

    Raises:
        AssertionError: A promise was broken.
    """
    operation = OPERATIONS[name]
    world = World(plan)
    with _captured() as logged:
        service = operation.before(world, world.steps) or world.process(world.steps)
        error: BaseException | None = None
        try:
            operation.act(world, service)
        except (SandboxError, KeyboardInterrupt, Killed) as caught:
            error = caught
        _check_answer(world, operation, error)
        world.clock.advance(SETTLED_S)
        world.process().reconcile(apply=True)
        _check_records(world, operation, error)
        _check_again(world)
        if operation.runs or operation.collects:
            _check_repeated(world, operation, error)
    assert SECRET not in "\n".join(logged)
    return Outcome(error, len(world.steps.trace), list(world.steps.trace))


def _check_answer(world: World, operation: Operation, error: BaseException | None) -> None:
    """What the caller was told is true."""
    effects = world.effects["token"]
    assert effects <= 1, "it ran twice"
    if not operation.runs:
        return
    if error is None:
        assert effects == 1, "it was said to have run"
    elif isinstance(error, SandboxError) and error.outcome == "failed":
        assert effects == 0, f"it ran, and was said not to have: {error!r}"
    if isinstance(error, OutcomeUnknownError):
        # What was sent to a sandbox that turns out to be gone may have run in it; and where it
        # cannot be started again just now, that cannot be found out just now.
        faults = [(what, kind) for what, kind in world.steps.trace if kind is not None]
        unsure = [
            number
            for number, (what, kind) in enumerate(faults, 1)
            if what == "shell" and kind != "refused"
        ]
        known = not unsure or (operation.before is not _lost and unsure[0] == len(faults))
        assert not known, f"could have been found out: {error!r}"


def _check_records(world: World, operation: Operation, error: BaseException | None) -> None:
    """Records and provider agree, nothing is left behind."""
    records = [world.store.get(sandbox_id) for sandbox_id in world.store.stored]
    by_id = {record.id: record for record in records}
    machines: dict[str, list[Any]] = {}
    for machine in world.fake.sandboxes.values():
        assert machine.tags is not None
        assert machine.tags.sandbox_id in by_id, "a sandbox without a record"
        machines.setdefault(machine.tags.sandbox_id, []).append(machine)
    for record in records:
        _check_record(world, record, machines.get(record.id, []))
        assert SECRET not in json.dumps(record.wire()), "a secret was stored"
    untold = operation.name == "create" and isinstance(error, Exception | KeyboardInterrupt)
    if untold and getattr(error, "sandbox_id", None) is None and world.steps.faults < 2:
        assert not machines, "nobody was told of it, yet it runs"
    if "destroy" in world.asked and error is None:
        assert not machines, "it was destroyed"


def _check_record(world: World, record: SandboxRecord, machines: list[Any]) -> None:
    state = record.state
    assert state is not None
    assert len(machines) <= 1, "two sandboxes for one id"
    for machine in machines:
        assert machine.name == state.name, "a sandbox that the record does not account for"
        assert machine.tags.incarnation == state.incarnation
    assert state.release is None, "the provider was not told of its end"
    match record.status:
        case "active":
            assert machines, "said to be active"
            assert state.deadline is None
        case "error":
            assert not machines, "its creation failed"
        case "shutdown":
            assert state.stop in ("requested", "lost")
            if state.stop == "lost":
                assert not machines, "said to be lost"
            for machine in machines:
                assert not machine.running, "it was stopped, yet it runs"
        case _:
            raise AssertionError(f"left in {record.status}")


def _check_again(world: World) -> None:
    """To reconcile twice is to reconcile once."""
    before = dict(world.store.stored), set(world.fake.sandboxes)
    report = world.process().reconcile(apply=True)
    assert report.actions == ()
    assert (dict(world.store.stored), set(world.fake.sandboxes)) == before


def _check_repeated(world: World, operation: Operation, error: BaseException | None) -> None:
    """A task queue repeats the call: the command has run once in all, and its result is there."""
    interrupted = any(str(kind).startswith("interrupt") for _, kind in world.steps.trace)
    if interrupted or isinstance(error, OutcomeUnknownError):
        return
    try:
        operation.act(world, world.process())
    except SandboxError as again:
        raise AssertionError(f"the result is lost: {again!r} (first: {error!r})") from again
    assert world.effects["token"] == 1, "it ran twice in all"


@contextmanager
def _captured() -> Iterator[list[str]]:
    """Collect everything that is logged."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    logger = logging.getLogger("ekairos_sandbox")
    handler, level = Collector(), logger.level
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
