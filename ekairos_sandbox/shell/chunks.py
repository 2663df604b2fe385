"""Pieces of any size, handed out in the sizes that are wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator


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
