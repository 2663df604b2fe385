"""What an answer about a job means for those who asked: a state, a result to come, or an error."""

from __future__ import annotations

from ekairos_sandbox.exceptions import (
    CommandNotFoundError,
    CommandStartError,
    OutcomeUnknownError,
)
from ekairos_sandbox.jobs.answers import JobAnswer
from ekairos_sandbox.results import CommandState


def endless(answer: JobAnswer) -> OutcomeUnknownError:
    """Build the error for a command that cannot be ended."""
    return OutcomeUnknownError(
        f"command {answer.command_id} is past its timeout and does not end",
        command_id=answer.command_id,
        stdout=answer.stdout,
        stderr=answer.stderr,
        hint="stop the sandbox to end it",
    )


def known(answer: JobAnswer) -> JobAnswer:
    """Return the answer of a job that the sandbox has ever heard of.

    Raises:
        CommandNotFoundError: It has not, or has forgotten it.
        CommandStartError: As ``checked``.
    """
    if answer.state == "unknown":
        raise CommandNotFoundError(
            f"the sandbox knows no command {answer.command_id}", command_id=answer.command_id
        )
    if answer.state == "purged":
        raise CommandNotFoundError(
            f"command {answer.command_id} ended long ago and its result was deleted",
            command_id=answer.command_id,
        )
    return answer if answer.state == "lost" else checked(answer)


def checked(answer: JobAnswer) -> JobAnswer:
    """Return the answer of a job that runs, ran, or will never run by order.

    Raises:
        CommandStartError: Its working directory was not there.
        OutcomeUnknownError: Its supervisor died, or there is no trace of it.
    """
    if answer.note == "nocwd" and answer.exit_code == 126:
        raise CommandStartError(
            "the command did not run: its working directory does not exist or cannot be entered",
            command_id=answer.command_id,
        )
    if answer.state == "lost":
        raise OutcomeUnknownError(
            f"command {answer.command_id} may have run to its end or not: its supervisor died "
            "(killed, out of memory, or the sandbox was restarted)",
            command_id=answer.command_id,
            stdout=answer.stdout,
            stderr=answer.stderr,
        )
    if answer.state in ("unknown", "purged"):
        raise OutcomeUnknownError(
            f"command {answer.command_id} has left no trace in the sandbox",
            command_id=answer.command_id,
            hint="the sandbox was restored, or its files were deleted",
        )
    return answer


def command_state(answer: JobAnswer) -> CommandState:
    """Return the state of a command, as callers know it.

    Raises:
        CommandNotFoundError: The sandbox knows no such command.
    """
    if answer.state in ("unknown", "purged"):
        known(answer)
    if answer.state == "void" or (answer.state == "exited" and answer.why):
        return "killed"
    return answer.state  # type: ignore[return-value]
