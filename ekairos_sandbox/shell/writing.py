"""Write files through ``shell``: in parts to a temporary file beside the target, then one rename.

Each part goes to its own place in the temporary file, so a part that is sent twice, because the
answer was lost, does no harm. Only the rename cannot be repeated; whether it happened shows in
the target having the size and time of the temporary file that is no longer there.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import RemoteFileError, SandboxError
from ekairos_sandbox.shell.base import DIRECT_BYTES, Carrier, FileShell, Shell
from ekairos_sandbox.shell.chunks import Chunks
from ekairos_sandbox.shell.envelope import new_nonce
from ekairos_sandbox.shell.exchange import SCRIPT_OVERHEAD, MissingToolError, RunScript, ask, assign
from ekairos_sandbox.shell.quoting import printf_format, quote

PART_BYTES = 4 * 1024 * 1024
"""Bytes per call where the provider sets no limit to a script's length."""

FILES_PER_CALL = 200
"""Small files that go in one call, so that it ends in seconds."""

# at: sets P to where the file shall be, links followed, and T to the temporary file beside it.
# put: stores standard input, decoded, as one part of T. take: the same of descriptor 4, as it is.
# has: checks how much T holds. fin: checks T and moves it to P; without an identity, a missing T
# means that the same script is at it twice, as its answer was lost while it ran, and that the other
# one was first.
_WRITE = b"""\
need stat dd tr readlink mkdir chmod mv rm
id() { stat -L -c '%s-%y' "$1" | tr -d ': '; }
at() {
 I=$1 T=
 case $P in /*) ;; *) P=${HOME:-}/$P ;; esac
 n=0
 while [ -L "$P" ]; do
  l=$(readlink "$P" && echo .); l=${l%??}; n=$((n+1)); [ "$l" ] && [ $n -le 40 ] || no link
  case $l in /*) P=$l ;; *) P=${P%/*}/$l ;; esac
 done
 [ ! -d "$P" ] || no isdir
 [ ! -e "$P" ] || [ -f "$P" ] || no special
 d=${P%/*}
 [ -d "$d/" ] || m=$(mkdir -p "$d" 2>&1) || no failed "$m"
 T=$d/$Q
}
store() { umask 077; dd bs="$1" seek="$2" conv=notrunc of="$T"; }
put() { m=$({ dec | store "$1" "$2"; } 2>&1) || no failed "$m"; }
take() { m=$(store "$1" "$2" 2>&1 <&4) || no failed "$m"; }
has() { [ "$(stat -c %s "$T")" -ge "$1" ] || no short; }
fin() {
 if [ -f "$T" ]; then
  [ "$(stat -c %s "$T")" = "$1" ] || no short
  m=$({ chmod "$2" "$T" && mv -f "$T" "$P"; } 2>&1) || no failed "$m"
  [ ! -d "$P" ] || { T=$P/$Q; no isdir; }
 else
  if [ -n "$3" ]; then [ "$(id "$P")" = "$3" ]
  else [ -f "$P" ] && [ "$(stat -L -c %s "$P")" = "$1" ]
  fi || no lost
 fi
}
"""


@dataclass(frozen=True, slots=True)
class _Coding:
    """How content travels as sh text."""

    decoder: bytes
    encode: Callable[[bytes], bytes]
    text_per_3_bytes: int

    def store(self, part: bytes, part_bytes: int, index: int) -> bytes:
        """Statements that store part number ``index`` of parts of this size."""
        no_space = b"no failed 'no space for the temporary data of sh'"
        head = b"put %d %d <<'@' || %s\n" % (part_bytes, index, no_space)
        return b"".join((head, self.encode(part), b"\n@\n"))

    def capacity(self, room: int) -> int:
        """How many bytes surely fit into ``room`` bytes of text."""
        return max(0, room) // self.text_per_3_bytes * 3


