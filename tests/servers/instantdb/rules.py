"""Permission rules for requests that give up the admin's rights (``as-guest`` and the like)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from servers.instantdb.errors import ApiError, validation_failed

Json = Any


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request acts as; an admin passes every rule."""

    admin: bool = True
    user_id: str | None = None
    email: str | None = None


def check_document(code: Json) -> None:
    """Refuse a rule document whose outer shape is wrong."""
    errors = []
    for name, rules in code.items():
        allow = rules.get("allow", {}) if isinstance(rules, dict) else None
        if not isinstance(allow, dict):
            errors.append({"message": "The `allow` field must be an object", "in": [name, "allow"]})
            continue
        for action, rule in allow.items():
            if not isinstance(rule, str | bool):
                text = "The code field must be a string"
                errors.append({"message": text, "in": [name, "allow", action]})
    if errors:
        raise validation_failed("rule", code, errors)


def allowed(code: Json, etype: str, action: str, caller: Caller) -> bool:
    """Whether the rules let the caller do this; without any rule everything is allowed."""
    if caller.admin:
        return True
    rule = _find(code or {}, etype, action)
    if rule is None:
        return not etype.startswith("$")
    return _evaluate(str(rule), etype, action, _binds(code or {}, etype), caller)


def _find(code: Json, etype: str, action: str) -> Json:
    own = code.get(etype, {}).get("allow", {})
    common = code.get("$default", {}).get("allow", {})
    if etype == "attrs":
        return own.get(action, own.get("$default"))
    for place, key in ((own, action), (own, "$default"), (common, action), (common, "$default")):
        if key in place:
            return place[key]
    return None


def _binds(code: Json, etype: str) -> dict[str, str]:
    pairs = code.get(etype, {}).get("bind", [])
    if isinstance(pairs, dict):
        return {str(key): str(value) for key, value in pairs.items()}
    return dict(zip(pairs[::2], pairs[1::2], strict=False))


def _evaluate(
    rule: str, etype: str, action: str, binds: dict[str, str], caller: Caller, depth: int = 0
) -> bool:
    text = re.sub(r"\s+", " ", rule.strip())
    literal = {"true": True, "True": True, "false": False, "False": False}.get(text)
    if literal is not None:
        return literal
    if text == "auth.id != null":
        return caller.user_id is not None
    if text == "auth.id == null":
        return caller.user_id is None
    if text in binds and depth < 10:
        return _evaluate(binds[text], etype, action, binds, caller, depth + 1)
    message = f"Could not evaluate permission rule for `{etype}.{action}`."
    raise ApiError("permission-evaluation-failed", message, {"rule": [etype, action]})
