"""Which volumes nobody uses any more. In doubt a volume is kept: it may be somebody's only copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox_daytona.api import DaytonaApi
from ekairos_sandbox_daytona.control import ControlPlane
from ekairos_sandbox_daytona.volumes import DaytonaVolumes, Volume, unreadable

_OPERATION = "collect_volumes"
_SETTLED = frozenset(("ready", "error"))
_MOUNTED = "a sandbox mounts it"


@dataclass(frozen=True, slots=True)
class VolumeDecision:
    """What ``DaytonaVolumes.collect`` makes of one volume.

    Attributes:
        volume: The volume.
        action: ``"delete"`` or ``"keep"``.
        reason: Why.
        applied: Whether it was deleted.
        error: Why it could not be deleted, or None.
    """

    volume: Volume
    action: Literal["delete", "keep"]
    reason: str
    applied: bool = False
    error: str | None = None


def collect(
    volumes: DaytonaVolumes, api: DaytonaApi, *, unused_for: timedelta, prefix: str, apply: bool
) -> tuple[VolumeDecision, ...]:
    """See ``DaytonaVolumes.collect``."""
    limit_ms = int(unused_for.total_seconds() * 1000)

    def why_keep(volume: Volume) -> str | None:
        if volume.state not in _SETTLED:
            return f"its state is {volume.state!r}"
        if volume.created_at is None:
            return "its age is not known"
        last = max(volume.created_at, volume.last_used_at or 0, volume.updated_at or 0)
        if api.clock.now_ms() - last < limit_ms:
            return "it was made, changed or used too recently"
        return None

    def carried_out(decision: VolumeDecision) -> VolumeDecision:
        try:
            fresh = volumes.refreshed(decision.volume)
            why = "it is gone already" if fresh is None else why_keep(fresh)
            if fresh is None or why is not None:
                return replace(decision, action="keep", reason=why or "")
            return replace(decision, applied=volumes.delete(fresh))
        except ProviderError as error:
            if error.status == 409:
                return replace(decision, action="keep", reason=_MOUNTED)
            return replace(decision, error=str(error))

    reasons = [(v, why_keep(v)) for v in volumes.list() if v.name.startswith(prefix)]
    unused = any(why is None for _, why in reasons)
    mounted = _mounted(ControlPlane(api)) if unused else frozenset()
    decisions = []
    for volume, why in reasons:
        if why is None and not mounted.isdisjoint((volume.id, volume.name)):
            why = _MOUNTED
        if why is not None:
            decisions.append(VolumeDecision(volume, "keep", why))
        else:
            decision = VolumeDecision(volume, "delete", "no sandbox mounts it; unused for long")
            decisions.append(carried_out(decision) if apply else decision)
    return tuple(decisions)


def _mounted(control: ControlPlane) -> frozenset[str]:
    """Return ids and names of all volumes that sandboxes mount, whichever each was made with."""
    found: set[str] = set()
    for listed in control.listed(operation=_OPERATION):
        # The list leaves the mounts out.
        box = control.by_id(listed["id"], operation=_OPERATION)
        for mount in (box or {}).get("volumes") or ():
            if not isinstance(mount, Mapping) or not isinstance(mount.get("volumeId"), str):
                raise unreadable(_OPERATION)
            found.add(mount["volumeId"])
    return frozenset(found)
