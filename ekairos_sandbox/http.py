"""HTTP as everything here that speaks it needs it: safe with credentials, threads and forks.

``HttpClient`` talks to one base URL. It holds one session per thread, sends its bearer token to
that origin alone, follows no redirect, and turns every exception of the libraries below into
``TransportError``, which says whether the request can have had an effect. Nothing here repeats a
request: that is for the caller, who knows what may be repeated. ``requests`` is imported at the
first request.
"""

from __future__ import annotations

import ipaddress
import json as jsonlib
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.http_deadline import Deadline
from ekairos_sandbox.http_errors import TransportError, classify

if TYPE_CHECKING:
    import requests

TIMEOUT_S = (10.0, 45.0)
"""Seconds to connect, and seconds without a byte of the answer."""

CHUNK_BYTES = 64 * 1024

MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""How large an answer that is read as a whole may be."""

_TOKEN = re.compile(r"[\x21-\x7e]+")
_NO_URL = re.compile(r"[\\\s\x00-\x1f\x7f]")


def check_base_url(url: str, *, allow_http: bool, setting: str) -> str:
    """Return a base URL without a slash at its end.

    Args:
        url: The URL.
        allow_http: Whether plain ``http://`` to other hosts than loopback is allowed.
        setting: What it was set with, for the error; its value is not shown.

    Raises:
        ConfigurationError: It is no URL that a token may be sent to.
    """
    parts = urlsplit(url.strip())
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    # Libraries differ in where a host ends that is followed by a backslash.
    if not good or parts.query or parts.fragment or _NO_URL.search(url.strip()):
        raise ConfigurationError(
            f"{setting} is not a base URL", hint="use a form like https://host or https://host/path"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{setting} must not hold a user name or password", hint="use the token's variable"
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(url):
        raise ConfigurationError(
            f"{setting} would send the token over plain http",
            hint="use https://, or allow_http=True if the network between is trusted",
        )
    return parts.geturl().rstrip("/")


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this very machine, by its text alone."""
    host = urlsplit(url.strip()).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON, as it is sent.

    Raises:
        ConfigurationError: JSON has no form for it. Does not show it.
    """
    try:
        text = jsonlib.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (ValueError, RecursionError):
        problem = ConfigurationError(
            "a value cannot be sent or stored: NaN, infinity or half a character in it, or too deep"
        )
    # Raised here, as the errors above hold the text itself.
    raise problem


class Bearer:
    """Sets the ``Authorization`` header, so that ``.netrc`` cannot; without a token it removes it.

    Raises:
        ConfigurationError: The token cannot be sent in a header; names ``setting``.
    """

    __slots__ = ("_token",)

    def __init__(self, token: str | None, *, setting: str = "the token") -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigurationError(
                f"{setting} holds characters that no token has", hint="look for spaces or quotes"
            )
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the token into a request's headers."""
        request.headers.pop("Authorization", None)
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __reduce__(self) -> Any:
        raise TypeError("a token is not pickled")


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
            return jsonlib.loads(self.body)
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


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class HttpClient:
    """Requests to one base URL with one token. Serves many threads and survives a fork.

    Constructing it does no I/O. Proxies and CA bundle of the process environment are honoured,
    except for loopback.

    Args:
        base_url: Where paths are appended to; see ``check_base_url``.
        token: Sent as bearer to the base URL; None sends none.
        proxies: Proxies as ``requests`` takes them; None: those of the environment.
        verify: TLS verification as ``requests`` takes it: True, False, or a CA bundle's path.
        allow_http: Allow ``http://`` to other hosts than loopback.
        timeout_s: Seconds to connect, and to wait for the next byte.
        setting: What the base URL was set with, for error messages.
        token_setting: The same for the token.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        proxies: Mapping[str, str] | None = None,
        verify: bool | str = True,
        allow_http: bool = False,
        timeout_s: tuple[float, float] = TIMEOUT_S,
        setting: str = "base_url",
        token_setting: str = "the token",  # noqa: S107 - the name of a setting
    ) -> None:
        self.base_url = check_base_url(base_url, allow_http=allow_http, setting=setting)
        if isinstance(verify, str) and not os.path.exists(verify):  # noqa: PTH110
            raise ConfigurationError(f"verify names a CA bundle that does not exist: {verify}")
        self._loopback = is_loopback(self.base_url)
        self._auth = Bearer(token, setting=token_setting)
        self._no_auth = Bearer(None)
        self._proxies = dict(proxies) if proxies is not None else None
        self._verify = verify
        self._allow_http = allow_http
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        reset_in_child(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        timeout_s: tuple[float, float] | None = None,
        deadline_s: float | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
        authenticated: bool = True,
    ) -> HttpResponse:
        """Send one request and return the whole answer, whatever its status. Never repeats it.

        Args:
            method: Such as ``"POST"``.
            path: Appended to the base URL; begins with a slash. For a request without the token
                it may be a whole URL.
            params: Query parameters.
            headers: Further headers.
            data: Body: bytes, a binary file or an iterable of bytes.
            timeout_s: In the place of the client's own.
            deadline_s: Seconds after which the request is given up, however far it has come; None:
                as long as bytes keep coming.
            max_bytes: How large the answer may be.
            authenticated: Whether to send the token.

        Raises:
            TransportError: There is no usable answer.
        """
        with self.stream(
            method,
            path,
            params=params,
            headers=headers,
            data=data,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            authenticated=authenticated,
        ) as answer:
            return HttpResponse(answer.status, answer.headers, answer.read(max_bytes))

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        timeout_s: tuple[float, float] | None = None,
        deadline_s: float | None = None,
        authenticated: bool = True,
    ) -> Iterator[HttpStream]:
        """Send one request and return the answer while its body is coming; see ``request``."""
        if "://" in path and not authenticated:
            check_base_url(
                path.partition("?")[0], allow_http=self._allow_http, setting="an address"
            )
            url, loopback = path, is_loopback(path)
        elif path.startswith("/"):
            url, loopback = self.base_url + path, self._loopback
        else:
            raise ValueError("a path begins with a slash")
        connect_s, read_s = timeout_s or self._timeout_s
        if deadline_s is not None:
            connect_s, read_s = min(connect_s, deadline_s), min(read_s, deadline_s)
        with Deadline(deadline_s) as deadline:
            answer = self._send(
                url,
                loopback,
                deadline,
                method=method,
                params=params,
                headers=headers,
                data=data,
                timeout=(connect_s, read_s),
                auth=self._auth if authenticated else self._no_auth,
            )
            try:
                lower = {name.lower(): value for name, value in answer.headers.items()}
                yield HttpStream(
                    answer.status_code,
                    lower,
                    lambda: self._pieces(answer, url, deadline),
                    deadline,
                )
            finally:
                answer.close()

    def close(self) -> None:
        """Close the connections of all threads; the next request opens new ones."""
        with self._lock:
            sessions = list(self._sessions)
            self._sessions.clear()
            self._local = threading.local()
        for session in sessions:
            session.close()

    def after_fork(self) -> None:
        """Forget sessions and locks; in a forked child they are the parent's."""
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions = weakref.WeakSet()

    def _send(
        self, url: str, loopback: bool, deadline: Deadline, **arguments: Any
    ) -> requests.Response:
        session = self._session()
        # A proxy of the environment is not meant for this machine itself.
        session.trust_env = not loopback
        try:
            with deadline.applied():
                return session.request(
                    url=url,
                    proxies=self._proxies,
                    # Given per request: a CA bundle of the environment overrides the session's.
                    verify=self._verify,
                    allow_redirects=False,
                    stream=True,
                    **arguments,
                )
        except Exception as error:  # noqa: BLE001 - classified; what is not known passes
            problem = self._problem(error, url, deadline)
        raise problem

    def _pieces(self, answer: requests.Response, url: str, deadline: Deadline) -> Iterator[bytes]:
        try:
            yield from answer.iter_content(CHUNK_BYTES)
        except Exception as error:  # noqa: BLE001 - classified; what is not known passes
            problem = self._problem(error, url, deadline)
        else:
            if not deadline.passed:
                return
            # A body that ends with its connection looks complete when it is cut.
            problem = TransportError(f"{_origin(url)} did not answer in time", "timeout")
        # The answer has begun, so the request was sent.
        problem.outcome = "unknown"
        raise problem

    def _problem(self, error: Exception, url: str, deadline: Deadline) -> TransportError:
        found = classify(error)
        if found is None:
            raise error
        kind, outcome = found
        if deadline.passed and outcome == "unknown":
            kind = "timeout"
        where = _origin(url)
        text = {
            "connect": f"could not connect to {where}",
            "timeout": f"{where} did not answer in time",
            "lost": f"the connection to {where} was lost before the answer was complete",
            "tls": f"the TLS certificate of {where} is not accepted",
            "setup": f"the request to {where} could not be built",
        }[kind]
        return TransportError(text, kind, outcome)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            from ekairos_sandbox.http_session import Session

            session = Session()
            with self._lock:
                self._local.session = session
                self._sessions.add(session)
        return session