_BASE64 = _Coding(b"need base64; dec() { base64 -d; }\n", base64.b64encode, 4)
_OCTAL = _Coding(b'dec() { x=$(cat); printf "$x"; }\n', lambda data: printf_format(data)[1:-1], 12)
_FIXED_BYTES = SCRIPT_OVERHEAD + len(_BASE64.decoder) + len(_WRITE)
_FILE_BYTES = 240  # the lines of one file in a script, its path and its content aside


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A file whose content is in memory.

    Attributes:
        path: Where in the sandbox.
        data: Its content.
        mode: Permission bits.
    """

    path: str
    data: bytes
    mode: int = 0o644


def write_file(
    shell: Shell,
    path: str,
    chunks: Iterable[bytes],
    *,
    mode: int = 0o644,
    clock: Clock | None = None,
    carrier: Carrier | None = None,
) -> int:
    """Write a file in one step for everybody who reads it, and return its size in bytes.

    Parents are made. What was there is replaced once all of the new content is stored; a link is
    followed, so that it stays and its target is replaced. The file belongs to the user that the
    shell runs as. Content that fits into one script takes one call. At most three parts of 4 MiB
    are in memory at once, or of 8 MiB with a ``FileShell``, or of a carrier's size. When ``chunks``
    raises, nothing is replaced and the error passes through.

    Args:
        shell: Where.
        path: The file.
        chunks: Its content in pieces of any size.
        mode: Permission bits, whatever the umask inside.
        clock: Time and sleep between repeated calls.
        carrier: Brings in what does not fit into one script; None: scripts do.

    Raises:
        RemoteFileError: A directory or device is in the way, no permission, no space.
        TransferError: What is stored inside is not what was sent.
        ValueError: The path or mode cannot be.
    """
    transfer = _Transfer(shell, path, mode, clock, carrier)
    try:
        return transfer.send(Chunks(chunks), _BASE64)
    except BaseException:
        transfer.discard()
        raise


class _Transfer:
    """One file on its way."""

    def __init__(
        self, shell: Shell, path: str, mode: int, clock: Clock | None, carrier: Carrier | None
    ) -> None:
        self._shell = shell
        self._carrier = carrier
        self._path = path
        self._mode = check_mode(mode)
        self._clock = clock
        self._where = _where(path, 0, new_nonce())
        self._begun = False

    def send(self, source: Chunks, coding: _Coding) -> int:
        size = self._part_bytes(coding)
        part = source.take(size)
        whole = source.at_end()
        if not whole and self._carrier is not None:
            source.put_back(part)
            return self._send_carried(source, self._carrier)
        check = _finish(len(part), self._mode) if whole else _holds(len(part))
        try:
            self._store(coding, part, size, 0, check)
        except MissingToolError as error:
            if error.tool != "base64":
                raise
            source.put_back(part)
            return self.send(source, _OCTAL)
        return len(part) if whole else self._send_rest(source, coding, size)

    def _send_rest(self, source: Chunks, coding: _Coding, size: int) -> int:
        total, identity = size, ""
        while part := source.take(size):
            index, total = total // size, total + len(part)
            identity = self._store(coding, part, size, index, _holds(total))
        self._ask(_finish(total, self._mode, identity))
        return total

    def _send_carried(self, source: Chunks, carrier: Carrier) -> int:
        """Have each part carried to its path, and store it from there."""
        path, size = quote(carrier.path), carrier.part_bytes
        # Made with its mode before anything is in it, which the carrier leaves as it is.
        self._ask(b'(umask 077; true >"$T" && true >%s) || no denied\n' % path)
        total, identity = 0, ""
        try:
            while part := source.take(size):
                carrier.send(part)
                index, total = total // size, total + len(part)
                take = b"take %d %d 4<%s || no lost\n" % (size, index, path)
                identity = self._ask(b"".join((_EXISTS, take, _holds(total))))
            self._ask(_finish(total, self._mode, identity))
        finally:
            with contextlib.suppress(SandboxError):
                body = b"rm -f %s; say done\n" % path
                ask(self._shell, body, [self._path], repeat=False, timeout_s=15.0)
        return total

    def _store(
        self, coding: _Coding, part: bytes, part_bytes: int, index: int, check: bytes
    ) -> str:
        """Store one part; return the identity of the temporary file."""
        before = _EXISTS if index else b""
        shell = self._shell
        if not isinstance(shell, FileShell):
            return self._ask(
                b"".join((coding.decoder, before, coding.store(part, part_bytes, index), check))
            )

        def run(script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
            return shell.shell_sending(script, part, timeout_s=timeout_s, max_bytes=max_bytes)

        return self._ask(b"%stake %d %d\n%s" % (before, part_bytes, index, check), run)

    def discard(self) -> None:
        """Remove the temporary file, if there may be one and the sandbox can be asked."""
        if self._begun:
            with contextlib.suppress(SandboxError):
                body = _WRITE + self._where + b'rm -f "$T"; say done\n'
                ask(self._shell, body, [self._path], repeat=False, timeout_s=15.0)

    def _ask(self, lines: bytes, run: RunScript | None = None) -> str:
        """Run statements about the file; return the identity of its temporary file."""
        self._begun = True
        body = b"".join((_WRITE, self._where, lines, b'say "done:$(id "$T")"\n'))
        try:
            return ask(self._shell, body, [self._path], run=run, clock=self._clock)[-1]
        except RemoteFileError:
            self._begun = False  # the script that refused has removed the temporary file
            raise

    def _part_bytes(self, coding: _Coding) -> int:
        limit = self._shell.max_script_bytes
        if isinstance(self._shell, FileShell):
            return DIRECT_BYTES
        if limit is None:
            return PART_BYTES
        size = coding.capacity(limit - _FIXED_BYTES - _FILE_BYTES - len(self._where))
        if size <= 0:
            raise RemoteFileError(
                f"the provider's limit of {limit} bytes per script leaves no room for the content",
                path=self._path,
            )
        return min(size, PART_BYTES)


def write_small_files(
    shell: Shell, files: Sequence[SmallFile], *, clock: Clock | None = None
) -> None:
    """Write files in as few calls as their total size allows, each replaced in one step.

    Otherwise as ``write_file``. After an error, the files before the one that it names have been
    written.

    Raises:
        RemoteFileError: As ``write_file``; ``path`` tells which file.
        TransferError: What is stored inside is not what was sent.
        ValueError: A path or mode cannot be.
    """
    try:
        _send_batches(shell, files, _BASE64, clock)
    except MissingToolError as error:
        if error.tool != "base64":
            raise
        _send_batches(shell, files, _OCTAL, clock)


def _send_batches(
    shell: Shell, files: Sequence[SmallFile], coding: _Coding, clock: Clock | None
) -> None:
    limit = shell.max_script_bytes or PART_BYTES * 4 // 3
    nonce = new_nonce()
    blocks: list[bytes] = []
    paths: list[str] = []
    room = limit - _FIXED_BYTES

    def flush() -> None:
        nonlocal blocks, paths, room
        if blocks:
            body = b"".join((coding.decoder, _WRITE, *blocks, b"say done\n"))
            ask(shell, body, paths, clock=clock)
        blocks, paths, room = [], [], limit - _FIXED_BYTES

    for file in files:
        size = len(file.data)
        lines = coding.store(file.data, max(size, 1), 0)
        lines += _finish(size, check_mode(file.mode))
        block = _where(file.path, len(blocks), nonce) + lines
        if len(block) > room or len(blocks) == FILES_PER_CALL:
            flush()
            block = _where(file.path, 0, nonce) + lines
        if len(block) > room:
            write_file(shell, file.path, [file.data], mode=file.mode, clock=clock)
            continue
        blocks.append(block)
        paths.append(file.path)
        room -= len(block)
    flush()


# The parts are removed after the rename, the first one first: without it the file is in place.
_JOIN = b"""\
need cat
if [ -e "$1" ]; then
 m=$({ umask 077; cat "$@" >"$T"; } 2>&1) || no failed "$m"
 fin "$S" "$M" ''
