from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderRateLimitedError,
    ProviderUnavailableError,
    SandboxError,
)
from ekairos_sandbox.retry import RetryPolicy, retrying


class FakeClock:
    """Time that passes only by sleeping and by ``advance``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def highest_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every random pause is as long as it can be."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)


class Failing:
    """Raises the given errors one after the other, then returns ``"done"``."""

    def __init__(self, *errors: BaseException, each: Callable[[], None] = lambda: None) -> None:
        self.errors = list(errors)
        self.each = each
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.each()
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def unavailable(count: int) -> list[SandboxError]:
    return [ProviderUnavailableError(f"no answer {n}") for n in range(1, count + 1)]


def always(error: SandboxError) -> bool:
    return True


def test_a_success_waits_for_nothing(clock: FakeClock) -> None:
    assert retrying(RetryPolicy(), clock, when=always)(Failing()) == "done"
    assert clock.waits == []


@pytest.mark.usefixtures("highest_jitter")
def test_pauses_double_up_to_the_cap(clock: FakeClock) -> None:
    policy = RetryPolicy(attempts=8, budget_s=1000, base_s=0.25, cap_s=3.0)
    assert retrying(policy, clock, when=always)(Failing(*unavailable(6))) == "done"
    assert clock.waits == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_pauses_are_random_between_zero_and_their_limit(clock: FakeClock) -> None:
    policy = RetryPolicy(attempts=200, budget_s=10_000, base_s=1.0, cap_s=1.0)
    retrying(policy, clock, when=always)(Failing(*unavailable(199)))
    assert len(set(clock.waits)) > 100
    assert all(0 <= wait <= 1 for wait in clock.waits)


def test_the_last_error_is_raised_as_it_is_when_the_attempts_are_used_up(clock: FakeClock) -> None:
    call = Failing(*unavailable(9))
    with pytest.raises(ProviderUnavailableError, match="no answer 3"):
        retrying(RetryPolicy(attempts=3), clock, when=always)(call)
    assert call.calls == 3
    assert len(clock.waits) == 2


@pytest.mark.usefixtures("highest_jitter")
def test_no_repetition_starts_after_the_budget(clock: FakeClock) -> None:
    call = Failing(*unavailable(9), each=lambda: clock.advance(4))
    policy = RetryPolicy(attempts=9, budget_s=9.5, base_s=1, cap_s=1)
    with pytest.raises(ProviderUnavailableError, match="no answer 2"):
        retrying(policy, clock, when=always)(call)
    # The third call would have begun 4 + 1 + 4 + 1 seconds after the first.
    assert clock.waits == [1]


@pytest.mark.usefixtures("highest_jitter")
def test_a_repetition_may_start_at_the_end_of_the_budget(clock: FakeClock) -> None:
    policy = RetryPolicy(attempts=9, budget_s=2, base_s=1, cap_s=1)
    with pytest.raises(ProviderUnavailableError, match="no answer 3"):
        retrying(policy, clock, when=always)(Failing(*unavailable(9)))
    assert clock.waits == [1, 1]


@pytest.mark.usefixtures("highest_jitter")
@pytest.mark.parametrize(
    ("asked", "waited"), [(None, 0.25), (0.1, 0.25), (2.0, 2.0), (15.0, 15.0), (3600.0, 15.0)]
)
def test_the_providers_wish_is_honoured_up_to_the_cap(
    clock: FakeClock, asked: float | None, waited: float
) -> None:
    call = Failing(ProviderRateLimitedError("slow down", retry_after_s=asked))
    assert retrying(RetryPolicy(), clock, when=always)(call) == "done"
    assert clock.waits == [waited]


def test_what_the_caller_does_not_allow_is_raised_at_once(clock: FakeClock) -> None:
    call = Failing(ConfigurationError("wrong"))
    with pytest.raises(ConfigurationError):
        retrying(RetryPolicy(), clock, when=lambda error: error.retryable is True)(call)
    assert (call.calls, clock.waits) == (1, [])


@pytest.mark.parametrize("error", [ValueError("bug"), OSError("disk"), KeyboardInterrupt()])
def test_foreign_errors_are_never_repeated(clock: FakeClock, error: BaseException) -> None:
    call = Failing(error)
    with pytest.raises(type(error)):
        retrying(RetryPolicy(), clock, when=always)(call)
    assert (call.calls, clock.waits) == (1, [])


def test_attempts_can_be_iterated(clock: FakeClock) -> None:
    call = Failing(*unavailable(2))
    for attempt in retrying(RetryPolicy(), clock, when=always):
        with attempt:
            call()
    assert call.calls == 3
