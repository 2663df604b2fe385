"""HTTP as everything here that speaks it needs it: safe with credentials, threads and forks.

``HttpClient`` talks to one base URL. It holds one session per thread, sends its bearer token to
that origin alone, follows no redirect, and turns every exception of the libraries below into
``TransportError``, which says whether the request can have had an effect. Nothing here repeats a
request: that is for the caller, who knows what may be repeated. ``requests`` is imported at the
first request.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json as jsonlib
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.http_errors import TransportError, classify

if TYPE_CHECKING:
    import requests

TIMEOUT_S = (10.0, 45.0)
"""Seconds to connect, and seconds without a byte of the answer."""

CHUNK_BYTES = 64 * 1024

_TOKEN = re.compile(r"[\x21-\x7e]+")


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
    if not good or parts.query or parts.fragment:
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
    except ValueError:
        return None


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

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body as it comes; raises ``TransportError`` when it is cut off."""
        return self._pieces()

    def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join(self)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class _Cut:
    """Ends the connection of an answer at a point in time, so that nobody waits for it any more.

    A timeout of the socket bounds each read alone: an answer that trickles in could take for ever.

    Attributes:
        done: Whether that has happened.
    """

    def __init__(self, answer: requests.Response, end: float | None) -> None:
        self.done = False
        self._timer: threading.Timer | None = None
        if end is None:
            return
        try:
            # A descriptor of its own: the answer's may be closed, and its number reused, any time.
            self._socket = socket.socket(fileno=os.dup(answer.raw.fileno()))
        except (OSError, ValueError):
            return  # The whole answer has come, or this system cannot do it.
        self._timer = threading.Timer(max(0.0, end - time.monotonic()), self._shut)
        self._timer.daemon = True
        self._timer.start()

    def _shut(self) -> None:
        self.done = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Cut:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._socket.close()


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
            deadline_s: Seconds after which the answer is given up, however it trickles in; None:
                as long as bytes keep coming.
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
            return HttpResponse(answer.status, answer.headers, answer.read())

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
        end = None if deadline_s is None else time.monotonic() + deadline_s
        if deadline_s is not None:
            connect_s, read_s = min(connect_s, deadline_s), min(read_s, deadline_s)
        answer = self._send(
            url,
            loopback,
            method=method,
            params=params,
            headers=headers,
            data=data,
            timeout=(connect_s, read_s),
            auth=self._auth if authenticated else self._no_auth,
        )
        try:
            lower = {name.lower(): value for name, value in answer.headers.items()}
            with _Cut(answer, end) as cut:
                yield HttpStream(answer.status_code, lower, lambda: self._pieces(answer, url, cut))
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

    def _send(self, url: str, loopback: bool, **arguments: Any) -> requests.Response:
        session = self._session()
        # A proxy of the environment is not meant for this machine itself.
        session.trust_env = not loopback
        try:
            return session.request(
                url=url,
                proxies=self._proxies,
                # Given per request, as a CA bundle of the environment would override the session's.
                verify=self._verify,
                allow_redirects=False,
                stream=True,
                **arguments,
            )
        except Exception as error:  # noqa: BLE001 - classified; what is not known passes
            problem = self._problem(error, url)
        raise problem

    def _pieces(self, answer: requests.Response, url: str, cut: _Cut) -> Iterator[bytes]:
        try:
            yield from answer.iter_content(CHUNK_BYTES)
        except Exception as error:  # noqa: BLE001 - classified; what is not known passes
            problem = self._problem(error, url)
        else:
            if not cut.done:
                return
        if cut.done:
            problem = TransportError(f"{_origin(url)} did not answer in time", "timeout")
        # The answer has begun, so the request was sent.
        problem.outcome = "unknown"
        raise problem

    def _problem(self, error: Exception, url: str) -> TransportError:
        found = classify(error)
        if found is None:
            raise error
        kind, outcome = found
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
            import requests

            session = requests.Session()
            session.headers["User-Agent"] = "ekairos-sandbox"
            with self._lock:
                self._local.session = session
                self._sessions.add(session)
        return session
