"""The error bodies of the admin API: nearly everything is a 400, told apart by ``type``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

Json = Any


class ApiError(Exception):
    """An answer with a status, a ``type``, a message and a hint."""

    def __init__(self, kind: str, message: str, hint: Json = None, *, status: int = 400) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.status = status

    def body(self) -> dict[str, Json]:
        return {
            "type": self.kind,
            "message": self.message,
            "hint": self.hint,
            "trace-id": uuid.uuid4().hex,
        }


def _edn(path: Sequence[object]) -> str:
    return "[" + " ".join(json.dumps(part) for part in path) + "]"


def param_missing(path: Sequence[str], others: Sequence[Sequence[str]] = ()) -> ApiError:
    hint: dict[str, Json] = {"in": list(path)}
    if others:
        hint["possible-ins"] = [list(other) for other in others]
    return ApiError("param-missing", f"Missing parameter: {_edn(path)}", hint)


def param_malformed(
    path: Sequence[str], value: Json, others: Sequence[Sequence[str]] = ()
) -> ApiError:
    hint: dict[str, Json] = {"in": list(path), "original-input": value}
    if others:
        hint["possible-ins"] = [list(other) for other in others]
    return ApiError("param-malformed", f"Malformed parameter: {_edn(path)}", hint)


def record_not_found(record_type: str, args: Json, *, status: int = 400) -> ApiError:
    message = f"Record not found: {record_type}"
    hint = {"record-type": record_type, "args": args, "message": message}
    return ApiError("record-not-found", message, hint, status=status)


def validation_failed(data_type: str, given: Json, errors: Sequence[dict[str, Json]]) -> ApiError:
    """A validation error whose hint repeats the input, as the service does."""
    texts = [str(error["message"]) for error in errors if error.get("message")]
    message = f"Validation failed for {data_type}"
    if texts:
        message = f"{message}: {', '.join(texts)}"
    hint = {"data-type": data_type, "input": given, "errors": list(errors)}
    return ApiError("validation-failed", message, hint)


def permission_denied(given: Json, expected: str = "perms-pass?") -> ApiError:
    return ApiError(
        "permission-denied",
        f"Permission denied: not {expected}",
        {"input": given, "expected": expected},
    )


def not_unique(etype: str, label: str, attr_id: str, value: Json) -> ApiError:
    text = json.dumps(value, ensure_ascii=False)
    return ApiError(
        "record-not-unique",
        f"`{label}` is a unique attribute on `{etype}` and an entity already exists"
        f" with `{etype}.{label}` = {text}",
        {
            "record-type": "triple",
            "attr-id": attr_id,
            "etype": etype,
            "label": label,
            "value": text,
        },
    )


def too_many_parameters() -> ApiError:
    return ApiError(
        "parameter-limit-exceeded",
        "There are too many parameters in the transaction or query.",
        {"message": "Use smaller batches."},
    )


def app_read_only() -> ApiError:
    return ApiError("app-read-only", "This app is read-only.", None)


def app_disabled() -> ApiError:
    return ApiError("app-disabled", "This app is disabled.", None)


def app_creation_disabled() -> ApiError:
    return ApiError("app-creation-disabled", "New apps can not be created.", None)


def timed_out() -> ApiError:
    return ApiError("timeout", "The query took too long to complete.", None, status=429)


def rate_limited(retry_after: int | None = None) -> ApiError:
    hint: Json = None
    if retry_after is not None:
        moment = datetime.now(UTC) + timedelta(seconds=retry_after)
        hint = {"retry-after": retry_after, "retry-at": moment.isoformat()}
    return ApiError("rate-limited", "You're making too many requests.", hint, status=429)


def sql_exception(condition: str) -> ApiError:
    return ApiError(
        "sql-exception",
        f"SQL Exception: {condition}",
        {"condition": condition, "debug-uri": "about:blank"},
        status=500,
    )


def unknown() -> ApiError:
    return ApiError("unknown", "Something went wrong.", {"debug-uri": "about:blank"}, status=500)
