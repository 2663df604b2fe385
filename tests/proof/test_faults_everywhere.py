"""Whatever goes wrong at whatever step: nothing leaks, runs twice or is lost; see helpers.proof."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from helpers.proof import OPERATIONS, World, carry_out
from helpers.steps import KINDS, Plan

from ekairos_sandbox.lifecycle.creation import Creation
from ekairos_sandbox.lifecycle.ending import Ending
from ekairos_sandbox.provider import SandboxInfo
from ekairos_sandbox.reconcile import Reconciler
from ekairos_sandbox.testing.fake_guest import FakeGuest
from ekairos_sandbox.testing.fake_provider import FakeProvider

SAMPLE_SEED = 4711
SAMPLE = 1500
SOAK = 12_000


def random_plans(seed: int, count: int) -> list[tuple[str, Plan]]:
    """Return operations with two or three faults each, the later ones often during recovery."""
    rng = random.Random(seed)
    steps = {name: carry_out(name, {}).steps for name in OPERATIONS}
    plans: list[tuple[str, Plan]] = []
    for _ in range(count):
        name = rng.choice(sorted(OPERATIONS))
        first = rng.randint(1, steps[name])
        second = first + rng.randint(1, 6)
        places = [first, second, second + rng.randint(1, 6)][: rng.choice((2, 2, 2, 3))]
        plans.append((name, {place: rng.choice(KINDS) for place in places}))
    return plans


def broken(plans: list[tuple[str, Plan]]) -> list[str]:
    """Return which cases broke a promise, and how."""
    found = []
    for name, plan in plans:
        try:
            carry_out(name, plan)
        except AssertionError as error:
            found.append(f"{name} {plan}: {error}")
    return found


@pytest.mark.parametrize("name", OPERATIONS)
def test_one_fault_at_any_step_breaks_no_promise(name: str) -> None:
    steps = carry_out(name, {}).steps
    plans: list[tuple[str, Plan]] = [
        (name, {step: kind}) for step in range(1, steps + 1) for kind in KINDS
    ]
    assert broken(plans) == []


def test_two_faults_break_no_promise_in_a_sample() -> None:
    assert broken(random_plans(SAMPLE_SEED, SAMPLE)) == []


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_two_and_three_faults_break_no_promise() -> None:
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(10**6))
    plans = random_plans(seed, SOAK)
    print(f"SOAK_SEED={seed}: {len(plans)} cases")
    parts = [plans[start::8] for start in range(8)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = [line for lines in pool.map(broken, parts) for line in lines]
    assert found == [], f"SOAK_SEED={seed}"


# The checks themselves: each of these mistakes must not get by.


def _forgetful_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    start: Callable[..., str] = FakeGuest._start

    def start_again(self: FakeGuest, text: str, command_id: str) -> str:
        self._jobs.pop(command_id, None)
        return start(self, text, command_id)

    monkeypatch.setattr(FakeGuest, "_start", start_again)


def _no_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Creation, "_give_up", lambda *args: None)
    monkeypatch.setattr(Ending, "release", lambda self, record: record)


def _unknown_taken_for_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Creation, "_found", lambda *args: None)
    monkeypatch.setattr(Reconciler, "_leftover", lambda *args, **how: None)
    monkeypatch.setattr("ekairos_sandbox.lifecycle.creation._left_behind", lambda _: "nothing")


def _unreachable_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def lists_nothing(self: FakeProvider, owner: str) -> Any:
        del self, owner
        return iter(list[SandboxInfo]())

    monkeypatch.setattr(FakeProvider, "list_owned", lists_nothing)
    monkeypatch.setattr("ekairos_sandbox.reconcile._over", lambda state, now: False)


@pytest.mark.parametrize(
    "mistake", [_forgetful_guard, _no_clean_up, _unknown_taken_for_failed, _unreachable_is_gone]
)
def test_a_library_with_a_mistake_is_caught(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    plans: list[tuple[str, Plan]] = [
        (name, {step: kind})
        for name in ("create", "run warm", "stop")
        for step in (1, 2, 3, 4)
        for kind in KINDS
    ]
    assert broken(plans) != []


def test_secrets_that_are_stored_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    create = World.create

    def careless(self: World, service: Any, sandbox_id: str | None = None) -> str:
        service.create_sandbox(provider="fake", params={"key": "s3cr3t-4711-value"})
        return create(self, service, sandbox_id)

    monkeypatch.setattr(World, "create", careless)
    with pytest.raises(AssertionError, match="a secret was stored"), pytest.warns():
        carry_out("create", {})
