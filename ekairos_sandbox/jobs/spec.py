"""What to run: ``JobSpec``, its input, and the checks on what callers pass in."""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from ekairos_sandbox import checks
from ekairos_sandbox.shell.quoting import as_bytes

MAX_ARGUMENT_BYTES: Final = 131_071
"""Longest argument, and longest ``NAME=value``, that Linux passes to a program."""

DEFAULT_STORED_CAP_BYTES: Final = 1 << 30
"""How much of each output stream is kept inside the sandbox."""

MAX_TIMEOUT_S: Final = 10**9
"""Longest time that a command may be given: 31 years."""

MEMORY_BYTES: Final = 8 << 20
"""Input up to this size is kept in memory, more of it in a temporary file."""

CHUNK_BYTES: Final = 1 << 20

_COMMAND_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def new_command_id() -> str:
    """Return a command id that nobody else has: ``cmd-`` and 20 hexadecimal digits."""
    return f"cmd-{secrets.token_hex(10)}"


def check_command_id(command_id: str) -> str:
    """Return a command id that a caller chose.

    Raises:
        TypeError: It is no text.
        ValueError: It could not be the name of a directory, or is too long.
    """
    if not isinstance(command_id, str):
        raise TypeError(f"a command id is text, not {type(command_id).__name__}")
    if not _COMMAND_ID.fullmatch(command_id) or ".." in command_id:
        raise ValueError(
            "a command id has 1 to 64 letters, digits, '.', '_' and '-', begins with a letter or "
            "digit, and does not contain '..'"
        )
    return command_id


class SpooledInput:
    """Bytes for a command's standard input that can be read more than once.

    Make one with ``from_any``, and close it after the command was started.

    Attributes:
        size: Number of bytes.
    """

    def __init__(self, source: bytes | Path | IO[bytes], size: int, *, start: int = 0) -> None:
        self.size = size
        self._source = source
        self._start = start
        self._owned = False

    @classmethod
    def from_any(
        cls,
        value: SpooledInput | bytes | str | os.PathLike[str] | IO[bytes] | Iterable[bytes],
    ) -> SpooledInput:
        """Take input as callers give it.

        Args:
            value: Bytes; text, sent as UTF-8; the path of a local file, as ``pathlib.Path``; a
                file opened for reading bytes, from its present position on; or an iterable of
                bytes. Files that can seek are read in place and must not change meanwhile;
                anything else is read now, beyond 8 MiB into a temporary file.

        Raises:
            TypeError: It is something else.
            ValueError: It is text that UTF-8 does not have.
            OSError: The file cannot be read.
        """
        if isinstance(value, SpooledInput):
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            return cls(bytes(value), len(bytes(value)))
        if isinstance(value, str):
            try:
                return cls.from_any(value.encode())
            except UnicodeEncodeError:
                raise ValueError("stdin holds half a character; pass it as bytes") from None
        if isinstance(value, os.PathLike):
            path = Path(value)
            with path.open("rb") as file:
                if file.seekable():
                    return cls(path, file.seek(0, os.SEEK_END))
                return cls._spool(iter(lambda: file.read(CHUNK_BYTES), b""))
        read = getattr(value, "read", None)
        if read is None:
            if not isinstance(value, Iterable):
                raise TypeError(
                    f"stdin is bytes, text, a path, a file or an iterable of bytes, not "
                    f"{type(value).__name__}"
                )
            return cls._spool(iter(value))
        file = value  # type: ignore[assignment]
        if getattr(file, "seekable", bool)():
            start = file.tell()
            end = file.seek(0, os.SEEK_END)
            file.seek(start)
            if isinstance(file.read(0), bytes):
                return cls(file, end - start, start=start)
        return cls._spool(iter(lambda: read(CHUNK_BYTES), b""))

    @classmethod
    def _spool(cls, pieces: Iterator[bytes]) -> SpooledInput:
        spool = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115
        try:
            for piece in pieces:
                if not isinstance(piece, (bytes, bytearray, memoryview)):
                    raise TypeError(
                        f"stdin must yield bytes, not {type(piece).__name__}; open files with 'rb'"
                    )
                spool.write(piece)
            made = cls(spool, spool.tell())
        except BaseException:
            spool.close()
            raise
        made._owned = True
        return made

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes from the beginning, in pieces of up to 1 MiB.

        Raises:
            ValueError: The file is shorter now than when it was handed in.
        """
        if isinstance(self._source, bytes):
            for at in range(0, self.size, CHUNK_BYTES):
                yield self._source[at : at + CHUNK_BYTES]
            return
        if isinstance(self._source, Path):
            with self._source.open("rb") as file:
                yield from self._read(file)
            return
        self._source.seek(self._start)
        yield from self._read(self._source)

    def _read(self, file: IO[bytes]) -> Iterator[bytes]:
        left = self.size
        while left:
            piece = file.read(min(left, CHUNK_BYTES))
            if not piece:
                raise ValueError("the file given as stdin became shorter while it was read")
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """Delete the temporary file, if there is one. A caller's own file stays open."""
        if self._owned and not isinstance(self._source, (bytes, Path)):
            self._source.close()

    def __enter__(self) -> SpooledInput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class JobSpec:
    """A command to run.

    Attributes:
        command_id: Its id; see ``check_command_id``. The same id never runs twice.
        argv: Program and arguments, passed on exactly.
        cwd: Working directory; None means the sandbox's home, to which relative paths refer.
        env: Variables on top of those that the sandbox was created with; not part of ``repr``.
        stdin: Standard input; None means empty.
        timeout_s: Seconds after which it is ended; None means never.
        grace_s: Seconds between SIGTERM and SIGKILL.
        stored_cap_bytes: How much of each stream is kept; what is beyond is dropped and the
            result says ``truncated``.

    Raises:
        ValueError: Something that could not be passed to any program; says what to do.
    """

    command_id: str
    argv: tuple[str, ...]
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdin: bytes | SpooledInput | None = field(default=None, repr=False)
    timeout_s: float | None = None
    grace_s: float = 5.0
    stored_cap_bytes: int = DEFAULT_STORED_CAP_BYTES

    def __post_init__(self) -> None:
        check_command_id(self.command_id)
        check_argv(self.argv)
        check_env(self.env)
        if self.cwd is not None:
            _check_word(self.cwd, "cwd")
            if not self.cwd:
                raise ValueError("cwd must not be empty; use None for the sandbox's home")
        if self.timeout_s is not None:
            checks.real(self.timeout_s, "timeout_s")
            if not 0 < self.timeout_s <= MAX_TIMEOUT_S:
                raise ValueError("timeout_s must be greater than 0; use None for no timeout")
            object.__setattr__(self, "timeout_s", float(self.timeout_s))
        if not 0 <= self.grace_s <= 3600 or math.isnan(self.grace_s):
            raise ValueError("grace_s must be between 0 and 3600 seconds")
        if self.stored_cap_bytes < 1:
            raise ValueError("stored_cap_bytes must be at least 1")

    @property
    def input(self) -> SpooledInput | None:
        """Standard input in readable form; None if there is none."""
        if self.stdin is None:
            return None
        given = SpooledInput.from_any(self.stdin)
        return given if given.size else None

    def digest(self) -> str:
        """Return what tells this command from another one: 64 hexadecimal digits, one-way.

        Covers argv, cwd, env, stdin and timeout, not the id. Reads all of stdin.
        """
        made = hashlib.sha256(b"ekairos job 1\0")

        def add(*words: bytes) -> None:
            made.update(b"%d;" % len(words))
            for word in words:
                made.update(b"%d:%s" % (len(word), word))

        add(*(as_bytes(word) for word in self.argv))
        add(*(() if self.cwd is None else (as_bytes(self.cwd),)))
        add(*(as_bytes(f"{name}={self.env[name]}") for name in sorted(self.env)))
        add(b"-" if self.timeout_s is None else b"%.3f" % self.timeout_s)
        given = self.input
        for piece in given.chunks() if given else ():
            made.update(piece)
        return made.hexdigest()


