"""JSON values as the service keeps them: UUID text, equality, order, size and types."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

Json = Any

UUID_TEXT = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
)
MAX_INDEXED_BYTES = 1024


def is_uuid(value: Json) -> bool:
    return isinstance(value, str) and UUID_TEXT.fullmatch(value) is not None


def lower_uuids(value: Json) -> Json:
    """Every text that is a UUID in lower case, object keys included."""
    if isinstance(value, str):
        return value.lower() if is_uuid(value) else value
    if isinstance(value, list):
        return [lower_uuids(item) for item in value]
    if isinstance(value, dict):
        return {lower_uuids(key): lower_uuids(item) for key, item in value.items()}
    return value


def has_nul(value: Json) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, list):
        return any(has_nul(item) for item in value)
    if isinstance(value, dict):
        return any(has_nul(key) or has_nul(item) for key, item in value.items())
    return False


def stored(value: Json) -> Json:
    """A copy of the value with object keys in the order binary JSON keeps: short ones first."""
    if isinstance(value, list):
        return [stored(item) for item in value]
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: stored(value[key]) for key in keys}
    return value


def same(value: Json) -> tuple[Any, ...]:
    """A hashable key: equal for equal JSON values, so 1 and 1.0 are one, 1 and true are not."""
    if value is None:
        return ("null",)
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int | float):
        return ("number", value)
    if isinstance(value, str):
        return ("string", value)
    if isinstance(value, list):
        return ("array", tuple(same(item) for item in value))
    return ("object", tuple(sorted((key, same(item)) for key, item in value.items())))


def type_name(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def date_value(value: Json) -> float | None:
    """Epoch milliseconds of a ``date`` value, or None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() * 1000


def fits(data_type: str, value: Json) -> bool:
    """Whether a value passes the type check of an attribute; null always does."""
    if value is None:
        return True
    if data_type == "date":
        return date_value(value) is not None
    return type_name(value) == data_type


def comparable(data_type: str | None, value: Json) -> Any:
    """The value an order or a comparison works on."""
    return date_value(value) if data_type == "date" else value


def too_large_for_index(value: Json) -> bool:
    """Whether binary JSON of the value, with its 12 bytes of header, exceeds the index limit."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass")) + 12 > MAX_INDEXED_BYTES


def deep_merge(old: Json, patch: Json) -> Json:
    """Objects merge, a null removes a key of an existing object, everything else replaces."""
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    merged = dict(old)
    for key, item in patch.items():
        if item is None:
            merged.pop(key, None)
        elif key in merged:
            merged[key] = deep_merge(merged[key], item)
        else:
            merged[key] = item
    return merged
