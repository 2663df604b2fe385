"""Answers to HTTP requests, and what they say about when to come again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ekairos_sandbox.http_deadline import Deadline
from ekairos_sandbox.http_errors import TransportError

MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""How large an answer that is read as a whole may be."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer.

    Attributes:
        status: The HTTP status.
        headers: By lower-case name.
        body: The body, decoded from its content encoding.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            TransportError: It is not JSON; what was asked for may have been done all the same.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            problem = TransportError("the answer is not JSON")
        raise problem


@dataclass(frozen=True, slots=True)
class HttpStream:
    """An answer whose body is still coming.

    Attributes:
        status: The HTTP status.
        headers: By lower-case name.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    _pieces: Callable[[], Iterator[bytes]] = field(repr=False)
    _deadline: Deadline = field(repr=False)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body as it comes; raises ``TransportError`` when it is cut off."""
        return self._pieces()

    def read(self, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the rest of the body.

        Raises:
            TransportError: It was cut off, or is larger than ``max_bytes``.
        """
        pieces: list[bytes] = []
        size = 0
        for piece in self:
            size += len(piece)
            if size > max_bytes:
                raise TransportError(f"the answer is larger than {max_bytes} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def hurry(self, seconds: float) -> None:
        """Wait no longer than this for the rest, whose end is then a ``TransportError``.

        Only for a request with a deadline.
        """
        self._deadline.shorten(seconds)


def retry_after_s(headers: Mapping[str, str], *, now_ms: int) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for; None without a usable one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_ms / 1000)
    except (ValueError, OverflowError):
        return None


def seconds_of(value: object) -> float | None:
    """Return a JSON number as seconds to wait; None if it is none, or below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(min(value, 10**9))
