"""One Docker engine: its clients, and its failures in the library's terms."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors
import docker.utils
import requests.exceptions
import urllib3.exceptions

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    Outcome,
    ProviderAuthError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SandboxError,
)

NAME = "docker"
CALL_TIMEOUT_S = 60.0
"""Seconds for a call that has no deadline of its own."""

_DEFAULT_HOST = "unix:///var/run/docker.sock"


class Deadline:
    """A moment after which nothing more is asked of the engine."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + timeout_s

    def left(self, operation: str, *, outcome: Outcome = "failed") -> float:
        """Return the seconds that are left.

        Raises:
            ProviderTimeoutError: None are.
        """
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise ProviderTimeoutError(
                "the Docker engine did not answer in time",
                provider=NAME,
                operation=operation,
                outcome=outcome,
            )
        return left


class Engine:
    """Clients of one engine: one for each thread, made anew in a forked process.

    Args:
        environ: ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` are read from it.
        clock: Time.
    """

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        names = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
        # With an empty mapping the SDK would read os.environ.
        self._environ = {"DOCKER_HOST": "", **{n: environ[n] for n in names if n in environ}}
        self.host = self._environ["DOCKER_HOST"] or _DEFAULT_HOST
        self.clock = clock
        self._local = threading.local()
        self._clients: weakref.WeakSet[docker.APIClient] = weakref.WeakSet()

    def deadline(self, timeout_s: float = CALL_TIMEOUT_S) -> Deadline:
        """Return the moment that is so many seconds away."""
        return Deadline(self.clock, timeout_s)

    def api(self, operation: str, deadline: Deadline | None = None) -> docker.APIClient:
        """Return this thread's client, whose next call ends by the deadline.

        Raises:
            ProviderTimeoutError: The deadline has passed.
        """
        timeout_s = deadline.left(operation) if deadline is not None else CALL_TIMEOUT_S
        if getattr(self._local, "pid", None) != os.getpid():
            with engine_errors(operation):
                self._local.api = docker.APIClient(**self._arguments(timeout_s))
            self._local.pid = os.getpid()
            self._clients.add(self._local.api)
        api: docker.APIClient = self._local.api
        # The SDK takes no timeout with a call, and a thread's client is used by nobody else.
        api.timeout = timeout_s  # type: ignore[assignment]
        return api

    def sdk(self) -> docker.DockerClient:
        """Return a client of the SDK's upper layer, for the caller to keep."""
        with engine_errors("native"):
            return docker.DockerClient(**self._arguments(CALL_TIMEOUT_S))

    def identity(self) -> str:
        """Ask the engine for its id."""
        api = self.api("account")
        with engine_errors("account"):
            return str(api.info()["ID"])

    def close(self) -> None:
        """Close idle sockets. Calls under way go on; each thread's next makes a new client."""
        self._local = threading.local()
        for client in list(self._clients):
            client.close()

    def _arguments(self, timeout_s: float) -> dict[str, Any]:
        return {
            "base_url": self.host,
            "version": "auto",
            "timeout": timeout_s,
            **docker.utils.kwargs_from_env(environment=self._environ),
        }


@contextmanager
def engine_errors(operation: str, *, outcome: Outcome = "failed") -> Iterator[None]:
    """Raise what the SDK raises as one of the library's errors.

    Args:
        operation: The verb, for the error.
        outcome: What a call without an answer means: ``"unknown"`` if it changes something.
    """
    context: dict[str, Any] = {"provider": NAME, "operation": operation}
    try:
        yield
    except SandboxError:
        raise
    except docker.errors.APIError as error:
        status, text = error.status_code or 0, str(error.explanation or "")
        if status in (401, 403):
            raise ProviderAuthError(f"Docker refused: {text}", status=status, **context) from None
        # A refusal below 500 comes before anything is done.
        how: Outcome = outcome if status >= 500 else "failed"
        raise ProviderError(
            f"Docker answered {status}: {text}", status=status, outcome=how, **context
        ) from None
    # What requests raises is an OSError.
    except (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError) as error:
        if _caused_by(error, PermissionError):
            raise ProviderAuthError(
                "no permission to use the socket of the Docker engine",
                hint="run as a user of the group docker, or set DOCKER_HOST",
                **context,
            ) from None
        if _caused_by(error, (TimeoutError, requests.exceptions.Timeout)):
            raise ProviderTimeoutError(
                "the Docker engine did not answer in time", outcome=outcome, **context
            ) from None
        never = _caused_by(error, (ConnectionRefusedError, FileNotFoundError))
        raise ProviderUnavailableError(
            f"the Docker engine does not answer: {type(error).__name__}",
            outcome="failed" if never else outcome,
            hint="is it running, and is DOCKER_HOST right?",
            **context,
        ) from None


def answered(error: ProviderError, status: int, text: str = "") -> bool:
    """Tell whether an error is this answer of the engine's own, not of something before it."""
    return error.status == status and f"Docker answered {status}: {text}" in error.message


def _caused_by(error: BaseException, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether an error, or one that led to it, is of a kind."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        if isinstance(following, kinds):
            return True
        seen.append(following)
        following = following.__cause__ or following.__context__
    return False