def check_argv(argv: tuple[str, ...]) -> None:
    """Raise ``ValueError`` or ``TypeError`` unless Linux can run this argument vector."""
    if isinstance(argv, (str, bytes)):
        raise TypeError("argv is a sequence of words; for a line of shell use ('sh', '-c', line)")
    if not argv or not argv[0]:
        raise ValueError("argv needs at least the name of a program")
    for at, word in enumerate(argv):
        _check_word(word, f"argument {at}")


def check_env(env: Mapping[str, str]) -> None:
    """Raise ``ValueError`` unless these variables can be passed to a program.

    Values are never part of the message.
    """
    for name, value in env.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a variable is text, not {type(name).__name__}")
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name for a variable: use letters, digits and '_', and begin with "
                "a letter or '_'"
            )
        # First: in a text with the name, bytes and numbers would pass as they are printed.
        _check_word(value, f"the variable {name}")
        _check_word(f"{name}={value}", f"the variable {name}")


def _check_word(word: str, what: str) -> None:
    if not isinstance(word, str):
        raise TypeError(f"{what} is text, not {type(word).__name__}")
    try:
        data = as_bytes(word)
    except UnicodeEncodeError:
        raise ValueError(f"{what} must not hold half a character") from None
    except ValueError:
        raise ValueError(f"{what} must not hold a NUL character") from None
    if len(data) > MAX_ARGUMENT_BYTES:
        raise ValueError(
            f"{what} has {len(data)} bytes, but Linux passes at most {MAX_ARGUMENT_BYTES}; send "
            "it through stdin or write it into a file"
        )
