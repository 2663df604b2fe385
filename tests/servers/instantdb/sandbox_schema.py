"""A schema document with the sandbox entities, for demonstrations and tests of this server."""

from __future__ import annotations

from typing import Any


def _attr(kind: str, *, required: bool = False, **config: bool) -> dict[str, Any]:
    return {
        "valueType": kind,
        "required": required,
        "config": {"indexed": config.get("indexed", False), "unique": config.get("unique", False)},
    }


SANDBOX_SCHEMA: dict[str, Any] = {
    "entities": {
        "sandbox_sandboxes": {
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
        "sandbox_fences": {
            "attrs": {
                "key": _attr("string", required=True, indexed=True, unique=True),
                "createdAt": _attr("number", indexed=True),
            }
        },
    },
    "links": {},
    "rooms": {},
}
