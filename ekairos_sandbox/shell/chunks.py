"""Pieces of any size, handed out in the sizes that are wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

PIECE_BYTES = 1 << 20


class Pieces:
    """Bytes in pieces, that can be sent more than once: its length is in bytes.

    Attributes:
        pieces: The same for lists and the like, which take a length for the number of pieces and
            make room for that many.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = tuple(pieces)
        self._size = sum(map(len, self.pieces))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)


class Chunks:
    """A stream of bytes; copies no more than what is handed out."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes | memoryview] = iter(chunks)
        self._rest = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer at the end."""
        pieces: list[memoryview] = []
        while size and not self.at_end():
            piece = self._rest[:size]
            pieces.append(piece)
            self._rest = self._rest[len(piece) :]
            size -= len(piece)
        return b"".join(pieces)

    def part(self, size: int) -> Pieces:
        """Return the next ``size`` bytes in pieces of at most 1 MiB; fewer at the end."""
        wanted = (min(left, PIECE_BYTES) for left in range(size, 0, -PIECE_BYTES))
        return Pieces(filter(None, map(self.take, wanted)))

    def at_end(self) -> bool:
        """Whether nothing is left; fetches the next piece to find out."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._rest = memoryview(chunk)
        return False

    def put_back(self, data: bytes) -> None:
        """Hand these bytes out again, before everything else."""
        self._chunks = itertools.chain((data, self._rest), self._chunks)
        self._rest = memoryview(b"")
