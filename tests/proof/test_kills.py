"""Whenever a process is killed, by ``kill -9``: no promise is broken; see helpers.kills."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import mistakes
from helpers.grounds import GROUNDS
from helpers.kills import chosen, modules, moments_of, operations_of, try_case
from helpers.nursery import Nursery
from helpers.scenes import Case

SOAK = {"local": 180, "sprites": 160, "vercel": 120, "daytona": 100}


def kill(name: str, seed: int, half: int) -> tuple[int, list[str]]:
    """Try half of an arena's cases; return how many were killed, and what was broken."""
    rng = random.Random(seed * 2 + half)
    killed, broken = 0, []
    with GROUNDS[name]() as ground, Nursery(modules(ground.arena)) as nursery:
        mine = operations_of(ground.arena)[half::2]
        moments = {one: moments_of(nursery, ground, one) for one in mine}
        for case in chosen(moments, rng, SOAK[name] // 2):
            life, problems = try_case(nursery, ground, case)
            killed += life.killed
            broken += [f"{case} {life.said[-1:]}: {problem}" for problem in problems]
    return killed, broken


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", GROUNDS)
def test_a_process_killed_at_any_moment_breaks_no_promise(name: str) -> None:
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(10**6))
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(lambda half: kill(name, seed, half), range(2)))
    killed = sum(count for count, _ in halves)
    print(f"SOAK_SEED={seed} {name}: {killed} processes killed at numbered moments")
    broken = [line for _, lines in halves for line in lines]
    assert not broken, "\n".join([f"SOAK_SEED={seed}", *broken])
    # Polling takes more moments one time than another, so some outlive theirs.
    assert killed >= SOAK[name] * 9 // 10


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUNDS)
def test_a_process_killed_in_a_creation_or_a_command_breaks_no_promise(name: str) -> None:
    with GROUNDS[name]() as ground, Nursery(modules(ground.arena)) as nursery:
        for case in (Case("create", "after create", then=3), Case("run warm", "after shell")):
            life, problems = try_case(nursery, ground, case)
            assert life.killed
            assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "case", "noticed"),
    [
        (mistakes.repeats_commands, Case("run warm", "after shell"), "it ran 2 times in all"),
        (mistakes.leaves_what_was_made, Case("create", "after create"), "yet it is there"),
        (mistakes.waits_for_the_dead, Case("create", "after create"), "left in between"),
    ],
)
def test_a_library_with_a_mistake_is_caught(
    mistake: Callable[[], None], case: Case, noticed: str
) -> None:
    with GROUNDS["local"]() as ground, Nursery(modules(ground.arena), mistake) as nursery:
        _, problems = try_case(nursery, ground, case)
    assert any(noticed in problem for problem in problems), problems
