"""Read and write files through ``shell``, and large ones by a service's own ``FileApi``.

Paths that do not begin with ``/`` are relative to the shell's ``HOME``. Needed inside: ``stat``,
``dd``, ``head``, ``tr``, ``base64`` (or ``od``), and for writing ``mkdir``, ``chmod``, ``mv``,
``rm``, ``readlink``.
"""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.exceptions import (
    ProviderError,
    RemoteFileError,
    SandboxError,
    TransferError,
)
from ekairos_sandbox.shell.base import FileApi, Shell
from ekairos_sandbox.shell.exchange import ask, assign
from ekairos_sandbox.shell.parts import can_name
from ekairos_sandbox.shell.reading import (
    FIND,
    Piece,
    changed,
    check_path,
    pieces,
    read_head,
)
from ekairos_sandbox.shell.writing import SmallFile, write_file, write_small_files

__all__ = [
    "RemoteFile",
    "RemoteStat",
    "SmallFile",
    "read_file",
    "remove_file",
    "stat",
    "write_file",
    "write_small_files",
]

SCRIPT_BYTES = 1024 * 1024
"""Files up to here come by script although there is a ``FileApi``: that is one call."""

ATTEMPTS = 4
"""How often a ``FileApi`` is asked for one file, before a cut transfer is an error."""

MAX_PAUSE_S = 15.0
"""Longest pause between two attempts, whatever the provider asks for."""


class RemoteFile(Iterator[bytes]):
    """The bytes of a file that is being read, in pieces of any size.

    Attributes:
        size: Of the file; 0 for some that have content all the same, e.g. below ``/proc``.
        mode: Its permission bits.
    """

    def __init__(self, head: Piece, pieces: Iterator[bytes]) -> None:
        self.size = head.size
        self.mode = head.mode
        self._pieces = pieces

    def __next__(self) -> bytes:
        return next(self._pieces)


def read_file(
    shell: Shell,
    path: str,
    *,
    offset: int = 0,
    clock: Clock | None = None,
    api: FileApi | None = None,
) -> RemoteFile:
    """Open a file for reading from ``offset`` on.

    The first piece is fetched before this returns, so what is wrong with the file is raised
    here. Links are followed. An offset at or past the end yields nothing. Files without a size
    of their own, such as those below ``/proc``, are read until they end.

    Scripts read 4 MiB per call (8 with a ``FileShell``). With a ``FileApi`` a file of more than
    1 MiB comes by that, between two scripts that say whether it was the same file all the time.

    Args:
        shell: Where.
        path: The file.
        offset: First byte to read, 0 or more; scripts read all of what does not begin at 0.
        clock: Time and sleep between repeated calls.
        api: Brings out what is large; None: scripts do.

    Raises:
        RemoteFileNotFoundError: No such file.
        RemoteFileError: A directory, a device, or no permission.
        TransferError: The file changed while it was being read, or a piece came short; also
            raised by the iterator.
        ValueError: An empty path, one with a NUL character, or a negative offset.
    """
    if api is None or offset or not can_name(path):
        head = read_head(shell, path, offset=offset, clock=clock)
        return RemoteFile(head, pieces(shell, path, offset, head, clock))
    head = read_head(shell, path, limit=SCRIPT_BYTES, whole=True, clock=clock)
    if head.is_last(0) or head.size == 0:
        return RemoteFile(head, pieces(shell, path, 0, head, clock))
    return RemoteFile(head, _streamed(shell, api, path, head, clock))


def _streamed(
    shell: Shell, api: FileApi, path: str, head: Piece, clock: Clock | None
) -> Iterator[bytes]:
    """Yield a file as it was; goes on where it was cut off."""
    done = failures = 0
    while True:
        problem: ProviderError | None = None
        try:
            for piece in _from(done, api.get(path)):
                done += len(piece)
                if done > head.size:
                    raise changed(path)
                yield piece
        except RemoteFileError:
            # What the service cannot find or open, the shell's user perhaps can.
            yield from pieces(shell, path, done, head, clock)
            return
        except ProviderError as error:
            problem = error
        if read_head(shell, path, limit=1, clock=clock).identity != head.identity:
            raise changed(path)
        if done == head.size:
            return
        failures += 1
        if failures == ATTEMPTS or (problem is not None and problem.retryable is False):
            raise TransferError(
                f"{path!r} was cut short: {done} of {head.size} bytes arrived"
            ) from problem
        asked: float | None = getattr(problem, "retry_after_s", None)
        (clock or SystemClock()).sleep(min(max(2.0**failures / 2, asked or 0.0), MAX_PAUSE_S))


def _from(offset: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what comes from ``offset`` on."""
    for piece in pieces:
        if offset < len(piece):
            yield piece[offset:] if offset else piece
        offset = max(0, offset - len(piece))


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """What a path in the sandbox is, links followed.

    Attributes:
        kind: What it is; ``"other"`` for devices, sockets and FIFOs.
        size: Bytes of a file; 0 for some that have content all the same, e.g. below ``/proc``.
        mode: Permission bits.
    """

    kind: Literal["file", "directory", "other"]
    size: int
    mode: int


def stat(shell: Shell, path: str, *, clock: Clock | None = None) -> RemoteStat:
    """Say what a path in the sandbox is.

    Raises:
        RemoteFileNotFoundError: Nothing is there.
        RemoteFileError: No permission to look.
    """
    check_path(path)
    tail = b'need stat\nsay "stat:$(stat -L -c %s:%f "$P")"\n'
    fields = ask(shell, assign("P", path) + FIND + tail, [path], clock=clock)
    try:
        size, raw_mode = int(fields[1]), int(fields[2], 16)
    except (ValueError, IndexError):
        raise TransferError(f"the answer about {path!r} is damaged") from None
    if stat_bits.S_ISREG(raw_mode):
        kind: Literal["file", "directory", "other"] = "file"
    else:
        kind = "directory" if stat_bits.S_ISDIR(raw_mode) else "other"
    return RemoteStat(kind, size, stat_bits.S_IMODE(raw_mode))


def remove_file(shell: Shell, path: str) -> bool:
    """Remove a temporary file; False when that could not be done or is not known. One call."""
    check_path(path)
    body = assign("P", path) + b'rm -f "$P" && say done\nsay failed\n'
    try:
        return ask(shell, body, [path], repeat=False, timeout_s=15.0) == ["done"]
    except SandboxError:
        return False
