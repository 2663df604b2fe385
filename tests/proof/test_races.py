"""Many processes and threads on one durable id, some of them killed; see helpers.race."""

from __future__ import annotations

import os
import random

import pytest
from helpers.grounds import GROUNDS
from helpers.race import race, verdict


def seed_of_soak() -> int:
    return int(os.environ.get("SOAK_SEED") or random.randrange(10**6))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", GROUNDS)
def test_three_processes_with_three_threads_each_break_no_promise(name: str) -> None:
    with GROUNDS[name]() as ground:
        said = race(ground.arena, processes=3, threads=3, operations=24, seed=1)
        assert verdict(ground.arena, said) == []
        assert ("success", "") in said.values()


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", GROUNDS)
def test_processes_that_are_killed_break_no_promise(name: str) -> None:
    seed = seed_of_soak()
    print(f"SOAK_SEED={seed} {name}")
    with GROUNDS[name]() as ground:
        said = race(ground.arena, processes=4, threads=3, operations=48, seed=seed, kills=20)
        assert verdict(ground.arena, said) == [], f"SOAK_SEED={seed}"
