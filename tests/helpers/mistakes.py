"""Mistakes that this library could have; each spoils it in the process that calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ekairos_sandbox import reconcile
from ekairos_sandbox.jobs.spec import JobSpec, new_command_id
from ekairos_sandbox.lifecycle.ending import Ending


def repeats_commands() -> None:
    """A command that is asked for again is another one."""
    make: Callable[..., None] = JobSpec.__init__

    def make_new(spec: JobSpec, command_id: str, **rest: Any) -> None:
        make(spec, new_command_id(), **rest)

    JobSpec.__init__ = make_new  # type: ignore[method-assign,assignment]


def leaves_what_was_made() -> None:
    """The provider is not told of any end, yet the record says so."""
    Ending.release = Ending.settled  # type: ignore[method-assign]


def waits_for_the_dead() -> None:
    """A creation that nobody leads any more counts as under way."""
    reconcile._over = lambda state, now: False
