"""Processes and threads that all use one durable id at once, some of them killed on the way.

``race`` lets them loose in an arena and returns what each command was said to have done,
``verdict`` says what is not as it should be in the end.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from helpers.arenas import Arena, LaterClock, lose, owned

from ekairos_sandbox import RaisingService, SandboxError, SandboxRecord
from ekairos_sandbox.provider import SandboxInfo

ROUND = 12
"""After so many operations a thread goes on to the next id; one that is stopped and lost stays so.
"""

OPERATIONS = (
    *["run"] * 15, *["reconnect"] * 5, *["start"] * 2, *["create"] * 2, "stop", "lose", "tidy"
)  # fmt: skip


def _say(arena: Arena, token: str, what: str, why: str = "") -> None:
    """Note what was said of a command, also if this process is killed right afterwards."""
    with (arena.folder / "said").open("ab", buffering=0) as file:
        file.write(f"{token} {what} {why}".replace("\n", " ").encode() + b"\n")


def race(
    arena: Arena, *, processes: int, threads: int, operations: int, seed: int, kills: int = 0
) -> dict[str, tuple[str, str]]:
    """Let processes with several threads each do random things to one id.

    Args:
        arena: Where.
        processes: How many at once.
        threads: Threads of each.
        operations: What each thread does.
        seed: Makes the choice of operations the same again, not their order in time.
        kills: How many processes to kill at some moment; each is replaced by another.

    Returns:
        What was said of each command by its token: ``"success"``, ``"failed"`` (it did not run)
        or ``"unknown"``, and why; nothing of those whose process was killed.
    """
    context = multiprocessing.get_context("spawn")
    rng = random.Random(seed)
    running: list[Any] = []

    def begin(number: int) -> None:
        arguments = (arena, threads, operations, seed * 1000 + number)
        process = context.Process(target=_worker, args=arguments, daemon=True)
        process.start()
        running.append(process)

    for number in range(processes):
        begin(number)
    for kill in range(kills):
        time.sleep(rng.uniform(0.3, 1.5))
        victim = running.pop(rng.randrange(len(running)))
        victim.kill()
        victim.join()
        begin(processes + kill)
    for process in running:
        process.join()
    failed = [process.exitcode for process in running if process.exitcode]
    assert failed == [], "a process ended with an error of its own"
    lines = [line.split(" ", 2) for line in (arena.folder / "said").read_text().splitlines()]
    return {token: (what, why) for token, what, why in lines}


def _worker(arena: Arena, threads: int, operations: int, seed: int) -> None:
    service = arena.service()
    problems: list[BaseException] = []

    def work(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        for step in range(operations):
            operation = rng.choice(OPERATIONS) if step % ROUND else "create"
            try:
                _operate(arena, service, operation, id_of(step // ROUND))
            except SandboxError:
                continue
            except BaseException as error:
                problems.append(error)
                return

    working = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    if problems:
        raise problems[0]


def id_of(number: int) -> str:
    """Return the id that everybody uses in a round."""
    return f"6f1d7c2e-0c1a-4f5e-9d55-{number:012d}"


def _operate(arena: Arena, service: RaisingService, operation: str, sandbox_id: str) -> None:
    match operation:
        case "create":
            arena.create(service, sandbox_id)
        case "run" | "start":
            _command(arena, service, operation, sandbox_id)
        case "stop":
            service.stop_sandbox(sandbox_id)
        case "reconnect":
            service.reconnect_to_sandbox(sandbox_id)
        case "lose":
            lose(arena, service)
        case "tidy":
            service.reconcile(apply=True)


def _command(arena: Arena, service: RaisingService, operation: str, sandbox_id: str) -> None:
    token = os.urandom(8).hex()
    argv = ["sh", "-c", 'echo "$1" >>"$2"; echo "$1"', "sh", token, str(arena.effects)]
    try:
        if operation == "run":
            result = service.run_command(sandbox_id, argv, timeout_s=60)
        else:
            result = service.start_command(sandbox_id, argv, timeout_s=60).wait(timeout_s=60)
        if result.cancelled or result.truncated or result.exit_code in (137, 143):
            # The sandbox was stopped around it.
            _say(arena, token, "unknown")
        else:
            assert result.output == f"{token}\n", result
            _say(arena, token, "success")
    except SandboxError as error:
        _say(arena, token, error.outcome if operation == "run" else "unknown", repr(error))
        raise


def verdict(arena: Arena, said: Mapping[str, tuple[str, str]]) -> list[str]:
    """Settle everything and say what is not as it should be; empty if all is well."""
    problems = []
    effects = Counter(arena.effects.read_text().split())
    for token, times in effects.items():
        if times > 1:
            problems.append(f"{token} ran {times} times")
        what, why = said.get(token, ("", ""))
        if what == "failed":
            problems.append(f"{token} ran, and was said not to have: {why}")
    problems += [
        f"{token} was said to have run"
        for token, (what, _) in said.items()
        if what == "success" and not effects[token]
    ]
    with arena.service(LaterClock()) as service:
        service.reconcile(apply=True)
        provider = arena.make_provider()
        found = owned(service, provider)
        for record in service.iter_sandboxes():
            of_it = [info for info in found if info.tags and info.tags.sandbox_id == record.id]
            problems += [f"{record.id}: {text}" for text in _judged(record, of_it)]
        if service.reconcile(apply=True).actions:
            problems.append("reconciling again found more to do")
        for record in service.iter_sandboxes():
            service.destroy_sandbox(record.id)
        provider.close()
    return problems


def _judged(record: SandboxRecord, found: list[SandboxInfo]) -> Iterator[str]:
    state = record.state
    assert state is not None
    if len(found) > 1:
        yield f"{len(found)} sandboxes for one id: {found}"
    if record.status not in ("active", "shutdown", "error") or state.release is not None:
        yield f"the record was left {record.status} with {state}"
    if record.status == "active" and not found:
        yield "the record is active, and there is no sandbox"
    if record.status == "shutdown" and any(info.state == "running" for info in found):
        yield "it was stopped, and it runs"
