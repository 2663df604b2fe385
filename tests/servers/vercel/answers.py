"""Answers beyond a whole one: streams, and connections that break."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

from servers.http import Exchange, Response


class CutError(Exception):
    """Raised by a stream: close the connection without the end of the chunked body."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A chunked answer; every item becomes one chunk."""

    chunks: Generator[bytes]
    content_type: str = "application/x-ndjson"

    def send(self, exchange: Exchange) -> None:
        """Send all of it, as it comes."""
        with contextlib.closing(self.chunks):
            exchange.begin_chunks(self.content_type)
            try:
                for chunk in self.chunks:
                    exchange.chunk(chunk)
                exchange.end_chunks()
            except CutError:
                exchange.drop()


@dataclass(frozen=True, slots=True)
class Drop:
    """No answer: the connection is reset."""


Answer = Response | Stream | Drop
