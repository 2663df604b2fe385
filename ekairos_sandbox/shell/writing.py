"""Write files through ``shell``: in parts to a temporary file beside the target, then one rename.

Each part goes to its own place in the temporary file, so a part that is sent twice, because the
answer was lost, does no harm. Large files go by ``parts`` instead where the service can move them.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import RemoteFileError, SandboxError, SandboxGoneError
from ekairos_sandbox.shell.base import DIRECT_BYTES, FileApi, FileShell, Shell
from ekairos_sandbox.shell.chunks import Chunks
from ekairos_sandbox.shell.envelope import new_nonce
from ekairos_sandbox.shell.exchange import SCRIPT_OVERHEAD, MissingToolError, RunScript, ask
from ekairos_sandbox.shell.parts import can_write, write_in_parts
from ekairos_sandbox.shell.placing import PLACING, check_mode, finish, where
from ekairos_sandbox.shell.quoting import printf_format

PART_BYTES = 4 * 1024 * 1024
"""Bytes per call where the provider sets no limit to a script's length."""

SCRIPT_BYTES = 1024 * 1024
"""Content up to here goes by script although there is a ``FileApi``: that is one call."""

FILES_PER_CALL = 200
"""Small files that go in one call, so that it ends in seconds."""

# put: stores standard input, decoded, as one part of T. take: the same of descriptor 4, as it is.
# has: checks how much T holds.
_WRITE = (
    PLACING
    + b"""\
need dd
store() { umask 077; dd bs="$1" seek="$2" conv=notrunc of="$T"; }
put() { m=$({ dec | store "$1" "$2"; } 2>&1) || no failed "$m"; }
take() { m=$(store "$1" "$2" 2>&1 <&4) || no failed "$m"; }
has() { [ "$(stat -c %s "$T")" -ge "$1" ] || no short; }
"""
)


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
    api: FileApi | None = None,
) -> int:
    """Write a file in one step for everybody who reads it, and return its size in bytes.

    Parents are made. What was there is replaced once all of the new content is stored; a link is
    followed, so that it stays and its target is replaced. The file belongs to the user that the
    shell runs as. Content that fits into one script takes one call. At most three parts of 4 MiB
    are in memory at once, or of 8 MiB with a ``FileShell``, or one part of a ``FileApi``. When
    ``chunks`` raises, nothing is replaced and the error passes through.

    Args:
        shell: Where.
        path: The file.
        chunks: Its content in pieces of any size.
        mode: Permission bits, whatever the umask inside.
        clock: Time and sleep between repeated calls.
        api: Brings in what does not fit into one script; None: scripts do.

    Raises:
        RemoteFileError: A directory or device is in the way, no permission, no space.
        TransferError: What is stored inside is not what was sent.
        ValueError: The path or mode cannot be.
    """
    transfer = _Transfer(shell, path, mode, clock, api if can_write(path) else None)
    try:
        return transfer.send(Chunks(chunks), _BASE64)
    except SandboxGoneError:
        raise
    except BaseException:
        transfer.discard()
        raise


class _Transfer:
    """One file on its way."""

    def __init__(
        self, shell: Shell, path: str, mode: int, clock: Clock | None, api: FileApi | None
    ) -> None:
        self._shell = shell
        self._api = api
        self._path = path
        self._mode = check_mode(mode)
        self._clock = clock
        self._where = where(path, 0, new_nonce())
        self._begun = False

    def send(self, source: Chunks, coding: _Coding) -> int:
        size = self._part_bytes(coding)
        part = source.take(size)
        whole = source.at_end()
        if not whole and self._api is not None:
            source.put_back(part)
            del part
            return write_in_parts(
                self._shell, self._api, self._path, source, self._mode, self._clock
            )
        check = finish(len(part), self._mode) if whole else _holds(len(part))
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
        self._ask(finish(total, self._mode, identity))
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
        most = PART_BYTES if self._api is None else SCRIPT_BYTES
        if limit is None:
            return most
        size = coding.capacity(limit - _FIXED_BYTES - _FILE_BYTES - len(self._where))
        if size <= 0:
            raise RemoteFileError(
                f"the provider's limit of {limit} bytes per script leaves no room for the content",
                path=self._path,
            )
        return min(size, most)


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
        lines += finish(size, check_mode(file.mode))
        block = where(file.path, len(blocks), nonce) + lines
        if len(block) > room or len(blocks) == FILES_PER_CALL:
            flush()
            block = where(file.path, 0, nonce) + lines
        if len(block) > room:
            write_file(shell, file.path, [file.data], mode=file.mode, clock=clock)
            continue
        blocks.append(block)
        paths.append(file.path)
        room -= len(block)
    flush()


_EXISTS = b'[ -f "$T" ] || no gone\n'


def _holds(total: int) -> bytes:
    """A statement that checks that so many bytes are stored."""
    return b"has %d\n" % total
