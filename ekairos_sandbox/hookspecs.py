"""The hooks: one by which a provider is found, the others tell what happened.

A hook implementation may take fewer of the named arguments, never others, so events can gain
fields without breaking anybody. Observers are called after the fact, in the calling thread, and
should return quickly; one that raises is logged and changes nothing. Events carry ids, sizes and
codes: no argument vectors, no environment, no output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ekairos_sandbox.provider import Provider
    from ekairos_sandbox.results import ReconcileReport

PROJECT = "ekairos_sandbox"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """A sandbox was created, or its record changed status.

    Attributes:
        sandbox_id: The durable id.
        provider: The provider's name.
        status: The status of the record now.
        previous: The status before, or None if the record is new.
        incarnation: Which incarnation, 1 for the first.
        external_id: The provider's id, if known.
    """

    sandbox_id: str
    provider: str
    status: str
    previous: str | None = None
    incarnation: int = 1
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class CommandEvent:
    """A command that ``run_command`` or ``Command.wait`` waited for has ended.

    Attributes:
        sandbox_id: The durable id of its sandbox.
        provider: The provider's name.
        command_id: Its id.
        exit_code: As in ``CommandResult``.
        timed_out: As in ``CommandResult``.
        stdout_size: Bytes of standard output.
        stderr_size: Bytes of standard error.
        duration_ms: How long it ran.
    """

    sandbox_id: str
    provider: str
    command_id: str
    exit_code: int | None
    timed_out: bool
    stdout_size: int
    stderr_size: int
    duration_ms: int


@hookspec
def ekairos_sandbox_provider() -> type[Provider[Any]]:  # type: ignore[empty-body]
    """Return the provider class of this distribution."""


@hookspec
def ekairos_sandbox_created(event: SandboxEvent) -> None:
    """A sandbox was created and is active."""


@hookspec
def ekairos_sandbox_status_changed(event: SandboxEvent) -> None:
    """The record of a sandbox changed its status."""


@hookspec
def ekairos_sandbox_command_finished(event: CommandEvent) -> None:
    """A command has ended."""


@hookspec
def ekairos_sandbox_reconciled(report: ReconcileReport) -> None:
    """``reconcile`` has run."""
