"""HTTP as everything here that speaks it needs it: safe with credentials, threads and forks.

``HttpClient`` talks to one base URL. It holds one session per thread, sends its bearer token to
that origin alone, follows no redirect, and turns every exception of the libraries below into
``TransportError``, which says whether the request can have had an effect. Nothing here repeats a
request: that is for the caller, who knows what may be repeated. ``requests`` is imported at the
first request.
"""

from __future__ import annotations

import json
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.http_address import check_base_url, is_loopback, origin
from ekairos_sandbox.http_answer import (
    MAX_ANSWER_BYTES,
    HttpResponse,
    HttpStream,
    retry_after_s,
    seconds_of,
)
from ekairos_sandbox.http_deadline import Deadline
from ekairos_sandbox.http_errors import TransportError, classify

if TYPE_CHECKING:
    import requests

__all__ = [
    "MAX_ANSWER_BYTES",
    "TIMEOUT_S",
    "Bearer",
    "HttpClient",
    "HttpResponse",
    "HttpStream",
    "check_base_url",
    "is_loopback",
    "json_bytes",
    "retry_after_s",
    "seconds_of",
]

TIMEOUT_S = (10.0, 45.0)
"""Seconds to connect, and seconds without a byte of the answer."""

CHUNK_BYTES = 64 * 1024

_TOKEN = re.compile(r"[\x21-\x7e]+")


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON, as it is sent.

    Raises:
        ConfigurationError: JSON has no form for it. Does not show it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
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
            problem = TransportError(f"{origin(url)} did not answer in time", "timeout")
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
        where = origin(url)
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
