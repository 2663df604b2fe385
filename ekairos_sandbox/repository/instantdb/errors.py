"""What the answers of an InstantDB server mean, as our own exceptions.

Nearly every refusal is a 400, told apart by its ``type``. The server repeats tokens and whole
payloads in its bodies, so of a body only the type, names of attributes and the trace id are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    RepositoryError,
    RepositoryUnavailableError,
    SandboxError,
    SchemaError,
)
from ekairos_sandbox.http import HttpResponse, retry_after_s, seconds_of
from ekairos_sandbox.http_errors import TransportError

PUSH_HINT = "run `ekairos-sandbox schema push`"
CREDENTIALS_HINT = (
    "INSTANT_APP_ID and INSTANT_APP_ADMIN_TOKEN must belong to one app on the server that "
    "INSTANT_API_URI names"
)
WIND_DOWN_HINT = (
    "the hosted service is being wound down and ends on 2027-08-31; move the app to a self-hosted "
    "server and name it with INSTANT_API_URI"
)

_NAME = re.compile(r"[$\w.-]{1,200}")
_TRACE = re.compile(r"[\w-]{1,80}")
_QUOTED_NAME = re.compile(r"`([$\w]+)/([$\w-]+)`")
_TYPED_NAME = re.compile(r"Invalid value type for ([$\w]+\.[$\w-]+)")


class RefusedError(RepositoryError):
    """A transaction was refused because of what is stored. Nothing was changed.

    Attributes:
        reason: ``"state"``: a strict create found the entity, or a strict update did not.
            ``"unique"``: another entity has the value of a unique attribute.
        attribute: The unique attribute, as ``namespace.name``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        reason: Literal["state", "unique"] = "state",
        attribute: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.reason = reason
        self.attribute = attribute


class ServerBusyError(RepositoryUnavailableError):
    """The server asked to slow down.

    Attributes:
        retry_after_s: Seconds it asked to wait, or None if it did not say.
    """

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.retry_after_s = retry_after_s


def unreachable(error: TransportError) -> RepositoryUnavailableError:
    """Return the error for a request without a usable answer."""
    lasting = error.kind in ("tls", "setup")
    return RepositoryUnavailableError(
        f"the InstantDB server cannot be used: {error}",
        outcome=error.outcome,
        retryable=not lasting,
        hint="check INSTANT_API_URI, the proxy and the CA bundle" if lasting else None,
    )


def error_of(
    answer: HttpResponse, *, app_id: str | None, base_url: str, now_ms: int
) -> SandboxError:
    """Return the error for an answer whose status is not 200."""
    body = _body(answer)
    kind = body.get("type")
    hint = body.get("hint")
    error = _by_type(
        str(kind) if kind is not None else "",
        str(body.get("message") or ""),
        hint if isinstance(hint, Mapping) else {},
        status=answer.status,
        app=f"the InstantDB app {app_id}" if app_id else "InstantDB",
    ) or _by_status(answer.status, base_url)
    if isinstance(error, ServerBusyError) and error.retry_after_s is None:
        error.retry_after_s = retry_after_s(answer.headers, now_ms=now_ms)
    trace = body.get("trace-id")
    if isinstance(trace, str) and _TRACE.fullmatch(trace):
        error.args = (f"{error.message} [trace {trace}]",)
    return error


def _by_type(
    kind: str, message: str, hint: Mapping[str, Any], *, status: int, app: str
) -> SandboxError | None:
    match kind:
        case "record-not-found" | "param-missing" | "param-malformed":
            return _refused_credentials(kind, hint, status, app)
        case "validation-failed":
            return _invalid(message, hint, app)
        case "record-not-unique":
            attribute = f"{_name(hint.get('etype'))}.{_name(hint.get('label'))}"
            return RefusedError(
                f"another entity has the same {attribute}", reason="unique", attribute=attribute
            )
        case "permission-denied":
            return RepositoryError(f"{app} does not permit this")
        case "rate-limited":
            return ServerBusyError(
                f"{app} gets too many requests", retry_after_s=seconds_of(hint.get("retry-after"))
            )
        case "timeout":
            return RepositoryUnavailableError(f"{app} took too long; nothing was changed")
        case "app-read-only" | "app-disabled" | "app-creation-disabled":
            what = {
                "app-read-only": f"{app} is read-only",
                "app-disabled": f"{app} is disabled",
                "app-creation-disabled": "the InstantDB server makes no new apps",
            }[kind]
            return RepositoryUnavailableError(what, retryable=False, hint=WIND_DOWN_HINT)
        case "parameter-limit-exceeded":
            return RepositoryError(f"the request is too large for {app}", hint="use smaller steps")
        case "sql-exception" if re.search("deadlock-detected|serialization-failure", message):
            return RepositoryUnavailableError(f"{app} gave way to another transaction")
    return None


