"""What the service says of a sandbox, a snapshot, a refusal. Fields it leaves out are None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ekairos_sandbox.exceptions import ProviderError, ProviderUnavailableError
from ekairos_sandbox.provider import (
    SandboxInfo,
    SandboxRef,
    SandboxRunState,
    Tags,
    same_sandbox,
)

CHANGING = frozenset(("pending", "stopping", "snapshotting"))
"""Statuses of a session that pass by themselves."""

ENDED = frozenset(("stopped", "failed", "aborted"))


class RefusedError(ProviderError):
    """The service refused a request for a reason of its own.

    Attributes:
        refusal: The service's code of it, or "" where the answer has none, so that it may come
            from something in between.
    """

    def __init__(self, message: str = "", *, refusal: str = "", **context: Any) -> None:
        super().__init__(message, **context)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class View:
    """A named sandbox and its latest session.

    Attributes:
        name: Its name.
        status: What the session does; see ``CHANGING`` and ``ENDED``.
        persistent: Whether its files outlive a stop.
        session_id: Id of the session; "" in listings that do not say.
        cwd: The working directory of the session.
        tags: Its tags, ours and others.
        routes: Where its declared ports are, as long as it runs.
        source_snapshot_id: The snapshot that the session began with, or None.
        current_snapshot_id: The snapshot that the next session would begin with, or None.
        keeps_snapshots: How many of its latest snapshots are kept; None: all.
        created_at: Epoch ms.
        expires_at: When the session ends by itself, epoch ms.
    """

    name: str
    status: str
    persistent: bool
    session_id: str = ""
    cwd: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[int, str] = field(default_factory=dict)
    source_snapshot_id: str | None = None
    current_snapshot_id: str | None = None
    keeps_snapshots: int | None = None
    created_at: int | None = None
    expires_at: int | None = None

    @property
    def running(self) -> bool:
        """Whether commands can be run."""
        return self.status == "running"

    @property
    def state(self) -> SandboxRunState:
        """The status in the words of the contract."""
        if self.running:
            return "running"
        if self.status in CHANGING:
            return "changing"
        return "stopped" if self.status in ENDED else "unknown"

    @property
    def url(self) -> str | None:
        """The address of the first declared port."""
        return next(iter(self.routes.values()), None)

    def info(self, name: str | None = None) -> SandboxInfo:
        """Return what the contract wants to know; ``name`` is what it was looked up by."""
        name = name or self.name
        return SandboxInfo(
            name,
            name,
            state=self.state,
            tags=Tags.from_dict(self.tags),
            created_at=self.created_at,
            url=self.url,
        )


def view_of(body: Mapping[str, Any], *, operation: str) -> View:
    """Read an answer of the form ``{sandbox, session, routes}``, or a sandbox of a listing.

    Raises:
        ProviderUnavailableError: It has not that form; what was asked for may have been done.
    """
    sandbox = body.get("sandbox")
    session = body.get("session")
    session = session if isinstance(session, Mapping) else {}
    name = sandbox.get("name") if isinstance(sandbox, Mapping) else None
    if not isinstance(sandbox, Mapping) or not isinstance(name, str):
        raise ProviderUnavailableError(
            f"vercel answered {operation} without a sandbox",
            provider="vercel",
            operation=operation,
            outcome="unknown",
        )
    tags, keep = sandbox.get("tags"), sandbox.get("keepLastSnapshots")
    return View(
        name=name,
        status=str(session.get("status") or sandbox.get("status") or ""),
        persistent=sandbox.get("persistent") is True,
        session_id=_text(session.get("id")) or _text(sandbox.get("currentSessionId")) or "",
        cwd=_text(session.get("cwd")) or _text(sandbox.get("cwd")),
        tags={str(k): str(v) for k, v in tags.items()} if isinstance(tags, Mapping) else {},
        routes=_routes(body.get("routes")),
        source_snapshot_id=_text(session.get("sourceSnapshotId")),
        current_snapshot_id=_text(sandbox.get("currentSnapshotId")),
        keeps_snapshots=_number(keep.get("count")) if isinstance(keep, Mapping) else None,
        created_at=_number(sandbox.get("createdAt")),
        expires_at=_expiry(sandbox, session),
    )


def is_meant(ref: SandboxRef[Any], view: View, data: Mapping[str, Any]) -> bool:
    """Tell whether a sandbox found by name is the one that a record means.

    Without our tags, which anybody may have removed, the time of its creation decides.

    Args:
        ref: What the record says.
        view: What was found.
        data: What is known besides, as the record keeps it.
    """
    info = view.info(ref.name)
    if not same_sandbox(ref, info):
        return False
    known = data.get("created")
    return info.tags is not None or None in (known, view.created_at) or known == view.created_at


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stored state of a sandbox's files.

    Attributes:
        id: Its id.
        source_session_id: The session that it was made of, and ended.
        usable: Whether it still exists.
        manual: Whether it was asked for, not made by a stop.
        created_at: Epoch ms.
    """

    id: str
    source_session_id: str
    usable: bool
    manual: bool
    created_at: int | None


def snapshot_of(found: Any, *, operation: str) -> Snapshot:
    """Read a snapshot.

    Raises:
        ProviderUnavailableError: It is none; what was asked for may have been done.
    """
    if not isinstance(found, Mapping) or not isinstance(found.get("id"), str):
        raise ProviderUnavailableError(
            f"vercel answered {operation} without a snapshot",
            provider="vercel",
            operation=operation,
            outcome="unknown",
        )
    return Snapshot(
        id=found["id"],
        source_session_id=_text(found.get("sourceSessionId")) or "",
        usable=found.get("status", "created") == "created",
        manual=found.get("creationMethod", "manual") == "manual",
        created_at=_number(found.get("createdAt")),
    )


def _routes(found: Any) -> dict[int, str]:
    routes: dict[int, str] = {}
    for route in found if isinstance(found, list) else []:
        if isinstance(route, Mapping) and route.get("system") is not True:
            port, url = _number(route.get("port")), _text(route.get("url"))
            if port is not None and url is not None:
                routes[port] = url
    return routes


def _expiry(sandbox: Mapping[str, Any], session: Mapping[str, Any]) -> int | None:
    started, timeout = _number(session.get("startedAt")), _number(session.get("timeout"))
    if started is not None and timeout is not None:
        return started + timeout
    return _number(sandbox.get("expiresAt"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
