"""One exchange with a sandbox: ask by a script, and read the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderUnavailableError,
    SandboxError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.shell import envelope

T = TypeVar("T")


class Refused(Exception):
    """The script itself said no; the reason is its only argument."""


def ask(
    connection: Connection,
    build: Callable[[str], bytes],
    read: Callable[[list[str]], T | None],
    *,
    timeout_s: float,
    max_bytes: int,
) -> T:
    """Run one script and return what ``read`` makes of the first frame that fits.

    Args:
        connection: The way into the sandbox.
        build: Makes the script for a nonce.
        read: Reads the fields of a frame; None if they do not fit.
        timeout_s: Deadline of the call.
        max_bytes: Bound of its output.

    Raises:
        ProviderError: The connection's own; ``outcome="unknown"`` for an answer that was cut or
            damaged.
    """
    nonce = envelope.new_nonce()
    # Not kept in a variable: beside its parts it would double the memory that an answer takes.
    for fields in envelope.frames(
        connection.shell(build(nonce), timeout_s=timeout_s, max_bytes=max_bytes), nonce
    ):
        if fields[0] == "error":
            raise Refused(fields[1] if len(fields) > 1 else "")
        found = read(fields)
        if found is not None:
            return found
    raise ProviderUnavailableError(
        "the sandbox's answer was cut or damaged", operation="shell", outcome="unknown"
    )


def may_repeat(error: SandboxError) -> bool:
    """Whether a call that is safe to repeat is worth repeating after this error."""
    return (
        isinstance(error, ProviderError)
        and not isinstance(error, (SandboxGoneError, SandboxNotRunningError))
        and error.retryable is not False
    )
