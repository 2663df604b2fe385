"""One question to a script, one framed answer: the common ground of the file operations.

Every operation sent from here may be repeated: it either changes nothing, or leaves the same
state however often it runs. So calls whose fate is unknown are simply made again.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.exceptions import (
    RemoteFileError,
    RemoteFileNotFoundError,
    SandboxError,
    SandboxNotRunningError,
    TransferError,
)
from ekairos_sandbox.retry import RetryPolicy, retrying
from ekairos_sandbox.shell.base import Shell
from ekairos_sandbox.shell.envelope import SLACK_BYTES, decode, frames, new_nonce
from ekairos_sandbox.shell.quoting import as_bytes, printf_format, quote

CALL_TIMEOUT_S = 120.0
"""Seconds one call may take; a piece of 4 MiB passes in that time at 50 KB/s."""

_REPEAT = RetryPolicy()
_ONCE = RetryPolicy(attempts=1)
_PRINTABLE = re.compile(rb"[ -~]*")
_DD_SUMMARY = re.compile(r"^\d+\+\d+ records |^\d+ bytes .*copied", re.IGNORECASE)

# `no KIND TEXT` answers a refusal and ends; I is the number of the file that the call is at and
# T its temporary file, which then is of no use any more.
_PRELUDE = b"""\
LC_ALL=C; export LC_ALL; I=0 T=
say() { printf '\\n@EK1:%s:%s:%s@\\n' "$N" "$1" "$N"; exit; }
enc() { if command -v base64 >/dev/null; then printf b; base64; else printf x; od -An -v -tx1; fi; }
no() { [ -z "$T" ] || rm -f "$T"; say "no:$I:$1:$(printf %s "$2" | head -c 2000 | enc)"; }
need() { for c do command -v "$c" >/dev/null || no tool "$c"; done; }
"""


class RunScript(Protocol):
    """Runs a script and returns what it wrote to standard output, as ``Shell.shell`` does."""

    def __call__(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run it."""


class MissingToolError(RemoteFileError):
    """The sandbox lacks a program that the operation needs.

    Attributes:
        tool: Its name.
    """

    def __init__(self, message: str = "", *, tool: str = "", **context: Any) -> None:
        super().__init__(message, **context)
        self.tool = tool


class DirectoryError(RemoteFileError):
    """It is a directory."""


def assign(name: str, value: str | bytes) -> bytes:
    """Return sh statements, ended by a newline, that set a variable to exactly ``value``.

    Raises:
        ValueError: The value holds a NUL character.
    """
    data = as_bytes(value)
    if _PRINTABLE.fullmatch(data):
        return name.encode() + b"=" + quote(data) + b"\n"
    # The mark at the end keeps the substitution from dropping newlines.
    word = printf_format(data + b".")
    return b"%s=$(printf %s); %s=${%s%%?}\n" % (name.encode(), word, name.encode(), name.encode())


def ask(
    shell: Shell,
    body: bytes,
    paths: list[str],
    *,
    run: RunScript | None = None,
    answer_bytes: int = 0,
    clock: Clock | None = None,
    repeat: bool = True,
    timeout_s: float = CALL_TIMEOUT_S,
) -> list[str]:
    """Run a script that answers with one frame, and return the frame's fields.

    Args:
        shell: Where.
        body: Statements after the prelude; harmless to run any number of times.
        paths: The files that the script is about, by the number it puts into ``I``.
        run: How the script is run; None means ``shell.shell``.
        answer_bytes: Length of the longest answer, its fixed parts aside.
        clock: Time and sleep.
        repeat: Whether a call is made again when its answer was lost.
        timeout_s: Seconds per call.

    Raises:
        RemoteFileError: The script refused.
        TransferError: The answer was cut short, each time.
        ProviderError: The call failed, each time.
    """
    limit = answer_bytes + SLACK_BYTES

    def once() -> list[str]:
        nonce = new_nonce()
        output = (run or shell.shell)(script(body, nonce), timeout_s=timeout_s, max_bytes=limit)
        found = frames(output, nonce)
        if not found:
            raise TransferError("the sandbox's answer was cut short", outcome="unknown")
        return found[0]

    policy = _REPEAT if repeat else _ONCE
    fields = retrying(policy, clock or SystemClock(), when=_may_repeat)(once)
    if fields[0] == "no":
        raise _refusal(fields, paths)
    return fields


def script(body: bytes, nonce: str) -> bytes:
    """Frame statements so that a script that arrives cut short runs none of them."""
    head = b"{ exec 2>/dev/null </dev/null; N=%s\n" % nonce.encode()
    return b"".join((head, _PRELUDE, body, b"exit\n}\n"))


SCRIPT_OVERHEAD = len(script(b"", "0" * 16))
"""Bytes of a script that are not its body."""


def payload(field: str) -> bytes | None:
    """Decode what the sh function ``enc`` wrote; None if it is damaged."""
    return decode(field[1:], field[:1])


def _may_repeat(error: SandboxError) -> bool:
    if isinstance(error, SandboxNotRunningError):
        return False  # starting it is for the caller to decide
    return bool(error.retryable) or (error.outcome == "unknown" and error.retryable is None)


def _refusal(fields: list[str], paths: list[str]) -> SandboxError:
    number, kind, text = (*fields[1:4], "", "", "")[:3]
    path = paths[int(number)] if number.isdecimal() and int(number) < len(paths) else paths[0]
    detail = (payload(text) or b"").decode("utf-8", "replace")
    if kind == "noent":
        return RemoteFileNotFoundError(f"no such file in the sandbox: {path!r}", path=path)
    if kind == "tool":
        tool = printable(detail)
        return MissingToolError(
            f"the sandbox has no program {tool!r}, which file transfers need",
            path=path,
            tool=tool,
            hint="add it to the image",
        )
    if kind == "short":
        return TransferError(f"the sandbox did not store all of {path!r}")
    if kind in {"gone", "lost"}:
        return TransferError(
            f"the temporary file for {path!r} disappeared while it was being written",
            outcome="failed" if kind == "gone" else "unknown",
        )
    cls = DirectoryError if kind == "isdir" else RemoteFileError
    return cls(f"{_REASONS.get(kind) or reason(detail)}: {path!r}", path=path)


_REASONS = {
    "isdir": "is a directory in the sandbox",
    "special": "is not a regular file in the sandbox",
    "denied": "permission denied in the sandbox",
    "link": "is a link in the sandbox that leads in a circle",
}


def reason(text: str) -> str:
    """Return what a Unix tool complained of, without its own name and the file's."""
    lines = [line for line in text.splitlines() if line and not _DD_SUMMARY.match(line)]
    said = printable(lines[-1].rpartition(": ")[2]) if lines else ""
    return said or "failed in the sandbox"


def printable(text: str) -> str:
    """Return text that cannot disturb a terminal, at most 200 characters of it."""
    return "".join(c if c.isprintable() else "?" for c in text.strip())[:200]
