"""The service's way to move files, and contents as the archives that it takes."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator

from ekairos_sandbox.exceptions import RemoteFileError
from ekairos_sandbox.shell.chunks import Pieces
from ekairos_sandbox_vercel.views import RefusedError

PART_BYTES = 8 * 1024 * 1024
"""Bytes of one request; a part and its archive are what is in memory."""

_SAMPLE_BYTES = 64 * 1024
_WORTHWHILE = 0.9
_GZIP = 16 + zlib.MAX_WBITS


class SessionFiles:
    """Moves files of a session; see ``FileApi``.

    Args:
        write: Sends an archive to be unpacked.
        read: Asks for a file.
    """

    part_bytes = PART_BYTES
    private = True

    def __init__(
        self, write: Callable[[Pieces], None], read: Callable[[str], Iterator[bytes]]
    ) -> None:
        self._write = write
        self._read = read

    def put(self, path: str, part: Pieces) -> None:
        """Make a file of mode 0600, with its parents."""
        archive = archive_of(path, part, 0o600)
        try:
            self._write(archive)
        except RefusedError as refused:
            raise RemoteFileError(refused.message, path=path, provider="vercel") from refused

    def get(self, path: str) -> Iterator[bytes]:
        """Yield a file; an answer that ends early, yet in good order, looks complete."""
        try:
            pieces = self._read(path)
        except RefusedError as refused:
            # A missing file, a directory, an ended session: asked inside, the answer is exact.
            raise RemoteFileError(refused.message, path=path, provider="vercel") from refused
        yield from pieces


def archive_of(path: str, content: Pieces, mode: int) -> Pieces:
    """Return a gzipped tar with one file, named relative to the root directory.

    Args:
        path: Where the file shall be; absolute, without ``.`` and ``..``.
        content: Its content.
        mode: Its permission bits.

    Raises:
        RemoteFileError: The path is not of that form.
    """
    if not path.startswith("/") or {"", ".", ".."} & set(path[1:].split("/")):
        raise RemoteFileError(f"is no absolute, normalised path: {path!r}", path=path)
    entry = tarfile.TarInfo(path[1:])
    entry.size = len(content)
    entry.mode = mode
    header = entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    packer = zlib.compressobj(_level(content), wbits=_GZIP)
    whole = (header, *content.pieces, bytes(-len(content) % 512 + 1024))
    return Pieces([*filter(None, map(packer.compress, whole)), packer.flush()])


def _level(content: Pieces) -> int:
    """Return how hard to compress: not at all what is compressed already."""
    pieces = content.pieces
    sample = pieces[len(pieces) // 2][:_SAMPLE_BYTES] if pieces else b""
    return 1 if len(zlib.compress(sample, 1)) < _WORTHWHILE * len(sample) else 0