else
 [ -f "$P" ] && [ "$(stat -c %s "$P")" = "$S" ] || no lost
fi
rm -f "$@"
say done
"""


class Parts:
    """A file that comes into the sandbox as several, by other means than ``shell``.

    Get a path for each part from ``new``, write it there, and ``join`` them.

    Attributes:
        size: Bytes of all parts together.
    """

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._mode = check_mode(mode)
        self._nonce = new_nonce()
        self._prefix = f"{path[: -len(_name(path))]}{_temporary(path, self._nonce)}"
        self._count = 0
        self.size = 0

    def new(self, size: int) -> str:
        """Return the path for the next part, of so many bytes."""
        self._count += 1
        self.size += size
        return f"{self._prefix}.{self._count}"

    def join(self, shell: Shell, *, clock: Clock | None = None) -> None:
        """Make one file of the parts and put it in its place, as ``write_file`` does. One call.

        Raises:
            RemoteFileError: A directory or device is in the way, no permission, no space.
            TransferError: What is stored inside is not what was sent.
        """
        head = _WRITE + _where(self._path, 0, self._nonce) + self._names()
        body = b"S=%d M=%04o\n" % (self.size, self._mode) + _JOIN
        ask(shell, head + body, [self._path], clock=clock)

    def discard(self, shell: Shell, *, clock: Clock | None = None) -> None:
        """Remove the parts, if the sandbox can be asked."""
        with contextlib.suppress(SandboxError):
            body = self._names() + b'rm -f "$@"; say done\n'
            ask(shell, body, [self._path], repeat=False, timeout_s=15.0, clock=clock)

    def _names(self) -> bytes:
        numbers = b" ".join(b'"$R.%d"' % number for number in range(1, self._count + 1))
        return b"%sset -- %s\n" % (assign("R", self._prefix), numbers)


_EXISTS = b'[ -f "$T" ] || no gone\n'


def _where(path: str, number: int, nonce: str) -> bytes:
    temporary = assign("Q", _temporary(path, nonce))
    return b"%s%sat %d\n" % (assign("P", path), temporary, number)


def _temporary(path: str, nonce: str) -> str:
    return f".{_name(path)[:48]}.ekairos-{nonce}"


def _holds(total: int) -> bytes:
    """A statement that checks that so many bytes are stored."""
    return b"has %d\n" % total


def _finish(total: int, mode: int, identity: str = "") -> bytes:
    """Statements that put the file in its place, or see that this has happened already."""
    return b"fin %d %04o %s\n" % (total, mode, quote(identity))


def check_mode(mode: int) -> int:
    """Return permission bits if they are such.

    Raises:
        ValueError: They are not.
    """
    if not 0 <= mode <= 0o7777:
        raise ValueError("mode must be between 0 and 0o7777")
    return mode


def _name(path: str) -> str:
    name = path.rpartition("/")[2]
    if name in {"", ".", ".."}:
        raise ValueError(f"{path!r} does not end with the name of a file")
    return name
