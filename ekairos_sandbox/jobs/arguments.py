"""From the arguments of a verb to a ``JobSpec``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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
        TypeError: An argument is not of the kind that is wanted.
    """
    with nullcontext() if stdin is None else SpooledInput.from_any(stdin) as given:
        yield JobSpec(
            command_id=new_command_id() if command_id is None else command_id,
            argv=_argv(command, args, shell=shell),
            cwd=cwd,
            env=_env(env),
            stdin=given,
            timeout_s=timeout_s,
        )


def _env(env: Mapping[str, str] | None) -> dict[str, str]:
    if env is not None and not isinstance(env, Mapping):
        raise TypeError(f"env is a mapping of variables, not {type(env).__name__}")
    return dict(env or {})


def _argv(command: str | Sequence[str], args: Sequence[str], *, shell: bool) -> tuple[str, ...]:
    for words, name in ((command, "command"), (args, "args")):
        # Neither is a sequence of words, though one can go through them.
        if isinstance(words, (bytes, bytearray, Mapping, Set)) or not isinstance(words, Iterable):
            raise TypeError(f"{name} is a sequence of words, not {type(words).__name__}")
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
