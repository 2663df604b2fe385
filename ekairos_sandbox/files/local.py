"""Read and replace single files on this machine."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ekairos_sandbox.exceptions import TransferError

CHUNK_BYTES = 1024 * 1024
"""Bytes that are read at once."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes moved so far, and their final number where it is known."""


def regular_file_size(path: Path) -> int:
    """Return the size of a local file, links followed.

    Raises:
        FileNotFoundError: There is none.
        IsADirectoryError: It is a directory.
        ValueError: It is a device, socket or FIFO.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{str(path)!r} is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{str(path)!r} is not a regular file")
    return found.st_size


def read_steadily(file: BinaryIO, path: str, before: os.stat_result) -> Iterator[bytes]:
    """Yield the content of an open local file, exactly as many bytes as it had ``before``.

    Raises:
        TransferError: It has changed since then.
    """
    left = before.st_size
    while left and (chunk := file.read(min(CHUNK_BYTES, left))):
        left -= len(chunk)
        yield chunk
    after = os.fstat(file.fileno())
    if (
        left
        or file.read(1)
        or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
    ):
        raise TransferError(f"the local file {path!r} changed while it was being read")


def local_chunks(path: Path) -> Iterator[bytes]:
    """Yield the content of a local file.

    Raises:
        OSError: It cannot be read.
        TransferError: It changed while it was being read.
    """
    with path.open("rb") as file:
        yield from read_steadily(file, str(path), os.fstat(file.fileno()))


def counted(
    chunks: Iterator[bytes], progress: Progress | None, total: int | None
) -> Iterator[bytes]:
    """Pass chunks on, and say after each how many bytes there were."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if progress:
            progress(done, total)


@contextmanager
def replacing(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Open a new local file that takes the place of ``path`` when the block ends well.

    Parents are made; a link is followed, so that it stays. After an error nothing is replaced
    and nothing is left.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:48]}.ekairos-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
