"""What a sandbox says about a job, read from its framed answer."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from typing import Literal

from ekairos_sandbox.results import CommandResult
from ekairos_sandbox.shell import envelope
from ekairos_sandbox.shell.quoting import as_bytes

JobState = Literal["created", "running", "exited", "void", "lost", "unknown", "purged"]
"""``created``: not run yet, may still be. ``void``: will never run. ``lost``: its supervisor died.
``unknown``: no trace of it. ``purged``: ended long ago, its result was deleted."""

_STATES = frozenset({"created", "running", "exited", "void", "lost", "unknown", "purged"})
_NUMBER = re.compile(r"[0-9]{1,15}")
_UPTIME = re.compile(r"[0-9]{1,12}\.[0-9]{2}")


SLOW_BYTES_PER_S = 64 * 1024
"""What a line must carry at least, so that an answer with much output is not given up."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the two output streams a call asks for.

    Attributes:
        offsets: Where to begin in standard output and standard error; None means head and tail.
        limits: How many bytes of each to return at most.
    """

    offsets: tuple[int, int] | None = None
    limits: tuple[int, int] = (65536, 65536)

    def expected(self, which: Literal[0, 1], size: int) -> int:
        """How many bytes an honest answer holds if the stream has ``size`` bytes."""
        start = self.offsets[which] if self.offsets else 0
        return min(max(size - start, 0), self.limits[which])

    @property
    def max_bytes(self) -> int:
        """Bound of the whole answer, in the wider of the two encodings."""
        return sum(self.limits) * 33 // 10 + envelope.SLACK_BYTES

    @property
    def transfer_s(self) -> float:
        """Seconds that the answer may take on a slow line."""
        return sum(self.limits) / SLOW_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """One look at a job.

    Attributes:
        command_id: Id of the command.
        state: What it is doing.
        exit_code: As the program left it, also when it was killed; None unless it has ended.
        why: ``"timeout"`` or ``"cancel"`` if it was ended from outside, else "".
        note: ``"noent"``, ``"perm"`` or ``"nocwd"`` if the program could not be run, else "".
        stdout: The bytes asked for.
        stderr: The same of standard error.
        stdout_size: Bytes stored so far.
        stderr_size: The same of standard error.
        cut: Whether output was dropped: stored cap, or disk full.
        duration_ms: How long it ran; 0 unless it has ended.
        argv: The argument vector, if it was asked for and is known.
    """

    command_id: str
    state: JobState
    exit_code: int | None = None
    why: Literal["", "timeout", "cancel"] = ""
    note: Literal["", "noent", "perm", "nocwd"] = ""
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    stdout_size: int = 0
    stderr_size: int = 0
    cut: bool = False
    duration_ms: int = 0
    argv: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("exited", "void")

    def result(self, argv: tuple[str, ...], *, timed_out: bool = False) -> CommandResult:
        """Return the command's result from a head-and-tail answer of an ended job.

        Args:
            argv: The argument vector that was run.
            timed_out: Whether the client itself ended it because its time was up.
        """
        by_time = self.why == "timeout" or (timed_out and self.why == "cancel")
        cancelled = (self.why == "cancel" or self.state == "void") and not by_time
        return CommandResult(
            command_id=self.command_id,
            command=argv,
            exit_code=None if by_time or cancelled else self.exit_code,
            stdout=self.stdout,
            stderr=self.stderr,
            stdout_size=self.stdout_size,
            stderr_size=self.stderr_size,
            truncated=self.cut
            or self.stdout_size > len(self.stdout)
            or self.stderr_size > len(self.stderr),
            dropped=self.cut,
            timed_out=by_time,
            cancelled=cancelled,
            duration_ms=self.duration_ms,
        )


def parse_answer(
    fields: list[str], command_id: str, window: Window, *, want_argv: bool = False
) -> JobAnswer | None:
    """Read the fields of a ``job`` frame; None if they are not what an honest script writes."""
    if len(fields) != 15 or fields[0] != "job" or fields[2] not in _STATES:
        return None
    _, code, state, rc, why, note, up0, up1, drop, out_size, err_size, out, err, argv, again = (
        fields
    )
    if again != f"{state},{rc},{why},{out_size},{err_size}":
        return None
    if not _NUMBER.fullmatch(out_size) or not _NUMBER.fullmatch(err_size):
        return None
    stdout, stderr = envelope.decode(out, code), envelope.decode(err, code)
    if stdout is None or len(stdout) != window.expected(0, int(out_size)):
        return None
    if stderr is None or len(stderr) != window.expected(1, int(err_size)):
        return None
    exit_code, duration_ms = None, 0
    if state == "exited":
        if not _NUMBER.fullmatch(rc) or int(rc) > 255 or why not in ("-", "timeout", "cancel"):
            return None
        exit_code = int(rc)
        duration_ms = _milliseconds(up0, up1)
    return JobAnswer(
        command_id=command_id,
        state=state,  # type: ignore[arg-type]
        exit_code=exit_code,
        why=why if why in ("timeout", "cancel") else "",  # type: ignore[arg-type]
        note=note if note in ("noent", "perm", "nocwd") else "",  # type: ignore[arg-type]
        stdout=stdout,
        stderr=stderr,
        stdout_size=int(out_size),
        stderr_size=int(err_size),
        cut=drop == "y",
        duration_ms=duration_ms,
        argv=_argv(argv) if want_argv else None,
    )


def _milliseconds(up0: str, up1: str) -> int:
    if not _UPTIME.fullmatch(up0) or not _UPTIME.fullmatch(up1):
        return 0
    return max(0, (int(up1.replace(".", "")) - int(up0.replace(".", ""))) * 10)


def encode_argv(argv: tuple[str, ...]) -> bytes:
    """Return an argument vector as base64, the way it is kept with the job."""
    return base64.b64encode(b"".join(as_bytes(word) + b"\0" for word in argv))


def _argv(field: str) -> tuple[str, ...] | None:
    data = envelope.decode(field[:-1]) if field.endswith(".") else None
    if not data or not data.endswith(b"\0"):
        return None
    return tuple(os.fsdecode(word) for word in data[:-1].split(b"\0"))
