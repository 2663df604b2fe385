"""Read and write files through ``shell``.

Paths that do not begin with ``/`` are relative to the shell's ``HOME``. Needed inside: ``stat``,
``dd``, ``head``, ``tr``, ``base64`` (or ``od``), and for writing ``mkdir``, ``chmod``, ``mv``,
``rm``, ``readlink``.
"""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import SandboxError, TransferError
from ekairos_sandbox.shell.base import DIRECT_BYTES, FileShell, Shell
from ekairos_sandbox.shell.exchange import ask, assign, payload
from ekairos_sandbox.shell.writing import SmallFile, write_file, write_small_files

__all__ = [
    "PIECE_BYTES",
    "Piece",
    "RemoteStat",
    "SmallFile",
    "read_file",
    "read_head",
    "remove_file",
    "stat",
    "write_file",
    "write_small_files",
]

PIECE_BYTES = 4 * 1024 * 1024
"""Bytes that one call reads."""

# Sets P to the absolute path and answers unless something is there.
_FIND = b"""\
case $P in /*) ;; *) P=${HOME:-}/$P ;; esac
[ -e "$P" ] || {
 d=$P; until [ -e "$d" ]; do d=${d%/*}; [ "$d" ] || d=/; done
 [ ! -d "$d" ] || [ -x "$d" ] || no denied
 no noent
}
"""

# The dot after the content proves that it was read to its end, or to the limit, without error.
# `dd count=0` moves to the offset at once, where `tail -c` may read everything before it.
_READ = b"""\
[ ! -d "$P" ] || no isdir
[ -f "$P" ] || no special
[ -r "$P" ] || no denied
need stat tr head dd
id() { stat -L -c '%s-%i-%y' "$P" | tr -d ': '; }
printf '\\n@EK1:%s:data:%s:' "$N" "$(id)"
content() { [ "$O" = 0 ] || dd bs=1 skip="$O" count=0; head -c "$M" && printf .; }
"""
_ENCODED = b'content <"$P" | enc\n'
_INTO_FILE = b'content <"$P" >&4\n'
_READ_END = b"""printf ':%s:%s@\\n' "$(id)" "$N"\n"""


def read_file(
    shell: Shell, path: str, *, offset: int = 0, clock: Clock | None = None
) -> Iterator[bytes]:
    """Return an iterator over the bytes of a file, in pieces of 4 MiB (8 from a ``FileShell``).

    The first piece is fetched before this returns, so what is wrong with the file is raised
    here. Links are followed. An offset at or past the end yields nothing. Files without a size
    of their own, such as those below ``/proc``, are read until they end.

    Args:
        shell: Where.
        path: The file.
        offset: First byte to read, 0 or more.
        clock: Time and sleep between repeated calls.

    Raises:
        RemoteFileNotFoundError: No such file.
        RemoteFileError: A directory, a device, or no permission.
        TransferError: The file changed while it was being read, or a piece came short; also
            raised by the iterator.
        ValueError: An empty path, one with a NUL character, or a negative offset.
    """
    first = read_head(shell, path, offset=offset, clock=clock)
    return _pieces(shell, path, offset, first, clock)


def read_head(
    shell: Shell,
    path: str,
    *,
    offset: int = 0,
    limit: int | None = None,
    clock: Clock | None = None,
) -> Piece:
    """Read the first piece of a file from ``offset`` on, and its size. One call.

    Args:
        shell: Where.
        path: The file.
        offset: First byte to read, 0 or more.
        limit: How many bytes at most; None: as many as ``read_file`` takes at a time.
        clock: Time and sleep between repeated calls.

    Raises:
        RemoteFileNotFoundError: No such file.
        RemoteFileError: A directory, a device, or no permission.
        TransferError: The file changed while it was being read, or the answer came short.
        ValueError: An empty path, one with a NUL character, or a negative offset.
    """
    check_path(path)
    if offset < 0:
        raise ValueError("offset must be 0 or more")
    return _read_piece(shell, path, offset, clock, limit)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file.

    Attributes:
        data: The bytes.
        size: Of the whole file; 0 for some that have content all the same, e.g. below ``/proc``.
        identity: Another text after the file was changed or replaced; "" if ``size`` is 0.
        full: Whether it is as long as it may be.
    """

    data: bytes
    size: int
    identity: str
    full: bool

    def is_last(self, offset: int) -> bool:
        """Whether a piece that begins at ``offset`` is the file's last one."""
        if self.size == 0:
            return not self.full
        return offset + len(self.data) >= self.size


def _pieces(
    shell: Shell, path: str, offset: int, piece: Piece, clock: Clock | None
) -> Iterator[bytes]:
    identity = piece.identity
    while True:
        if piece.data:
            yield piece.data
        if piece.is_last(offset):
            return
        offset += len(piece.data)
        piece = _read_piece(shell, path, offset, clock)
        if piece.identity != identity:
            raise _changed(path)


def _read_piece(
    shell: Shell, path: str, offset: int, clock: Clock | None, limit: int | None = None
) -> Piece:
    most = DIRECT_BYTES if isinstance(shell, FileShell) else PIECE_BYTES
    most = most if limit is None else min(most, limit)
    head = b"".join((assign("P", path), b"O=%d M=%d\n" % (offset, most), _FIND, _READ))
    data: bytes | None
    if isinstance(shell, FileShell):
        fields, data = _ask_for_file(shell, head + _INTO_FILE + _READ_END, path, clock)
    else:
        # Hexadecimal digits with spaces, where the sandbox has no base64, take the most room.
        room = most * 7 // 2
        body = head + _ENCODED + _READ_END
        fields = ask(shell, body, [path], answer_bytes=room, clock=clock)
        data = payload(fields[2]) if len(fields) == 4 else None
    if len(fields) != 4 or fields[0] != "data":
        raise TransferError(f"the answer about {path!r} is damaged")
    before, after = fields[1], fields[3]
    size, after_size = before.partition("-")[0], after.partition("-")[0]
    if not size.isdecimal() or data is None or not data.endswith(b"."):
        raise TransferError(f"{path!r} could not be read to its end")
    # Without a size there is nothing that stands still: /proc makes files up as they are read.
    if size != after_size or (size != "0" and before != after):
        raise _changed(path)
    data = data[:-1]
    if size == "0":
        return Piece(data, 0, "", full=len(data) == most)
    expected = min(most, max(0, int(size) - offset))
    if expected == 0:
        data = b""
    if len(data) != expected:
        raise TransferError(f"{path!r} gave {len(data)} bytes where {expected} were expected")
    return Piece(data, int(size), before, full=len(data) == most)


def _ask_for_file(
    shell: FileShell, body: bytes, path: str, clock: Clock | None
) -> tuple[list[str], bytes]:
    data = b""

    def run(script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        nonlocal data
        output, data = shell.shell_receiving(
            script, DIRECT_BYTES + 1, timeout_s=timeout_s, max_bytes=max_bytes
        )
        return output

    fields = ask(shell, body, [path], run=run, clock=clock)
    return fields, data


def _changed(path: str) -> TransferError:
    return TransferError(f"{path!r} changed while it was being read", hint="read it again")


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
    fields = ask(shell, assign("P", path) + _FIND + tail, [path], clock=clock)
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


def check_path(path: str) -> None:
    """Refuse what no file can be called.

    Raises:
        ValueError: It is empty or holds a NUL character.
    """
    if not path:
        raise ValueError("the path is empty")
    if "\0" in path:
        raise ValueError("the path holds a NUL character")
