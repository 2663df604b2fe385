"""Apps of one server: their tokens, data, rules and status."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from servers.instantdb import schema
from servers.instantdb.attrs import new_id, system_attrs
from servers.instantdb.errors import app_disabled, app_read_only
from servers.instantdb.query import Query
from servers.instantdb.rules import Caller
from servers.instantdb.transact import Store

Json = Any
Status = Literal["active", "read-only", "disabled"]
Stage = Literal["none", "signups-closed", "read-only", "disabled"]

EPHEMERAL_LIFETIME_MS = 14 * 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class App:
    """What a client needs to reach an app."""

    id: str
    admin_token: str
    title: str = "app"


@dataclass(slots=True)
class AppState:
    """Everything the server keeps for one app."""

    app: App
    store: Store
    code: Json = None
    status: Status = "active"
    expires_ms: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, list[schema.Job]] = field(default_factory=dict)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def to_json(self, *, token: bool = False) -> dict[str, Json]:
        body: dict[str, Json] = {
            "id": self.app.id,
            "title": self.app.title,
            "created_at": self.created_at,
            "status": self.status,
            "creator_id": str(uuid.UUID(int=1)),
            "org_id": None,
        }
        if token:
            body["admin-token"] = self.app.admin_token
        return body

    def push(self, document: Json, *, types: bool, background: bool, polls: int) -> Json:
        """Plan and carry out a schema push; the answer of ``push/apply``."""
        with self.store.lock:
            planned = schema.plan(self.store.catalog, document, types=types, background=background)
            jobs = schema.apply_steps(self.store, self.app.id, planned["steps"], polls)
        return {**planned, "transaction": [], "indexing-jobs": self.remember(jobs)}

    def remember(self, jobs: list[schema.Job]) -> Json:
        if not jobs:
            return None
        self.jobs[jobs[0].group_id] = jobs
        return {"group-id": jobs[0].group_id, "jobs": [job.to_json() for job in jobs]}

    def rows(self, namespace: str) -> list[dict[str, Json]]:
        query = Query(self.store, {namespace: {}}, caller=Caller(), code=None)
        found: list[dict[str, Json]] = query.run()[namespace]
        return found


class Apps:
    """The apps of a server and its stage of service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, AppState] = {}
        self.stage: Stage = "none"
        self.ephemeral_enabled = True
        self.personal_token = f"per_{uuid.uuid4().hex}"

    def create(
        self,
        document: Json = None,
        *,
        title: str = "app",
        code: Json = None,
        ephemeral: bool = False,
    ) -> AppState:
        app = App(new_id(), new_id(), title)
        state = AppState(app, Store(system_attrs()), code)
        if ephemeral:
            state.expires_ms = int(time.time() * 1000) + EPHEMERAL_LIFETIME_MS
        if document is not None:
            state.push(document, types=True, background=False, polls=0)
        with self._lock:
            self._states[app.id] = state
        return state

    def get(self, app_id: str) -> AppState | None:
        return self._states.get(app_id)

    def remove(self, app_id: str) -> None:
        with self._lock:
            self._states.pop(app_id, None)

    def all(self) -> list[AppState]:
        return list(self._states.values())

    def by_token(self, token: str) -> AppState | None:
        return next((state for state in self.all() if state.app.admin_token == token), None)

    def check_readable(self, state: AppState) -> None:
        if self.stage == "disabled" or state.status == "disabled":
            raise app_disabled()

    def check_writable(self, state: AppState) -> None:
        self.check_readable(state)
        if self.stage == "read-only" or state.status == "read-only":
            raise app_read_only()
