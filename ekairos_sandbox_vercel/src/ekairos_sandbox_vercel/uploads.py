"""Contents as the archives that the service takes."""

from __future__ import annotations

import tarfile
import zlib

from ekairos_sandbox.exceptions import RemoteFileError

PART_BYTES = 8 * 1024 * 1024
"""Bytes of one request; a part and its archive are what is in memory."""

_SAMPLE_BYTES = 64 * 1024
_WORTHWHILE = 0.9
_GZIP = 16 + zlib.MAX_WBITS


def archive_of(path: str, content: bytes, mode: int) -> bytes:
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
    whole = (header, content, bytes(-len(content) % 512 + 1024))
    return b"".join([*map(packer.compress, whole), packer.flush()])


def _level(content: bytes) -> int:
    """Return how hard to compress: not at all what is compressed already."""
    begin = max(0, (len(content) - _SAMPLE_BYTES) // 2)
    sample = content[begin : begin + _SAMPLE_BYTES]
    return 1 if len(zlib.compress(sample, 1)) < _WORTHWHILE * len(sample) else 0
