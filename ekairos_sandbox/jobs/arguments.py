"""From the arguments of a verb to a ``JobSpec``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from typing import IO, TypeAlias

from ekairos_sandbox.jobs.spec import JobSpec, SpooledInput, new_command_id

Input: TypeAlias = bytes | str | PathLike[str] | IO[bytes] | Iterable[bytes]
"""What a command's standard input may be given as: bytes, text, a local file, or pieces."""


@contextmanager
def job_spec(
    command: str | Sequence[str],
    args: Sequence[str],
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: Input | None,
    timeout_s: float | None,
    shell: bool,
    command_id: str | None,
) -> Iterator[JobSpec]:
    """Build a ``JobSpec`` from what ``run_command`` takes, and let go of its input afterwards.

    Raises:
        ValueError: The command is empty, or a value is out of range.
        TypeError: ``args`` or ``command`` is not of the kind that is wanted.
    """
    with nullcontext() if stdin is None else SpooledInput.from_any(stdin) as given:
        yield JobSpec(
            command_id=new_command_id() if command_id is None else command_id,
            argv=_argv(command, args, shell=shell),
            cwd=cwd,
            env=dict(env or {}),
            stdin=given,
            timeout_s=timeout_s,
        )


def _argv(command: str | Sequence[str], args: Sequence[str], *, shell: bool) -> tuple[str, ...]:
    if isinstance(args, str):
        raise TypeError("args is a sequence of words, not one string")
    if shell:
        if not isinstance(command, str) or args:
            raise TypeError("with shell=True the command is one string, without args")
        if not command.strip():
            raise ValueError("the command is empty")
        return ("/bin/sh", "-c", command)
    words = (command, *args) if isinstance(command, str) else (*command, *args)
    if not words or not words[0]:
        raise ValueError("the command is empty")
    return words
