"""What the exceptions of ``requests`` and ``urllib3`` mean for a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ekairos_sandbox.exceptions import Outcome

Trouble = Literal["connect", "timeout", "lost", "tls", "setup"]
"""``connect``: no connection. ``timeout``: no answer in time. ``lost``: cut off, or garbled.
``tls``: the certificate is not accepted. ``setup``: the request could not be built."""

_UNSENT: dict[str, Trouble] = {
    "requests.ConnectTimeout": "connect",
    "requests.ProxyError": "connect",
    "requests.URLRequired": "setup",
    "requests.MissingSchema": "setup",
    "requests.InvalidSchema": "setup",
    "requests.InvalidURL": "setup",
    "requests.InvalidProxyURL": "setup",
    "requests.InvalidHeader": "setup",
    "urllib3.ConnectTimeoutError": "connect",
    "urllib3.NewConnectionError": "connect",
    "urllib3.NameResolutionError": "connect",
    "urllib3.ProxyError": "connect",
    "urllib3.LocationValueError": "setup",
    "urllib3.LocationParseError": "setup",
    "urllib3.URLSchemeUnknown": "setup",
    "urllib3.ProxySchemeUnknown": "setup",
    "urllib3.ProxySchemeUnsupported": "setup",
    "urllib3.HostChangedError": "setup",
    "urllib3.EmptyPoolError": "connect",
    "urllib3.FullPoolError": "connect",
    "urllib3.ClosedPoolError": "connect",
    "ssl.SSLCertVerificationError": "tls",
}
"""What is raised before anything was sent."""

_SENT: dict[str, Trouble] = {
    "requests.RequestException": "lost",
    "requests.HTTPError": "lost",
    "requests.ConnectionError": "lost",
    "requests.SSLError": "lost",
    "requests.Timeout": "timeout",
    "requests.ReadTimeout": "timeout",
    "requests.TooManyRedirects": "lost",
    "requests.ChunkedEncodingError": "lost",
    "requests.ContentDecodingError": "lost",
    "requests.StreamConsumedError": "lost",
    "requests.RetryError": "lost",
    "requests.UnrewindableBodyError": "lost",
    "requests.InvalidJSONError": "lost",
    "requests.JSONDecodeError": "lost",
    "urllib3.HTTPError": "lost",
    "urllib3.PoolError": "lost",
    "urllib3.RequestError": "lost",
    "urllib3.SSLError": "lost",
    "urllib3.DecodeError": "lost",
    "urllib3.ProtocolError": "lost",
    "urllib3.MaxRetryError": "lost",
    "urllib3.TimeoutStateError": "lost",
    "urllib3.TimeoutError": "timeout",
    "urllib3.ReadTimeoutError": "timeout",
    "urllib3.ResponseError": "lost",
    "urllib3.ResponseNotChunked": "lost",
    "urllib3.BodyNotHttplibCompatible": "lost",
    "urllib3.IncompleteRead": "lost",
    "urllib3.InvalidChunkLength": "lost",
    "urllib3.InvalidHeader": "lost",
    "urllib3.HeaderParsingError": "lost",
    "urllib3.UnrewindableBodyError": "lost",
}
"""What may be raised when the request was, or may have been, carried out."""


class TransportError(Exception):
    """There is no usable answer. Holds no request, no response, no token and no body.

    Attributes:
        kind: What went wrong.
        outcome: ``"failed"``: the request was never sent. ``"unknown"``: it may have had its
            effect.
    """

    def __init__(self, message: str, kind: Trouble = "lost", outcome: Outcome = "unknown") -> None:
        super().__init__(message, kind, outcome)
        self.kind = kind
        self.outcome = outcome

    def __str__(self) -> str:
        return str(self.args[0])


def classify(error: BaseException) -> tuple[Trouble, Outcome] | None:
    """Say what an exception of ``requests`` or ``urllib3`` means; None: not one of theirs.

    ``requests`` wraps what ``urllib3`` raised, so the reasons inside decide before the outside.
    """
    found = [item for item in map(_lookup, _reasons(error)) if item is not None]
    for kind, outcome in found:
        if outcome == "failed":
            return kind, outcome
    if found:
        return found[0]
    if isinstance(error, OSError):
        # Without a number it is none of the system's: a CA bundle that does not exist.
        return ("setup", "failed") if error.errno is None else ("lost", "unknown")
    return None


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception wraps, innermost last, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inside = (*current.args, getattr(current, "reason", None), current.__cause__)
        waiting += [item for item in inside if isinstance(item, BaseException)]


def _lookup(error: BaseException) -> tuple[Trouble, Outcome] | None:
    for cls in type(error).__mro__:
        name = f"{cls.__module__.partition('.')[0]}.{cls.__name__}"
        if name in _UNSENT:
            return _UNSENT[name], "failed"
        if name in _SENT:
            return _SENT[name], "unknown"
    return None
