"""Read a file by scripts, piece by piece, each of which proves to be whole and of the same file."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import TransferError
from ekairos_sandbox.shell.base import DIRECT_BYTES, FileShell, Shell
from ekairos_sandbox.shell.exchange import ask, assign, payload

PIECE_BYTES = 4 * 1024 * 1024
"""Bytes that one call reads."""

# Sets P to the absolute path and answers unless something is there.
FIND = b"""\
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
id() { stat -L -c '%f-%s-%i-%y' "$P" | tr -d ': '; }
i=$(id); s=${i#*-}; [ -z "$W" ] || [ "${s%%-*}" -le "$M" ] || M=0
printf '\\n@EK1:%s:data:%s:' "$N" "$i"
content() { [ "$O" = 0 ] || dd bs=1 skip="$O" count=0; head -c "$M" && printf .; }
"""
_ENCODED = b'content <"$P" | enc\n'
_INTO_FILE = b'content <"$P" >&4\n'
_READ_END = b"""printf ':%s:%s@\\n' "$(id)" "$N"\n"""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file.

    Attributes:
        data: The bytes.
        size: Of the whole file; 0 for some that have content all the same, e.g. below ``/proc``.
        mode: Permission bits of the file.
        identity: Another text after the file was changed or replaced; "" if ``size`` is 0.
        full: Whether it is as long as it may be.
    """

    data: bytes
    size: int
    mode: int
    identity: str
    full: bool

    def is_last(self, offset: int) -> bool:
        """Whether a piece that begins at ``offset`` is the file's last one."""
        if self.size == 0:
            return not self.full
        return offset + len(self.data) >= self.size


def read_head(
    shell: Shell,
    path: str,
    *,
    offset: int = 0,
    limit: int | None = None,
    whole: bool = False,
    clock: Clock | None = None,
) -> Piece:
    """Read the first piece of a file from ``offset`` on, and its size. One call.

    Args:
        shell: Where.
        path: The file.
        offset: First byte to read, 0 or more.
        limit: How many bytes at most; None: as many as ``read_file`` takes at a time.
        whole: Read nothing of a file that is longer.
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
    return _read_piece(shell, path, offset, clock, limit, whole)


def pieces(
    shell: Shell, path: str, offset: int, piece: Piece, clock: Clock | None
) -> Iterator[bytes]:
    """Yield a piece of a file that begins at ``offset``, and all that follows it."""
    identity = piece.identity
    while True:
        if piece.data:
            yield piece.data
        if piece.is_last(offset):
            return
        offset += len(piece.data)
        piece = _read_piece(shell, path, offset, clock)
        if piece.identity != identity:
            raise changed(path)


def _read_piece(
    shell: Shell,
    path: str,
    offset: int,
    clock: Clock | None,
    limit: int | None = None,
    whole: bool = False,
) -> Piece:
    most = DIRECT_BYTES if isinstance(shell, FileShell) else PIECE_BYTES
    most = most if limit is None else min(most, limit)
    numbers = b"O=%d M=%d W=%s\n" % (offset, most, b"y" if whole else b"")
    head = b"".join((assign("P", path), numbers, FIND, _READ))
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
    raw_mode, _, before = fields[1].partition("-")
    size, after = before.partition("-")[0], fields[3].partition("-")[2]
    if not size.isdecimal() or data is None or not data.endswith(b"."):
        raise TransferError(f"{path!r} could not be read to its end")
    mode = stat.S_IMODE(int(raw_mode, 16))
    # Without a size there is nothing that stands still: /proc makes files up as they are read.
    if size != after.partition("-")[0] or (size != "0" and before != after):
        raise changed(path)
    data = data[:-1]
    if size == "0":
        return Piece(data, 0, mode, "", full=len(data) == most)
    expected = min(most, max(0, int(size) - offset))
    if expected == 0 or (whole and int(size) > most):
        expected = 0
        data = b""
    if len(data) != expected:
        raise TransferError(f"{path!r} gave {len(data)} bytes where {expected} were expected")
    return Piece(data, int(size), mode, before, full=len(data) == most)


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


def changed(path: str) -> TransferError:
    """Return the error for a file that did not stay what it was."""
    return TransferError(f"{path!r} changed while it was being read", hint="read it again")


def check_path(path: str) -> None:
    """Refuse what no file can be called.

    Raises:
        ValueError: It is empty or holds a NUL character.
    """
    if not path:
        raise ValueError("the path is empty")
    if "\0" in path:
        raise ValueError("the path holds a NUL character")
