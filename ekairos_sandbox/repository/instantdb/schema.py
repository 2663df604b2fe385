"""The attributes that this library needs in an app, as data, and what of them an app lacks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ekairos_sandbox.exceptions import ConfigurationError

SANDBOXES = "sandbox_sandboxes"
FENCES = "sandbox_fences"

Schema = dict[str, Any]

_CHECKED_TYPES = frozenset({"string", "number", "boolean", "date"})


def _attr(kind: str, *, required: bool = False, **config: bool) -> dict[str, Any]:
    flags = {"indexed": config.get("indexed", False), "unique": config.get("unique", False)}
    return {"valueType": kind, "required": required, "config": flags}


_SCHEMA: Schema = {
    "entities": {
        SANDBOXES: {
            "attrs": {
                "externalSandboxId": _attr("string", indexed=True),
                "provider": _attr("string", required=True, indexed=True),
                "sandboxUrl": _attr("string"),
                "status": _attr("string", required=True, indexed=True),
                "timeout": _attr("number"),
                "runtime": _attr("string"),
                "vcpus": _attr("number"),
                "ports": _attr("json"),
                "purpose": _attr("string", indexed=True),
                "params": _attr("json"),
                "createdAt": _attr("number", required=True, indexed=True),
                "updatedAt": _attr("number", indexed=True),
                "shutdownAt": _attr("number", indexed=True),
            }
        },
        FENCES: {
            "attrs": {
                "key": _attr("string", required=True, indexed=True, unique=True),
                "createdAt": _attr("number", indexed=True),
            }
        },
    },
    "links": {},
    "rooms": {},
}

INDEXED = frozenset(
    name
    for name, attr in _SCHEMA["entities"][SANDBOXES]["attrs"].items()
    if attr["config"]["indexed"]
)
"""The indexed attributes of a record; their values are limited in size."""


def sandbox_schema() -> Schema:
    """Return the schema document of our two entities, as a copy."""
    return copy.deepcopy(_SCHEMA)


def compose_schema(*parts: Any) -> Schema:
    """Return one schema document out of several.

    Args:
        *parts: Schema documents (``{"entities": ..., "links": ..., "rooms": ...}``) or things that
            have one as ``schema``, such as ``sandbox_domain``.

    Raises:
        ConfigurationError: Two parts define the same attribute, link or room differently.
    """
    composed: Schema = {"entities": {}, "links": {}, "rooms": {}}
    for part in parts:
        document = part if isinstance(part, Mapping) else part.schema
        unknown = sorted(set(document) - set(composed))
        if unknown:
            raise ConfigurationError(f"a schema has no section {unknown[0]!r}")
        for name, entity in (document.get("entities") or {}).items():
            target = composed["entities"].setdefault(name, {"attrs": {}})
            for key, value in entity.items():
                if key == "attrs":
                    _add(target["attrs"], value, f"the attribute {name}.")
                else:
                    _add(target, {key: value}, f"the entity {name}: ")
        _add(composed["links"], document.get("links") or {}, "the link ")
        _add(composed["rooms"], document.get("rooms") or {}, "the room ")
    return composed


def shortcomings(current: Mapping[str, Any]) -> list[str]:
    """Return what an app's schema lacks of ours, one phrase each; empty if nothing.

    Args:
        current: ``blobs`` of the app's schema.
    """
    return [
        f"{etype}.{label} {problem}"
        for etype, label, wanted in attributes(_SCHEMA)
        for problem in _problems(wanted, (current.get(etype) or {}).get(label))
    ]


def not_taking_away(schema: Mapping[str, Any], current: Mapping[str, Any]) -> Schema:
    """Return a schema document that leaves the flags in place which an app's attributes have.

    A push sets the flags as the document says, so one that knows less would remove an index.
    """
    kept: Schema = copy.deepcopy(dict(schema))
    for etype, label, attr in attributes(kept):
        there = (current.get(etype) or {}).get(label)
        if not isinstance(there, Mapping):
            continue
        config = attr.setdefault("config", {})
        config["indexed"] = bool(config.get("indexed") or there.get("index?"))
        config["unique"] = bool(config.get("unique") or there.get("unique?"))
        attr["required"] = bool(attr.get("required") or there.get("required?"))
    return kept


def attributes(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield namespace, name and definition of every attribute of a schema document."""
    for etype, entity in (schema.get("entities") or {}).items():
        for label, attr in (entity.get("attrs") or {}).items():
            yield etype, label, attr


def _problems(wanted: Mapping[str, Any], there: Any) -> Iterator[str]:
    if not isinstance(there, Mapping):
        yield "is missing"
        return
    kind = wanted["valueType"] if wanted["valueType"] in _CHECKED_TYPES else None
    found = there.get("checked-data-type")
    if there.get("checking-data-type?"):
        yield "is still being checked for its type"
    elif found != kind and (kind is not None or found is not None):
        yield f"has the type {found or 'any'}, not {kind or 'json'}"
    if there.get("indexing?"):
        yield "is still being indexed"
    elif wanted["config"]["indexed"] and not there.get("index?"):
        yield "is not indexed"
    if there.get("setting-unique?"):
        yield "is still being made unique"
    elif wanted["config"]["unique"] and not there.get("unique?"):
        yield "is not unique"
    if there.get("unique?") and not wanted["config"]["unique"]:
        yield "is unique, which it must not be"
    if there.get("required?") and not wanted["required"]:
        yield "is required, which it must not be"


def _add(target: dict[str, Any], more: Mapping[str, Any], what: str) -> None:
    for name, value in more.items():
        if name in target and target[name] != value:
            raise ConfigurationError(f"{what}{name} is defined twice, and differently")
        target[name] = copy.deepcopy(value)
