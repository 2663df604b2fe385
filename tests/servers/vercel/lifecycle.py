"""Starting, stopping, saving and removing sandboxes, without HTTP."""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path

from servers.clock import ServerClock
from servers.vercel.machine import Machine, MachineError
from servers.vercel.world import Json, Project, Sandbox, Session, Snapshot, new_id

_NEVER = 10**9

ApiError = MachineError
"""A refusal: HTTP status, code and message."""


def stopped() -> ApiError:
    text = "Sandbox has stopped execution and is no longer available"
    return ApiError(410, "sandbox_stopped", text)


def forbidden() -> ApiError:
    return ApiError(403, "forbidden", "Not authorized", invalidToken=True)


class World:
    """Everything there is, and how it changes. One lock for all of it.

    Attributes:
        clock: Time; push it ahead to let sandboxes expire.
        pending_polls: How many looks find a new session ``pending``.
        fate: What becomes of a new session that was ``pending``.
        down_polls: How many looks find a session still ``stopping`` or ``snapshotting``.
        expired_snapshot_status: What resuming without a snapshot answers: 400, or 410.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.clock = ServerClock()
        self.lock = threading.RLock()
        self.projects: dict[str, Project] = {}
        self.tokens: dict[str, set[str]] = {}
        self.pending_polls = 0
        self.fate = "running"
        self.down_polls = 0
        self.expired_snapshot_status = 400
        self._numbers = itertools.count(1)
        (top / "machines").mkdir()
        (top / "machines").chmod(0o711)
        (top / "snapshots").mkdir(mode=0o700)

    def now(self) -> int:
        return int(self.clock.now() * 1000)

    def create(self, project: Project, body: Json) -> Sandbox:
        """Make a sandbox and its first session from a checked body."""
        source = body.get("source") or {}
        snapshot = None
        if source.get("type") == "snapshot":
            snapshot = self.snapshot_of(project, str(source.get("snapshotId")))
        with self.lock:
            name = str(body["name"])
            if name in project.sandboxes:
                raise ApiError(
                    400,
                    "bad_request",
                    f"A sandbox with the name '{name}' already exists for this project. "
                    "Use GET /sandboxes/:name to resume it or delete it first.",
                )
            runtime = body.get("runtime")
            image = body.get("image")
            folder = "vercel/sandbox" if runtime else "vercel"
            sandbox = Sandbox(
                name=name,
                project=project.id,
                machine=Machine(self.top / "machines", next(self._numbers), folder),
                persistent=body.get("persistent", True),
                timeout=body.get("timeout", 300_000),
                created_at=self.now(),
                vcpus=(body.get("resources") or {}).get("vcpus", 2),
                region=body.get("region", "iad1"),
                runtime=runtime,
                image=image,
                ports=body.get("ports") or [],
                env=body.get("env") or {},
                tags=body.get("tags") or {},
                network_policy=body.get("networkPolicy"),
                snapshot_expiration=body.get("snapshotExpiration"),
                keep_last=body.get("keepLastSnapshots"),
            )
            self._boot(sandbox, snapshot)
            project.sandboxes[name] = sandbox
            return sandbox

    def snapshot_of(self, project: Project, snapshot_id: str) -> Snapshot:
        with self.lock:
            found = project.snapshots.get(snapshot_id)
            if found is None:
                raise ApiError(404, "snapshot_not_found", "Snapshot not found.")
            if found.status != "created":
                raise ApiError(410, "snapshot_not_found", "Snapshot has been deleted or expired.")
            return found

    def _boot(self, sandbox: Sandbox, snapshot: Snapshot | None) -> None:
        sandbox.machine.boot(snapshot.folder if snapshot else None)
        session = Session(
            id=new_id("sbx"),
            sandbox=sandbox,
            status="pending" if self.pending_polls else "running",
            timeout=sandbox.timeout,
            created_at=self.now(),
            source_snapshot_id=snapshot.id if snapshot else None,
            started_at=self.now(),
            ready_at=self.pending_polls,
        )
        sandbox.sessions.append(session)
        sandbox.updated_at = self.now()

    def look(self, sandbox: Sandbox) -> None:
        """Let what is on its way get there, one look at a time."""
        with self.lock:
            session = sandbox.session
            session.ready_at -= 1
            if session.ready_at > 0:
                return
            if session.status == "pending":
                session.status = self.fate
            elif session.status in ("stopping", "snapshotting"):
                self._end(session)

    def resume(self, project: Project, sandbox: Sandbox) -> bool:
        """Start a stopped sandbox from its snapshot; False if it runs already."""
        with self.lock:
            session = sandbox.session
            if session.status in ("running", "pending"):
                return False
            refuse_transition(session)
            snapshot = project.snapshots.get(sandbox.current_snapshot_id or "")
            if not sandbox.persistent or snapshot is None or snapshot.status != "created":
                text = "Cannot resume sandbox: no snapshot available."
                raise ApiError(self.expired_snapshot_status, "snapshot_not_found", text)
            self._boot(sandbox, snapshot)
            return True

    def stop(self, project: Project, session: Session) -> Snapshot | None:
        """End a session; a persistent sandbox is saved. Idempotent."""
        sandbox = session.sandbox
        with self.lock:
            if session.status in ("stopped", "failed", "aborted"):
                return None
            refuse_transition(session)
            session.status = "stopping"
            session.ready_at = _NEVER
            session.requested_stop_at = self.now()
        saved = self._save(project, session, "automatic", None) if sandbox.persistent else None
        self._go_down(session)
        return saved

    def save(self, project: Project, session: Session, expiration: int | None) -> Snapshot:
        """Make a snapshot, which stops the session."""
        with self.lock:
            refuse_transition(session)
            if session.status != "running":
                raise stopped()
            session.status = "snapshotting"
            session.ready_at = _NEVER
        saved = self._save(project, session, "manual", expiration)
        self._go_down(session)
        return saved

    def _go_down(self, session: Session) -> None:
        if self.down_polls:
            session.ready_at = self.down_polls
        else:
            self._end(session)

    def _save(
        self, project: Project, session: Session, method: str, expiration: int | None
    ) -> Snapshot:
        sandbox = session.sandbox
        sandbox.machine.end()
        folder = self.top / "snapshots" / new_id("files")
        size = sandbox.machine.save(folder)
        with self.lock:
            lifetime = sandbox.snapshot_expiration if expiration is None else expiration
            saved = Snapshot(
                id=new_id("snap"),
                project=project.id,
                sandbox_name=sandbox.name,
                source_session_id=session.id,
                created_at=self.now(),
                folder=folder,
                size=size,
                method=method,
                expires_at=self.now() + lifetime if lifetime else None,
                parent_id=sandbox.current_snapshot_id,
                region=sandbox.region,
            )
            project.snapshots[saved.id] = saved
            sandbox.current_snapshot_id = saved.id
            keep = (sandbox.keep_last or {}).get("count")
            own = [s for s in self.snapshots(project, sandbox.name) if s.status == "created"]
            for old in own[:-keep] if keep else []:
                self.delete_snapshot(old)
            return saved

    def _end(self, session: Session) -> None:
        session.sandbox.machine.end()
        session.sandbox.machine.wipe()
        with self.lock:
            session.status = "stopped"
            session.stopped_at = self.now()
            session.sandbox.updated_at = self.now()

    def fail(self, name: str, project_id: str) -> None:
        """Let a sandbox's machine break down: nothing is saved."""
        session = self.projects[project_id].sandboxes[name].session
        self._end(session)
        session.status = "failed"

    def delete(self, project: Project, sandbox: Sandbox, *, orphans: bool) -> None:
        with self.lock:
            refuse_transition(sandbox.session)
            running = sandbox.session.status in ("running", "pending")
            project.sandboxes.pop(sandbox.name, None)
            if running:
                # Nobody saves what is on its way out.
                sandbox.session.status = "stopping"
                sandbox.session.ready_at = _NEVER
        if running:
            self._end(sandbox.session)
        if orphans:
            for snapshot in self.snapshots(project, sandbox.name):
                self.delete_snapshot(snapshot)

    @staticmethod
    def snapshots(project: Project, name: str | None) -> list[Snapshot]:
        """The snapshots of a sandbox, oldest first, tombstones included."""
        found = [s for s in project.snapshots.values() if name in (None, s.sandbox_name)]
        return sorted(found, key=lambda s: s.created_at)

    @staticmethod
    def delete_snapshot(snapshot: Snapshot) -> None:
        snapshot.status = "deleted"
        shutil.rmtree(snapshot.folder, ignore_errors=True)

    def expire(self) -> None:
        """Stop what has outlived its timeout, and forget snapshots past their time."""
        now = self.now()
        for project in list(self.projects.values()):
            for snapshot in list(project.snapshots.values()):
                if snapshot.status == "created" and (snapshot.expires_at or now + 1) <= now:
                    self.delete_snapshot(snapshot)
            for sandbox in list(project.sandboxes.values()):
                session = sandbox.session
                if session.status == "running" and (session.expires_at or now + 1) <= now:
                    self.stop(project, session)

    def close(self) -> None:
        for project in list(self.projects.values()):
            for sandbox in list(project.sandboxes.values()):
                sandbox.machine.end()
        shutil.rmtree(self.top, ignore_errors=True)


def refuse_transition(session: Session) -> None:
    """Refuse while a session is on its way down."""
    if session.status in ("stopping", "snapshotting"):
        text = f"Sandbox is {session.status} and cannot be used right now."
        raise ApiError(422, f"sandbox_{session.status}", text)