def _by_status(status: int, base_url: str) -> SandboxError:
    if 300 <= status < 400:
        return ConfigurationError(
            f"{base_url} answers with a redirect, which is not followed",
            hint="set INSTANT_API_URI to the address it leads to",
        )
    if status == 401:
        return ConfigurationError("InstantDB refused the token", hint=CREDENTIALS_HINT)
    if status == 404:
        return ConfigurationError(
            f"{base_url} does not know this request", hint="check INSTANT_API_URI"
        )
    if status == 407:
        return ConfigurationError("the HTTP proxy wants credentials", hint="check HTTPS_PROXY")
    if status == 413:
        return RepositoryError("the request is too large for the server or a proxy before it")
    if status == 429:
        return ServerBusyError("the InstantDB server gets too many requests")
    if status == 408 or status >= 500:
        return RepositoryUnavailableError(
            f"the InstantDB server answered with HTTP {status}", outcome="unknown"
        )
    return RepositoryError(f"the InstantDB server refused the request with HTTP {status}")


def _refused_credentials(
    kind: str, hint: Mapping[str, Any], status: int, app: str
) -> SandboxError | None:
    place = hint.get("in")
    if kind != "record-not-found":
        if isinstance(place, list) and place[:1] == ["headers"]:
            which = "the app id" if "app-id" in place else "the admin token"
            return ConfigurationError(f"InstantDB does not take {which}", hint=CREDENTIALS_HINT)
        return RepositoryError(f"InstantDB found the request malformed{_where(place)}")
    if hint.get("record-type") in ("app-admin-token", "instant-user", "app") or status == 401:
        return ConfigurationError(f"the admin token is not that of {app}", hint=CREDENTIALS_HINT)
    return RepositoryError(f"{app} does not have what was asked for")


def _invalid(message: str, hint: Mapping[str, Any], app: str) -> SandboxError:
    if hint.get("reason") == "admin-token-mismatch":
        return ConfigurationError(f"the admin token is not that of {app}", hint=CREDENTIALS_HINT)
    errors = [item for item in _list(hint.get("errors")) if isinstance(item, Mapping)]
    hints = [item["hint"] for item in errors if isinstance(item.get("hint"), Mapping)]
    missing = [_name(name) for inner in hints for name in _list(inner.get("attributes"))]
    if missing:
        return SchemaError(
            f"the schema of {app} lacks {', '.join(sorted(missing))}", hint=PUSH_HINT
        )
    if hint.get("data-type") == "tx-step":
        return RefusedError("the stored entity is not as the transaction requires")
    if hint.get("value-too-large?"):
        return RepositoryError("a value of an indexed attribute is larger than 1,024 bytes")
    if "checked-data-type" in hint or (match := _TYPED_NAME.search(message)):
        attribute = (
            f"{_name(hint.get('namespace'))}.{_name(hint.get('attribute'))}"
            if "attribute" in hint
            else (match[1] if match else "an attribute")
        )
        return SchemaError(f"{app} wants another type of value in {attribute}", hint=PUSH_HINT)
    if required := _QUOTED_NAME.search(message):
        return SchemaError(f"{app} requires a value in {required[1]}.{required[2]}")
    what = _name(hint.get("data-type"))
    details = "; ".join(
        f"{_name(item.get('expected'))}{_where(item.get('in'))}" for item in errors[:5]
    )
    error = SchemaError if what == "query" else RepositoryError
    return error(
        f"{app} found the {what} not valid: {details or 'no details'}",
        hint=f"if attributes are new or changed, {PUSH_HINT}" if what == "query" else None,
    )


def _body(answer: HttpResponse) -> Mapping[str, Any]:
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(value: object) -> str:
    """Return a name that the server gave, if it looks like one."""
    text = str(value)
    return text if _NAME.fullmatch(text.rstrip("?")) else "something"


def _where(place: object) -> str:
    if not isinstance(place, list) or not place:
        return ""
    return " at " + ".".join(_name(part) for part in place[:10])
