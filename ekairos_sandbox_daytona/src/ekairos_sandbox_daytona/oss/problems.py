"""What can be in the way of the local stack, each with the exit code that tells it apart."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``ekairos-daytona-local``; part of its documented interface."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    GIT_MISSING = 3
    DOCKER_MISSING = 4
    DAEMON_NOT_RUNNING = 5
    PORT_TAKEN = 6
    UNKNOWN_REF = 7
    LOCAL_CHANGES = 8
    NOT_INITIALISED = 9
    NO_ANSWER = 10
    NOT_CONFIRMED = 11
    INTERRUPTED = 130


class StackError(Exception):
    """The command cannot be carried out; nothing was overwritten.

    Attributes:
        exit_code: What the process ends with.
        message: What is wrong, on one line.
        hint: What to do about it, on one line; may be empty.
    """

    def __init__(self, exit_code: ExitCode, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.hint = hint
