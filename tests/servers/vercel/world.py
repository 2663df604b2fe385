"""Teams, projects, sandboxes, sessions, snapshots and commands: what the service knows."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.vercel.machine import Machine, Process

Json = dict[str, Any]

_LETTERS = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """An id like those of the service."""
    return f"{prefix}_{''.join(secrets.choice(_LETTERS) for _ in range(28))}"


@dataclass(slots=True)
class Command:
    """A command of a session."""

    id: str
    name: str
    args: list[str]
    cwd: str
    session_id: str
    started_at: int
    process: Process

    def json(self, *, ended: bool | None = None) -> Json:
        code = self.process.exit_code if ended is not False else None
        found: Json = {
            "id": self.id,
            "name": self.name,
            "args": self.args,
            "cwd": self.cwd,
            "sessionId": self.session_id,
            "exitCode": code,
            "startedAt": self.started_at,
        }
        if code is not None:
            found["durationMs"] = self.process.duration_ms
        return found


@dataclass(slots=True)
class Session:
    """One running machine of a sandbox, or one that has ended."""

    id: str
    sandbox: Sandbox
    status: str
    timeout: int
    created_at: int
    source_snapshot_id: str | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    requested_stop_at: int | None = None
    ready_at: int = 0
    commands: list[Command] = field(default_factory=list)

    @property
    def expires_at(self) -> int | None:
        return None if self.started_at is None else self.started_at + self.timeout

    def json(self) -> Json:
        sandbox = self.sandbox
        found: Json = {
            "id": self.id,
            "status": self.status,
            "projectId": sandbox.project,
            "sourceSandboxName": sandbox.name,
            "vcpus": sandbox.vcpus,
            "memory": sandbox.vcpus * 2048,
            "region": sandbox.region,
            "timeout": self.timeout,
            "cwd": str(sandbox.machine.cwd),
            "requestedAt": self.created_at,
            "createdAt": self.created_at,
            "updatedAt": self.stopped_at or self.started_at or self.created_at,
        }
        optional = {
            "runtime": sandbox.runtime,
            "startedAt": self.started_at,
            "requestedStopAt": self.requested_stop_at,
            "stoppedAt": self.stopped_at,
            "sourceSnapshotId": self.source_snapshot_id,
            "networkPolicy": sandbox.network_policy,
        }
        found |= {key: value for key, value in optional.items() if value is not None}
        if self.stopped_at is not None and self.started_at is not None:
            found["duration"] = self.stopped_at - self.started_at
        return found


@dataclass(slots=True)
class Snapshot:
    """A copy of a sandbox's files; a deleted one stays as a tombstone."""

    id: str
    project: str
    sandbox_name: str
    source_session_id: str
    created_at: int
    folder: Path
    size: int
    method: str
    expires_at: int | None = None
    parent_id: str | None = None
    status: str = "created"
    region: str = "iad1"

    def json(self) -> Json:
        found: Json = {
            "id": self.id,
            "sourceSessionId": self.source_session_id,
            "region": self.region,
            "regions": [self.region],
            "status": self.status,
            "sizeBytes": self.size,
            "createdAt": self.created_at,
            "updatedAt": self.created_at,
            "creationMethod": self.method,
        }
        if self.expires_at is not None:
            found["expiresAt"] = self.expires_at
        if self.parent_id is not None:
            found["parentId"] = self.parent_id
        return found


@dataclass(slots=True)
class Sandbox:
    """A named sandbox of a project."""

    name: str
    project: str
    machine: Machine
    persistent: bool
    timeout: int
    created_at: int
    vcpus: int = 2
    region: str = "iad1"
    runtime: str | None = None
    image: str | None = None
    ports: list[int] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    network_policy: Json | None = None
    snapshot_expiration: int | None = None
    keep_last: Json | None = None
    current_snapshot_id: str | None = None
    updated_at: int = 0
    sessions: list[Session] = field(default_factory=list)

    @property
    def session(self) -> Session:
        return self.sessions[-1]

    def json(self) -> Json:
        session = self.session
        found: Json = {
            "name": self.name,
            "persistent": self.persistent,
            "status": session.status,
            "region": self.region,
            "vcpus": self.vcpus,
            "memory": self.vcpus * 2048,
            "timeout": self.timeout,
            "cwd": str(self.machine.cwd),
            "currentSessionId": session.id,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at or self.created_at,
            "statusUpdatedAt": session.stopped_at or session.started_at or self.created_at,
            "runtime": self.runtime or "node22",
        }
        optional = {
            "image": self.image,
            "tags": self.tags or None,
            "networkPolicy": self.network_policy,
            "snapshotExpiration": self.snapshot_expiration,
            "keepLastSnapshots": self.keep_last,
            "currentSnapshotId": self.current_snapshot_id,
            "expiresAt": session.expires_at if session.status == "running" else None,
        }
        return found | {key: value for key, value in optional.items() if value is not None}

    def routes(self) -> list[Json]:
        """Where its ports are while it runs; new subdomains for every session."""
        if self.session.status != "running":
            return []
        subdomains = {port: f"sb-{self.session.id[4:12].lower()}{port}" for port in self.ports}
        return [
            {"port": port, "subdomain": name, "url": f"https://{name}.vercel.run"}
            for port, name in subdomains.items()
        ]


@dataclass(slots=True)
class Project:
    """A project and what is in it."""

    id: str
    team: str
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
