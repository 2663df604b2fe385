"""What Daytona says of a sandbox, in this library's words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ekairos_sandbox.provider import SandboxInfo, SandboxRunState, Tags

Json = dict[str, Any]

STOPPED = frozenset(("stopped", "archived", "paused"))
FAILED = frozenset(("error", "build_failed"))
GONE = frozenset(("destroyed", "destroying"))
CHANGING = frozenset(
    (
        "creating", "starting", "stopping", "restoring", "destroying", "pending_build",
        "building_snapshot", "pulling_snapshot", "archiving", "resizing", "snapshotting",
        "forking", "pausing", "resuming",
    )
)  # fmt: skip


def state_of(box: Json) -> str:
    """Return Daytona's name of a sandbox's state; a state that is new to us as it is."""
    return str(box.get("state") or "unknown")


def run_state(box: Json) -> SandboxRunState:
    """Return what a sandbox is doing."""
    state = state_of(box)
    if state == "started":
        return "running"
    if state in STOPPED:
        return "stopped"
    if state in FAILED:
        return "failed"
    return "changing" if state in CHANGING else "unknown"


def info_of(box: Json) -> SandboxInfo:
    """Return what core wants to know of a sandbox."""
    labels = box.get("labels")
    return SandboxInfo(
        name=str(box.get("name") or ""),
        external_id=str(box["id"]),
        state=run_state(box),
        tags=Tags.from_dict(labels) if isinstance(labels, dict) else None,
        created_at=epoch_ms(box.get("createdAt")),
    )


def epoch_ms(text: Any) -> int | None:
    """Return a moment of the API in epoch milliseconds; None if it is none."""
    try:
        return int(datetime.fromisoformat(str(text)).timestamp() * 1000)
    except ValueError:
        return None


def reason_of(box: Json) -> str:
    """Return why a sandbox is in an error state, as Daytona says it."""
    return str(box.get("errorReason") or "Daytona does not say why")[:300]
