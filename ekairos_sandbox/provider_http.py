"""REST APIs of providers: what their answers mean, and which requests may be sent again.

For providers that speak HTTP themselves, ours and those of third parties. ``ProviderApi`` turns
statuses and transport failures into ``ProviderError`` and repeats what is safe to repeat, with the
one retry policy. What a status means for a particular call (a duplicate name, a sandbox that is
gone) is for the provider: it asks for such answers with ``accept`` and reads ``problem_of`` them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    ProviderAuthError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SandboxError,
)
from ekairos_sandbox.http import (
    HttpClient,
    HttpResponse,
    HttpStream,
    json_bytes,
    retry_after_s,
    seconds_of,
)
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.redaction import redact
from ekairos_sandbox.retry import RetryPolicy, retrying

Repeat = Literal["always", "unsent", "never"]
"""When a request is sent again. ``"always"``: after any passing failure, for requests that may be
carried out twice without harm. ``"unsent"``: only if it provably had no effect. ``"never"``."""

MESSAGE_LENGTH = 300
PROBLEM_BYTES = 64 * 1024

_REQUEST_ID_HEADERS = ("fly-request-id", "x-request-id", "x-vercel-id")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,80}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """What the body of an error answer says.

    Attributes:
        code: The service's own code of the error, or "".
        message: Its text, or "": short, on one line.
        fields: The object that held them; empty if the body was none.
    """

    code: str = ""
    message: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)


def problem_of(answer: HttpResponse, secrets: Iterable[str] = ()) -> Problem:
    """Read an error body in any of the usual shapes.

    ``{"error": {"code", "message"}}``, ``{"error": "text"}``, ``{"errors": ["text"]}``,
    ``{"message": "text"}`` or plain text; pages of proxies and what is very long count as empty.

    Args:
        answer: The answer.
        secrets: Values to be left out of code and message.
    """
    if len(answer.body) > PROBLEM_BYTES:
        return Problem()
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        plain = "html" not in answer.headers.get("content-type", "") and b"<" not in answer.body[:1]
        text = answer.body.decode(errors="replace") if plain else ""
        return Problem("", _line(text, secrets))
    if not isinstance(body, Mapping):
        return Problem()
    inner = body.get("error")
    if isinstance(inner, Mapping):
        code, message = _word(inner.get("code"), secrets), _line(inner.get("message"), secrets)
        return Problem(code, message, inner)
    errors = body.get("errors")
    texts = [item for item in errors if isinstance(item, str)] if isinstance(errors, list) else []
    code = _word(body.get("code"), secrets) or _word(inner, secrets)
    return Problem(code, _line(body.get("message") or inner or "; ".join(texts), secrets), body)


class ProviderApi:
    """Requests to one provider's API. Serves many threads and survives a fork.

    Args:
        http: What requests go through.
        provider: The provider's name, for errors.
        clock: Time and sleep.
        policy: How often and how long requests are repeated.
        secrets: Values that no error text may hold, such as the token.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        provider: str,
        clock: Clock,
        policy: RetryPolicy | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        self.http = http
        self.provider = provider
        self.clock = clock
        self.policy = policy or RetryPolicy()
        self._secrets = tuple(secrets)

    def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        repeat: Repeat,
        accept: Collection[int] = (200,),
        json_body: Any = None,
        budget_s: float | None = None,
        **arguments: Any,
    ) -> HttpResponse:
        """Send a request and return its answer if its status is one of ``accept``.

        A body that is sent more than once must be in memory: bytes, or ``Pieces``.

        Args:
            method: Such as ``"GET"``.
            path: Below the base URL.
            operation: The verb it belongs to, for errors.
            repeat: When to send it again.
            accept: The statuses that are returned; any other is raised.
            json_body: A body to be sent as JSON.
            budget_s: Send nothing again later than this many seconds after the first time.
            **arguments: As ``HttpClient.request`` takes them.

        Raises:
            ProviderError: ``outcome="failed"`` if it provably had no effect, also after
                repetitions.
        """
        _add_json(arguments, json_body)

        if repeat != "never" and not isinstance(arguments.get("data"), Sized | None):
            raise ValueError("a body that is read while it is sent cannot be sent again")

        def once() -> HttpResponse:
            with self.translated(operation):
                answer = self.http.request(method, path, **arguments)
            if answer.status in accept:
                return answer
            raise self.error(answer, operation=operation)

        return self.repeated(once, repeat=repeat, budget_s=budget_s)

    def repeated(
        self, once: Callable[[], T], *, repeat: Repeat, budget_s: float | None = None
    ) -> T:
        """Call a function until it succeeds, as far as ``repeat`` allows; see ``call``."""
        unsure = False

        def again(error: SandboxError) -> bool:
            nonlocal unsure
            unsure = unsure or error.outcome == "unknown"
            passing = isinstance(error, ProviderError) and error.retryable is True
            return passing and (repeat == "always" or error.outcome == "failed")

        if repeat == "never":
            return once()
        policy = self.policy
        if budget_s is not None:
            policy = RetryPolicy(
                policy.attempts, min(budget_s, policy.budget_s), policy.base_s, policy.cap_s
            )
        try:
            return retrying(policy, self.clock, when=again)(once)
        except SandboxError as error:
            if unsure:
                # Another attempt than the last one may have had its effect.
                error.outcome = "unknown"
            raise

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        accept: Collection[int] = (200,),
        json_body: Any = None,
        **arguments: Any,
    ) -> Iterator[HttpStream]:
        """Send a request once and return its answer while its body is coming; see ``call``.

        What goes wrong with the body is raised from where it is read, as ``ProviderError`` too.
        """
        _add_json(arguments, json_body)
        with (
            self.translated(operation),
            self.http.stream(method, path, **arguments) as answer,
        ):
            if answer.status not in accept:
                body = bytearray()
                for piece in answer:
                    body += piece
                    if len(body) > PROBLEM_BYTES:
                        break
                whole = HttpResponse(answer.status, answer.headers, bytes(body))
                raise self.error(whole, operation=operation)
            yield answer

    @contextmanager
    def translated(self, operation: str) -> Iterator[None]:
        """Turn ``TransportError`` into ``ProviderError``."""
        try:
            yield
        except TransportError as error:
            cls = ProviderTimeoutError if error.kind == "timeout" else ProviderUnavailableError
            problem = cls(
                str(error),
                provider=self.provider,
                operation=operation,
                outcome=error.outcome,
                # A certificate or an address does not become right by itself.
                retryable=error.kind not in ("tls", "setup"),
            )
        else:
            return
        raise problem

    def error(self, answer: HttpResponse, *, operation: str) -> ProviderError:
        """Return the error for an answer that was not expected, by its status alone."""
        status, problem = answer.status, problem_of(answer, self._secrets)
        said = problem.message or problem.code
        context: dict[str, Any] = {
            "status": status,
            "request_id": _request_id(answer, self._secrets),
            "provider": self.provider,
            "operation": operation,
        }
        text = f"{self.provider} answered {operation} with HTTP {status}"
        text = f"{text}: {said}" if said else text
        if status in (401, 403):
            return ProviderAuthError(text, **context)
        if status == 429:
            return ProviderRateLimitedError(
                text, retry_after_s=self._asked_to_wait(answer, problem), **context
            )
        if status == 408:
            return ProviderTimeoutError(text, outcome="unknown", **context)
        if status >= 500:
            return ProviderUnavailableError(text, outcome="unknown", **context)
        if 300 <= status < 400:
            context["hint"] = "redirects are not followed; check the base URL"
        elif status < 300:
            # It was taken, but not answered as it should be.
            return ProviderError(text, outcome="unknown", **context)
        return ProviderError(text, retryable=False, **context)

    def _asked_to_wait(self, answer: HttpResponse, problem: Problem) -> float | None:
        seconds = seconds_of(problem.fields.get("retry_after_seconds"))
        if seconds is not None:
            return seconds
        return retry_after_s(answer.headers, now_ms=self.clock.now_ms())

    def close(self) -> None:
        """Close the connections; the next request opens new ones. Safe to call twice."""
        self.http.close()


def _add_json(arguments: dict[str, Any], json_body: Any) -> None:
    """Add a body to be sent as JSON to the arguments of a request, unless it is None."""
    if json_body is None:
        return
    arguments["data"] = json_bytes(json_body)
    arguments["headers"] = {
        "Content-Type": "application/json",
        **(arguments.get("headers") or {}),
    }


def _request_id(answer: HttpResponse, secrets: Iterable[str]) -> str | None:
    for name in _REQUEST_ID_HEADERS:
        value = answer.headers.get(name)
        if value:
            return _line(value, secrets)
    return None


def _line(text: object, secrets: Iterable[str]) -> str:
    """Return a service's text as one short line."""
    if not isinstance(text, str):
        return ""
    # Before it is shortened, as half a secret would not be found.
    printable = "".join(char if char.isprintable() else " " for char in redact(text, secrets))
    line = " ".join(printable.split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1] + "…"


def _word(text: object, secrets: Iterable[str]) -> str:
    good = isinstance(text, str) and _WORD.fullmatch(text)
    return redact(str(text), secrets) if good else ""
