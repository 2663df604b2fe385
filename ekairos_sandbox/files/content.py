"""What ``write_files`` takes: files by path, with content from memory or from local files."""

from __future__ import annotations

import base64
import binascii
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ekairos_sandbox import checks
from ekairos_sandbox.files.local import local_chunks, regular_file_size
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.results import TransferStats
from ekairos_sandbox.shell.files import SmallFile, write_small_files

_BATCH_BYTES = 2 * 1024 * 1024
_SMALL_BYTES = 256 * 1024

Content = bytes | bytearray | memoryview | str | os.PathLike[str]
"""Bytes; text, stored as UTF-8; or the path of a local file."""


@dataclass(frozen=True, slots=True)
class FileWrite:
    """One file to be written. Exactly one of the three contents must be given.

    Attributes:
        path: Where in the sandbox: absolute, or relative to its home.
        content: The content; text is stored as UTF-8.
        content_base64: The content in base64; line ends and spaces in it do not matter.
        source: A local file that holds the content; it is read when it is sent.
        mode: Permission bits, whatever the umask in the sandbox.
    """

    path: str
    content: bytes | bytearray | memoryview | str | None = None
    content_base64: str | None = None
    source: str | os.PathLike[str] | None = None
    mode: int = 0o644

    def __post_init__(self) -> None:
        given = [c for c in (self.content, self.content_base64, self.source) if c is not None]
        if len(given) != 1:
            raise ValueError(
                f"{self.path!r}: give exactly one of content, content_base64 and source"
            )


Files = Mapping[str, Content] | Sequence[FileWrite]
"""What ``write_files`` takes: contents by path, or a sequence of ``FileWrite``."""


def normalise(files: Files, home: str = "") -> list[FileWrite]:
    """Check files to be written; return them with ``content`` as bytes or with a ``source``.

    Args:
        files: The files.
        home: Directory that relative paths belong to; "" leaves them relative.

    Raises:
        ValueError: A path cannot be or comes twice, a content or mode is invalid; the message
            names the path.
        FileNotFoundError: A local file does not exist.
        IsADirectoryError: A local file is a directory.
        TypeError: Something else than files was given.
    """
    given: object = files
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise TypeError(
            "files is a mapping of contents by path or a sequence of FileWrite, not "
            f"{type(files).__name__}"
        )
    if isinstance(files, Mapping):
        files = [_from_mapping(path, content) for path, content in files.items()]
    result: list[FileWrite] = []
    seen: set[str] = set()
    for number, file in enumerate(files):
        if not isinstance(file, FileWrite):
            raise TypeError(f"file {number} is a {type(file).__name__}, not a FileWrite")
        checked = _checked(file, number, home)
        if checked.path in seen:
            raise ValueError(f"file {number}: {file.path!r} is given twice")
        seen.add(checked.path)
        result.append(checked)
    return result


def remote_path(path: str, home: str = "") -> str:
    """Return a path in the sandbox in its simplest form, absolute if ``home`` is given.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, holds a NUL character, half a character or a ``..`` component.
    """
    if not isinstance(path, str):
        raise TypeError(f"a path in the sandbox is text, not {type(path).__name__}")
    if not path:
        raise ValueError("the path is empty")
    if "\0" in path:
        raise ValueError("the path holds a NUL character")
    if ".." in path.split("/"):
        raise ValueError(f"{path!r} holds a '..' component; write the path without it")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("the path holds half a character") from None
    simple = posixpath.normpath(posixpath.join(home, path))
    return "/" + simple.lstrip("/") if simple.startswith("/") else simple


def write_files(connection: Connection, home: str, files: Files) -> TransferStats:
    """Write files, each replaced in one step, small ones together in as few calls as possible.

    Parents are made. Everything is checked before anything is sent. After an error the files
    before the one that the error names may have been written. Blocks until all are written.

    Args:
        connection: Way into the sandbox.
        home: Its home; relative paths belong to it.
        files: What to write.

    Raises:
        ValueError: See ``normalise``.
        FileNotFoundError: A local file does not exist; nothing was sent.
        RemoteFileError: A directory is in the way, no permission, no space.
        TransferError: What arrived is not what was sent, or a local file changed meanwhile.
    """
    checked = normalise(files, home)
    native = type(connection).write_file is not Connection.write_file
    total = 0
    batch: list[SmallFile] = []
    batched = 0
    for file in checked:
        data = None if native else _small_content(file)
        if data is None:
            total += connection.write_file(file.path, _chunks(file), mode=file.mode)
            continue
        if batched + len(data) > _BATCH_BYTES:
            write_small_files(connection, batch)
            batch, batched = [], 0
        batch.append(SmallFile(file.path, data, file.mode))
        batched += len(data)
        total += len(data)
    write_small_files(connection, batch)
    return TransferStats(files=len(checked), bytes=total)


def _from_mapping(path: str, content: Content) -> FileWrite:
    if isinstance(content, bytes | bytearray | memoryview | str):
        return FileWrite(path, content=content)
    if isinstance(content, os.PathLike):
        return FileWrite(path, source=content)
    raise TypeError(
        f"{path!r}: the content is a {type(content).__name__}, not bytes, str or a path"
    )


def _checked(file: FileWrite, number: int, home: str) -> FileWrite:
    try:
        path = remote_path(file.path, home)
        if file.path.endswith(("/", "/.")) or path in {".", "/"}:
            raise ValueError(f"{file.path!r} does not end with the name of a file")
        if isinstance(file.mode, bool) or not isinstance(file.mode, int):
            raise TypeError(f"{file.path!r}: mode is a whole number such as 0o644")
        if not 0 <= file.mode <= 0o7777:
            raise ValueError(f"{file.path!r}: mode must be between 0 and 0o7777")
        if file.source is not None:
            source = checks.local_path(file.source, f"{file.path!r}: source")
            regular_file_size(source)
            return replace(file, path=path, source=source)
        data = _decoded(file)
    except ValueError as error:
        raise ValueError(f"file {number}: {error}") from error
    return replace(file, path=path, content=data, content_base64=None)


def _decoded(file: FileWrite) -> bytes:
    if file.content_base64 is not None:
        if not isinstance(file.content_base64, str):
            raise TypeError(f"{file.path!r}: content_base64 is text")
        try:
            return base64.b64decode("".join(file.content_base64.split()), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{file.path!r}: content_base64 is not base64") from None
    if isinstance(file.content, str):
        try:
            return file.content.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{file.path!r}: the text cannot be stored as UTF-8") from None
    # A number would become that many zeros.
    if not isinstance(file.content, bytes | bytearray | memoryview):
        raise TypeError(f"{file.path!r}: content is bytes or text; source names a local file")
    return bytes(file.content)


def _small_content(file: FileWrite) -> bytes | None:
    """The content if it is small enough to travel with others."""
    if file.source is None:
        data = bytes(file.content or b"") if not isinstance(file.content, str) else b""
        return data if len(data) <= _SMALL_BYTES else None
    if regular_file_size(Path(file.source)) > _SMALL_BYTES:
        return None
    return b"".join(local_chunks(Path(file.source)))


def _chunks(file: FileWrite) -> Iterator[bytes]:
    if file.source is not None:
        yield from local_chunks(Path(file.source))
    elif isinstance(file.content, bytes):
        yield file.content
