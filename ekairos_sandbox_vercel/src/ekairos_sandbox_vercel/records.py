"""The records that a running command's output comes as: JSON, one object per line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from ekairos_sandbox.exceptions import ProviderError, ProviderUnavailableError
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.shell.exchange import printable

MAX_ESCAPE = 6
"""Bytes that one character of output may take up as JSON."""

SLACK_BYTES = 256 * 1024


def read_output(pieces: Iterable[bytes], *, max_bytes: int) -> bytes:
    """Return what a command wrote to standard output, once the service says that it has ended.

    Args:
        pieces: The answer's body.
        max_bytes: Most bytes of output to take.

    Raises:
        ProviderError: The records do not say that it ended; ``outcome="unknown"``, always.
        TransportError: The body was cut off.
    """
    source = iter(pieces)
    output = bytearray()
    begun = False
    for line in _lines(source, MAX_ESCAPE * max_bytes + SLACK_BYTES):
        record = _record(line)
        command = record.get("command")
        if isinstance(command, dict):
            begun = True
            code = command.get("exitCode")
            if isinstance(code, int) and not isinstance(code, bool):
                # To the end, so that the connection can be used again.
                with contextlib.suppress(TransportError):
                    for _ in source:
                        pass
                return bytes(output)
            continue
        if record.get("stream") == "error":
            data = record.get("data")
            text = data.get("message") if isinstance(data, dict) else data
            raise _cut(f"the service broke off: {printable(str(text))}")
        if not begun:
            raise _cut("its beginning is missing")
        if record.get("stream") == "stdout":
            output += str(record.get("data")).encode(errors="replace")
            if len(output) > max_bytes:
                raise _too_much(max_bytes)
    raise _cut("its end is missing")


def _lines(pieces: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    """Split at line feeds alone: text in JSON may hold any other line separator as it is."""
    left = max_bytes
    begun: list[bytes] = []
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise _too_much(max_bytes)
        first, *more = piece.split(b"\n")
        begun.append(first)
        for part in more:
            yield b"".join(begun)
            begun = [part]
    if any(begun):
        raise _cut("its last record is incomplete")


def _record(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line) if line.strip() else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _cut("a record is damaged")
    return found


def _cut(why: str) -> ProviderError:
    return ProviderUnavailableError(
        f"the output of a script is incomplete: {why}",
        provider="vercel",
        operation="shell",
        outcome="unknown",
    )


def _too_much(max_bytes: int) -> ProviderError:
    return ProviderError(
        f"the script wrote more than {max_bytes} bytes",
        provider="vercel",
        operation="shell",
        outcome="unknown",
    )
