"""The API of a running stack: whether it answers, its version, and which SDK fits it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import urlsplit

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.http import HttpClient
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox_daytona.oss.problems import ExitCode, StackError

LAST_OPEN_MINOR = 190
"""0.190 is the last API whose code is public. Newer SDKs refuse its answers: they demand fields
that it does not send, so that a create raises after the sandbox was made."""

_POLL_S = 2.0
_ANSWER_S = 5.0
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.\d+)?")
_DISTRIBUTIONS = ("daytona", "daytona-sdk")


@dataclass(frozen=True, slots=True)
class Api:
    """An API that answers.

    Attributes:
        url: Its base URL, for ``DAYTONA_API_URL``.
        version: What it says of itself; may be empty.
        toolbox_host: The host that commands and files are sent to; may be empty.
    """

    url: str
    version: str = ""
    toolbox_host: str = ""

    @property
    def sdk_requirement(self) -> str:
        """The newest SDK that fits, as pip takes it."""
        found = _VERSION.match(self.version)
        minor = int(found.group(2)) if found and found.group(1) == "0" else 0
        return f"daytona==0.{max(minor, LAST_OPEN_MINOR)}.*"

    def accepts(self, sdk_version: str) -> bool:
        """Whether an SDK of this version works with it; the SDK must not be newer."""
        found, newest = _VERSION.match(sdk_version), _VERSION.search(self.sdk_requirement)
        assert newest is not None
        return found is not None and _numbers(found) <= _numbers(newest)


def ask(url: str) -> Api:
    """Ask an API who it is.

    Raises:
        TransportError: It does not answer, or not as Daytona does.
    """
    http = HttpClient(url, timeout_s=(_ANSWER_S, _ANSWER_S))
    try:
        answer = http.request("GET", "/config", authenticated=False, deadline_s=_ANSWER_S)
        if answer.status != 200:
            raise TransportError(f"HTTP {answer.status}")
        body = answer.json()
    finally:
        http.close()
    if not isinstance(body, dict) or "oidc" not in body:
        raise TransportError("something else than Daytona answers")
    toolbox = urlsplit(str(body.get("proxyToolboxUrl") or "")).hostname
    return Api(url, str(body.get("version") or ""), toolbox or "")


def resolves(host: str) -> bool:
    """Whether this machine can look a host name up."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def wait(url: str, clock: Clock, *, timeout_s: float, waiting: Callable[[], None]) -> Api:
    """Ask until the API answers.

    Args:
        url: Its base URL.
        clock: Time and sleep.
        timeout_s: Seconds after which to give up; the last attempt may end 5 seconds later.
        waiting: Called once if the first attempt finds nobody.

    Raises:
        StackError: ``NO_ANSWER``, with the reason of the last attempt.
    """
    end = clock.monotonic() + timeout_s
    first = True
    while True:
        try:
            return ask(url)
        except TransportError as error:
            reason = str(error)
        if first:
            waiting()
            first = False
        if clock.monotonic() + _POLL_S > end:
            raise StackError(
                ExitCode.NO_ANSWER,
                f"the API did not answer at {url} within {timeout_s:g} s: {reason}",
                "see `ekairos-daytona-local logs api`, then run `up` again to go on waiting",
            )
        clock.sleep(_POLL_S)


def installed_sdk() -> tuple[str, str] | None:
    """Return name and version of the SDK that is installed beside this package."""
    for name in _DISTRIBUTIONS:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _numbers(found: re.Match[str]) -> tuple[int, int]:
    return int(found.group(1)), int(found.group(2))
