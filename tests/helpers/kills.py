"""Processes that are killed at some moment of an operation, and what must hold afterwards.

``try_case`` lets one process make the situation, another carry out the operation until it is
killed, sometimes a third reconcile until it is killed too, and the last one reconcile once every
deadline has passed, check the promises, and repeat the call.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from helpers.arenas import Arena, LaterClock, owned
from helpers.moments import Moments
from helpers.nursery import Life, Nursery, Say
from helpers.scenes import OPERATIONS, Case, Operation, Scene
from helpers.steps import SteppedStore

from ekairos_sandbox import SandboxRecord
from ekairos_sandbox.provider import SandboxInfo
from ekairos_sandbox.testing import HastyClock, faulty

if TYPE_CHECKING:
    from helpers.grounds import Ground

SECRET = "s3cr3t-4711-value"


def modules(arena: Arena) -> list[str]:
    """Return what processes in an arena import sooner or later."""
    found = ["helpers.kills", "requests", "sqlite3", f"ekairos_sandbox_{arena.name}.provider"]
    if arena.name == "daytona":
        found += [
            "daytona_api_client.api.sandbox_api",
            "daytona_toolbox_api_client.api.process_api",
        ]
    return found


def operations_of(arena: Arena) -> list[str]:
    """Return the operations that an arena's provider offers."""
    offered = arena.make_provider().capabilities
    return [one.name for one in OPERATIONS.values() if one.needs is None or one.needs in offered]


def try_case(nursery: Nursery, ground: Ground, case: Case) -> tuple[Life, list[str]]:
    """Carry a case out; return how its process ended and which promises were broken."""
    arena = replace(ground.arena, environ={**ground.arena.environ, "API_KEY": SECRET})
    case = Case(case.operation, case.deadly, case.then, str(uuid.uuid4()), uuid.uuid4().hex)
    problems = _failures("before", nursery.call(_prepare, arena, case))
    if OPERATIONS[case.operation].asleep:
        ground.wait_until_left()
        ground.pass_time()
    for operation, deadly in OPERATIONS[case.operation].ruins:
        ruin = Case(operation, deadly, None, case.sandbox_id, case.token)
        life = nursery.call(_act, arena, ruin)
        if not life.killed:
            problems.append(f"{operation} was not killed: {life}")
        ground.wait_until_left()
    acted = nursery.call(_act, arena, case)
    ground.wait_until_left()
    problems += _failures("act", acted)
    if case.then is not None:
        problems += _failures("recover", nursery.call(_recover, arena, case))
        ground.wait_until_left()
    ground.pass_time()
    settled = nursery.call(_settle, arena, case, acted.exit_code == 0)
    problems += _failures("settle", settled, said=True)
    ground.wait_until_left()
    return acted, problems


def _failures(what: str, life: Life, *, said: bool = False) -> list[str]:
    failed = life.exit_code != 0 and not life.killed
    return [f"{what}: {line}" for line in life.said] if said or failed else []


def _scene(arena: Arena, case: Case, moments: Moments | None = None, **given: Any) -> Scene:
    """Set the scene in a process that was just begun."""
    logging.basicConfig(filename=arena.folder / "log", level=logging.DEBUG)
    clock = given.get("clock") or HastyClock()
    if moments is None:
        return Scene(arena, case, arena.service(clock))
    store: Any = SteppedStore(arena.repository(), moments.step)
    provider = faulty(arena.make_provider(clock), moments)
    return Scene(arena, case, arena.service(clock, store, provider))


def _prepare(say: Say, arena: Arena, case: Case) -> None:
    del say
    scene = _scene(arena, case)
    OPERATIONS[case.operation].before(scene)


def _act(say: Say, arena: Arena, case: Case) -> None:
    operation = OPERATIONS[case.operation]
    moments = Moments(case.deadly, say)
    later = LaterClock() if operation.ruins else None
    scene = _scene(arena, case, moments, clock=later)
    if operation.warm:
        scene.service.run_command(scene.id, "true")
    moments.begun = True
    operation.act(scene)


def _recover(say: Say, arena: Arena, case: Case) -> None:
    moments = Moments(case.then, say)
    scene = _scene(arena, case, moments, clock=LaterClock())
    moments.begun = True
    scene.service.reconcile(apply=True)


