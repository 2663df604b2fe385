"""What the service refuses in a body."""

from __future__ import annotations

import re
from typing import Any

from servers.vercel.lifecycle import ApiError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")

_CREATE = {
    *("projectId", "name", "ports", "source", "timeout", "resources", "runtime", "image"),
    *("persistent", "networkPolicy", "networkId", "env", "tags", "snapshotExpiration"),
    *("keepLastSnapshots", "mounts", "region", "failoverRegions"),
}


def bad(text: str) -> ApiError:
    return ApiError(400, "bad_request", f"Invalid request: {text}")


def check_create(body: dict[str, Any], *, version: str) -> None:
    """Refuse what cannot be created."""
    unknown = sorted(set(body) - _CREATE)
    if unknown:
        raise bad(f"should NOT have additional property `{unknown[0]}`.")
    name = body.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise bad("`name` must match ^[a-zA-Z0-9_-]+$ and be at most 128 characters.")
    if version != "v2" and "runtime" in body:
        raise bad("`runtime` is not accepted.")
    if "runtime" in body and "image" in body:
        raise bad("`runtime` and `image` exclude each other.")
    check_changes(body)
    source = body.get("source")
    if source is not None and source.get("type") not in ("git", "tarball", "snapshot"):
        raise bad("`source.type` is unknown.")
    if body.get("region", "iad1") in (body.get("failoverRegions") or []):
        raise bad("`failoverRegions` must not contain `region`.")


def check_changes(body: dict[str, Any]) -> None:
    """Refuse what can be neither created nor patched."""
    ports = body.get("ports") or []
    if len(ports) > 15 or any(not 1024 <= port <= 65535 for port in ports):
        raise bad("`ports` should NOT have more than 15 items between 1024 and 65535.")
    timeout = body.get("timeout")
    if timeout is not None and not 1000 <= timeout <= 86_400_000:
        raise bad("`timeout` should be >= 1000 and <= 86400000.")
    vcpus = (body.get("resources") or {}).get("vcpus")
    if vcpus is not None and ((vcpus != 1 and vcpus % 2) or not 1 <= vcpus <= 32):
        raise bad("`resources.vcpus` must be 1 or even, at most 32.")
    memory = (body.get("resources") or {}).get("memory")
    if memory is not None and memory != 2048 * (vcpus or 2):
        raise bad("`resources.memory` must be 2048 per vCPU.")
    tags = body.get("tags") or {}
    if len(tags) > 5 or any(len(value) > 256 for value in tags.values()):
        raise bad("`tags` should NOT have more than 5 properties of 256 characters.")
    expiration = body.get("snapshotExpiration")
    if expiration is not None and expiration != 0 and expiration < 86_400_000:
        raise bad("`snapshotExpiration` should be 0 or >= 86400000.")
    keep = body.get("keepLastSnapshots")
    if keep is not None and not 1 <= keep.get("count", 0) <= 10:
        raise bad("`keepLastSnapshots.count` should be >= 1 and <= 10.")
