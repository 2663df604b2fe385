"""Read a tar archive as it arrives, trusting nothing in it.

The formats that tar programs write by default are understood: ustar, GNU and pax. Sparse files are
refused. What an archive may make this process keep in memory is bounded.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ekairos_sandbox.exceptions import TransferError

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENSION_BYTES = 1024 * 1024
_PIECE_BYTES = 1024 * 1024

MemberKind = Literal["file", "directory", "symlink", "hardlink", "other"]

_KINDS: dict[bytes, MemberKind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
}
_WITHOUT_CONTENT = {
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
}


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive, exactly as the archive has it.

    Attributes:
        kind: What it is; ``"other"`` for devices, FIFOs and what is not known.
        name: Its name, unchecked.
        target: What a link points to, unchecked.
        mode: Permission bits without setuid, setgid and sticky.
        size: Bytes of content.
    """

    kind: MemberKind
    name: str
    target: str
    mode: int
    size: int


class TarReader:
    """The members of an archive, one after the other.

    Iterate over it, and call ``content`` for the member at hand, or not; the rest of its content
    is passed over. The iteration ends well only at the archive's own end mark.

    Raises:
        TransferError: The archive was cut short or is not one.
    """

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = iter(stream)
        self._rest = memoryview(b"")
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        long_name = long_target = None
        attributes: dict[str, str] = {}
        while (block := self._read(_BLOCK)).count(0) != _BLOCK:
            header = _header(block)
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                text = _text(self._extension(header.size).partition(b"\0")[0])
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = text
                else:
                    long_target = text
            elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                attributes = _pax_attributes(self._extension(header.size))
            elif header.type == tarfile.XGLTYPE:
                self._extension(header.size)
            else:
                member = _member(header, long_name, long_target, attributes)
                long_name = long_target = None
                attributes = {}
                self._begin(0 if header.type in _WITHOUT_CONTENT else member.size)
                yield member
                for _ in self.content():
                    pass
                self._read(self._padding)
        for _ in self._stream:  # whoever sends may only notice at its end that it failed
            pass

    def content(self) -> Iterator[memoryview]:
        """Yield what is left of the content of the member at hand."""
        while self._left:
            piece = self._some(min(self._left, _PIECE_BYTES))
            self._left -= len(piece)
            yield piece

    def _begin(self, size: int) -> None:
        self._left = size
        self._padding = -size % _BLOCK

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_EXTENSION_BYTES:
            raise TransferError(f"the archive has a header of {size} bytes", retryable=False)
        data = self._read(size)
        self._read(-size % _BLOCK)
        return data

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += self._some(size - len(data))
        return bytes(data)

    def _some(self, limit: int) -> memoryview:
        while not self._rest:
            chunk = next(self._stream, None)
            if chunk is None:
                raise TransferError("the archive was cut short")
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise TransferError(f"this is not a tar archive: {error}", retryable=False) from None


def _member(
    header: tarfile.TarInfo,
    long_name: str | None,
    long_target: str | None,
    attributes: dict[str, str],
) -> Member:
    name = attributes.get("path") or long_name or header.name
    if header.type == tarfile.GNUTYPE_SPARSE or any(k.startswith("GNU.sparse") for k in attributes):
        raise TransferError(f"the archive holds a sparse file: {name!r}", retryable=False)
    size = header.size
    if "size" in attributes:
        text = attributes["size"]
        size = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
    if size < 0:
        raise TransferError(f"the archive gives no valid size for {name!r}", retryable=False)
    return Member(
        kind=_KINDS.get(header.type, "other"),
        name=name,
        target=attributes.get("linkpath") or long_target or header.linkname,
        mode=header.mode & 0o777,
        size=size,
    )


def _pax_attributes(data: bytes) -> dict[str, str]:
    """Read ``LENGTH KEY=VALUE LF`` records."""
    attributes: dict[str, str] = {}
    start = 0
    while start < len(data):
        digits = data[start : start + 20].partition(b" ")[0]
        end = start + int(digits) if digits.isdigit() else 0
        record = data[start + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or end > len(data) or not record.endswith(b"\n"):
            raise TransferError("the archive has a damaged pax header", retryable=False)
        attributes[_text(key)] = _text(value)
        start = end
    return attributes


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
