"""The one retry policy.

What may be repeated is for the caller to say; how often, how long and with which pauses is here:
full jitter, the ``retry_after_s`` of an error honoured up to a cap, one overall budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import SandboxError

if TYPE_CHECKING:
    import tenacity


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long.

    Attributes:
        attempts: Calls in all, the first one included.
        budget_s: No repetition starts later than this many seconds after the first call.
        base_s: The first pause is a random time up to this; it doubles each time.
        cap_s: No pause is longer, whatever the provider asks for.
    """

    attempts: int = 6
    budget_s: float = 60.0
    base_s: float = 0.25
    cap_s: float = 15.0


def retrying(
    policy: RetryPolicy, clock: Clock, *, when: Callable[[SandboxError], bool]
) -> tenacity.Retrying:
    """Return a retry loop: call it with a function, or iterate over its attempts.

    The error of the last attempt is raised as it is.

    Args:
        policy: How often and how long.
        clock: Time and sleep.
        when: Whether an error allows a repetition. Errors that are no ``SandboxError`` never do.
    """
    # Importing it costs more than the rest of this package together, and warm calls do without.
    import tenacity

    jitter = tenacity.wait_random_exponential(multiplier=policy.base_s, max=policy.cap_s)
    started = clock.monotonic()

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        pause = jitter(state)
        asked: float | None = getattr(error, "retry_after_s", None)
        pause = max(pause, asked or 0.0)
        return min(pause, policy.cap_s)

    def stop(state: tenacity.RetryCallState) -> bool:
        elapsed = clock.monotonic() - started + (state.upcoming_sleep or 0.0)
        return state.attempt_number >= policy.attempts or elapsed > policy.budget_s

    return tenacity.Retrying(
        sleep=clock.sleep,
        wait=wait,
        stop=stop,
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, SandboxError) and when(e)),
        reraise=True,
    )