def _settle(say: Say, arena: Arena, case: Case, succeeded: bool) -> None:
    """Reconcile, check, repeat the call, check again, and clear up; say what is wrong."""
    operation = OPERATIONS[case.operation]
    scene = _scene(arena, case, clock=LaterClock())
    try:
        for action in scene.service.reconcile(apply=True).actions:
            if not action.applied:
                say(f"not applied: {action}")
        found = _View(scene)
        for problem in _judged(operation, found):
            say(problem)
        if actions := scene.service.reconcile(apply=True).actions:
            say(f"reconciling again found more to do: {actions}")
        if (now := _View(scene)) != found:
            say(f"reconciling again changed something: {found} -> {now}")
        if operation.runs and not succeeded <= scene.effects() <= 1:
            say(f"it ran {scene.effects()} times; said to have succeeded: {succeeded}")
        operation.halfway(scene)
        operation.act(scene)
        if operation.runs and scene.effects() != 1:
            say(f"it ran {scene.effects()} times in all")
        found = _View(scene)
        for problem in _judged(operation, found):
            say(f"after it was repeated: {problem}")
        if operation.name.startswith("destroy") and found.sandboxes:
            say(f"it was destroyed: {found.sandboxes}")
    finally:
        _leave(scene)
    _check_log(say, arena)


def _check_log(say: Say, arena: Arena) -> None:
    log = arena.folder / "log"
    logged = log.read_text()
    secrets = [value for name, value in arena.environ.items() if "TOKEN" in name or "KEY" in name]
    secrets += [value for name, value in arena.store[1].items() if name == "token"]
    if any(secret in logged for secret in secrets):
        say("a secret was logged")
    log.write_text("")


def _leave(scene: Scene) -> None:
    """Leave the arena as it was found."""
    for record in scene.service.iter_sandboxes():
        scene.service.destroy_sandbox(record.id)
        scene.service._operations.ledger.repository.delete(record.id)
    left = owned(scene.service, scene.provider)
    assert left == [], left


class _View:
    """All records and all sandboxes at a moment."""

    def __init__(self, scene: Scene) -> None:
        self.records = {record.id: record for record in scene.service.iter_sandboxes()}
        self.sandboxes = {info.external_id: info for info in owned(scene.service, scene.provider)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _View) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.records} {self.sandboxes}"


def _judged(operation: Operation, view: _View) -> Iterator[str]:
    """Yield what is not as it should be when everything is settled."""
    found = view.sandboxes.values()
    for info in found:
        if info.tags is None or info.tags.sandbox_id not in view.records:
            yield f"a sandbox without a record: {info}"
    for record in view.records.values():
        of_it = [info for info in found if info.tags and info.tags.sandbox_id == record.id]
        for problem in _judged_record(operation, record, of_it):
            yield f"{problem}: {record.status} {record.state} {of_it}"
        if SECRET in str(record.wire()):
            yield "a secret was stored"


def _judged_record(
    operation: Operation, record: SandboxRecord, found: list[SandboxInfo]
) -> Iterator[str]:
    state = record.state
    assert state is not None
    if state.stop not in operation.ends:
        yield "nobody ended it"
    if operation.lives and (record.status, state.incarnation) != ("active", 1):
        yield "it was there, and nobody ended it"
    if len(found) > 1:
        yield "two sandboxes for one id"
    for info in found:
        assert info.tags is not None
        if (info.name, info.tags.incarnation) != (state.name, state.incarnation):
            yield "a sandbox that the record does not account for"
    if state.release is not None:
        yield "the provider was not told of its end"
    match record.status:
        case "active":
            if not found:
                yield "said to be active"
            if state.deadline is not None:
                yield "a deadline was left"
        case "error":
            if found:
                yield "its creation failed, yet it is there"
        case "shutdown":
            if state.stop == "lost" and found:
                yield "said to be lost"
            if any(info.state == "running" for info in found):
                yield "it was stopped, yet it runs"
        case _:
            yield "left in between"


def moments_of(nursery: Nursery, ground: Ground, operation: str) -> int:
    """Carry an operation out with nobody killed; return how many moments that took."""
    acted, problems = try_case(nursery, ground, Case(operation))
    assert problems == [], operation
    return len(acted.said)


def chosen(moments: dict[str, int], rng: random.Random, count: int) -> list[Case]:
    """Choose ``count`` moments evenly over the operations; after every fourth also a second one."""
    left = {name: rng.sample(range(1, number + 1), number) for name, number in moments.items()}
    cases: list[Case] = []
    while len(cases) < count and any(left.values()):
        for name, numbers in left.items():
            if numbers:
                then = rng.randint(1, 12) if rng.random() < 0.25 else None
                cases.append(Case(name, numbers.pop(), then))
    return cases[:count]
