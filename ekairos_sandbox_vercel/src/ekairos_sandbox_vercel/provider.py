"""The Vercel provider, as core sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import ClassVar

from ekairos_sandbox.exceptions import (
    IdConflictError,
    ProviderError,
    ProviderUnavailableError,
    SandboxError,
)
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.provider import (
    Capability,
    ConfigField,
    Connection,
    CreateSpec,
    FieldSupport,
    Ownership,
    Provider,
    ProviderContext,
    SandboxInfo,
    SandboxRef,
    gone,
    may_adopt,
)
from ekairos_sandbox_vercel import options as limits
from ekairos_sandbox_vercel import waiting
from ekairos_sandbox_vercel.api import VercelApi
from ekairos_sandbox_vercel.connection import VercelConnection
from ekairos_sandbox_vercel.credentials import (
    DEFAULT_BASE_URL,
    account_name,
    find_credentials,
)
from ekairos_sandbox_vercel.options import VercelOptions
from ekairos_sandbox_vercel.views import RefusedError, View, is_meant

POST_TIMEOUT_S = 120.0
"""Longest wait for the answer to a creation; from a snapshot it takes some ten seconds."""

_ROUNDS = 3
_ON_THE_WAY = (404, 409, 410, 422)
"""What stopping and deleting are answered with while somebody else does it."""


class VercelProvider(Provider[VercelOptions]):
    """Sandboxes of Vercel, by its REST API; the sandbox's name is its durable address.

    A sandbox ends after its ``timeout_ms`` (30 minutes if not given), whoever uses it. One that is
    not persistent is then gone, as after ``stop``; a persistent one is saved and can be started
    again.

    Args:
        context: As core hands it in.
        token: An access token; with ``team_id`` and ``project_id``, or none of the three: then
            they are taken from the environment, see ``find_credentials``.
        team_id: Id of the team, ``team_…``.
        project_id: Id of the project, ``prj_…``.
        base_url: Address of the API; None takes ``SANDBOX_VERCEL_BASE_URL``, or the service's.
    """

    name: ClassVar[str] = "vercel"
    options_model = VercelOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)
    create_timeout_s: ClassVar[float] = 180.0

    def __init__(
        self,
        context: ProviderContext | None = None,
        *,
        token: str | None = None,
        team_id: str | None = None,
        project_id: str | None = None,
        base_url: str | None = None,
    ) -> None:
        super().__init__(context)
        self._given = {"token": token, "team_id": team_id, "project_id": project_id}
        self._base_url = base_url
        self._opened: VercelApi | None = None
        self._lock = threading.Lock()
        reset_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    @classmethod
    def field_support(
        cls, options: VercelOptions | None = None
    ) -> Mapping[ConfigField, FieldSupport]:
        """What happens to the config fields: the service enforces all of them."""
        del options
        enforced = FieldSupport("enforced")
        return {"timeout_ms": enforced, "vcpus": enforced, "runtime": enforced, "ports": enforced}

    @classmethod
    def check_spec(cls, spec: CreateSpec[VercelOptions]) -> None:
        """Refuse what the service would refuse."""
        limits.check(spec)

    def account(self) -> str:
        """Return base URL, team and project."""
        api = self._api()
        return account_name(api.base_url, api.credentials)

    def create(self, spec: CreateSpec[VercelOptions]) -> Connection:
        """Make a sandbox, or adopt the one made before; see ``Provider.create``."""
        api = self._api()
        end = api.clock.monotonic() + spec.timeout_s
        view, ownership = self._make(api, spec)
        if not view.running:
            left = max(0.0, end - api.clock.monotonic())
            view = self._bring_up(api, spec, ownership, timeout_s=left)
        tags = None if ownership == "borrowed" else spec.tags
        ref: SandboxRef[VercelOptions] = SandboxRef(spec.name, tags=tags)
        return self._connection(ref, view, ownership=ownership)

    def attach(self, ref: SandboxRef[VercelOptions]) -> Connection:
        """Return a connection to the session that the record names, without a request."""
        session_id, cwd = ref.data.get("session"), ref.data.get("cwd")
        created = ref.data.get("created")
        if not isinstance(session_id, str) or not session_id:
            return self.connect(ref)
        return VercelConnection(
            self._api(),
            ref,
            session_id=session_id,
            cwd=cwd if isinstance(cwd, str) else None,
            created=created if isinstance(created, int) else None,
        )

    def connect(self, ref: SandboxRef[VercelOptions]) -> Connection:
        """Return a connection to the running sandbox, starting a persistent one if needed."""
        api = self._api()
        view = self._require(ref, "connect")
        if not view.running:
            found = waiting.started(api, ref.name)
            if found is None:
                raise gone(ref, self.name, operation="connect")
            view = found
        known = ref.data.get("session")
        known = known if isinstance(known, str) else None
        return self._connection(ref, view, restored=not waiting.continues(api, known, view))

    def inspect(self, ref: SandboxRef[VercelOptions]) -> SandboxInfo:
        """Return what the service says; one that can never run again counts as gone."""
        view = self._require(ref, "inspect")
        if view.state == "stopped" and not view.persistent:
            raise gone(ref, self.name, operation="inspect")
        return view.info(ref.name)

    def find(self, name: str) -> SandboxInfo | None:
        """Look a sandbox up by name."""
        view = self._api().get(name)
        return None if view is None else view.info(name)

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """Yield every sandbox of the project that bears the owner tag, stopped ones included."""
        for view in self._api().tagged("ekairos-owner", owner):
            info = view.info()
            if info.tags is not None:
                yield info

    def stop(self, ref: SandboxRef[VercelOptions]) -> None:
        """End the session. A sandbox that is not persistent is deleted, as its name stays taken."""
        view = self._lookup(ref)
        if view is None:
            return
        if not view.persistent and not ref.borrowed:
            self._delete(ref.name)
        else:
            self._end(ref.name, view)

    def destroy(self, ref: SandboxRef[VercelOptions]) -> None:
        """Delete the sandbox with its snapshots."""
        if self._lookup(ref) is not None:
            self._delete(ref.name)

    def close(self) -> None:
        """Close the connections to the service."""
        with self._lock:
            api = self._opened
        if api is not None:
            api.close()

    def _api(self) -> VercelApi:
        with self._lock:
            if self._opened is None:
                environ = self.context.environ
                credentials = find_credentials(environ, **self._given)
                base_url = (
                    self._base_url or environ.get("SANDBOX_VERCEL_BASE_URL") or DEFAULT_BASE_URL
                )
                self._opened = VercelApi(base_url, credentials, self.context)
            return self._opened

    def _make(self, api: VercelApi, spec: CreateSpec[VercelOptions]) -> tuple[View, Ownership]:
        """Have the service create, and look by name when that is taken or the answer was lost."""
        body = limits.create_body(spec, api.credentials.project_id)
        end = api.clock.monotonic() + spec.timeout_s

        def once() -> tuple[View, Ownership]:
            patience_s = min(max(1.0, end - api.clock.monotonic()), POST_TIMEOUT_S)
            try:
                return api.create(body, timeout_s=patience_s), "created"
            except ProviderError as error:
                if error.outcome != "unknown" and not _is_duplicate(error):
                    raise
                problem = error
            found = None
            with suppress(ProviderError):
                found = api.get(spec.name, budget_s=end - api.clock.monotonic())
            if found is not None:
                return found, self._adopted(spec, found)
            if _is_duplicate(problem):
                # One of this name is being deleted, or made, just now.
                problem = ProviderUnavailableError(problem.message, provider=self.name)
            raise problem

        return api.repeated(once, budget_s=spec.timeout_s)

    def _adopted(self, spec: CreateSpec[VercelOptions], found: View) -> Ownership:
        ownership = may_adopt(spec, found.info(spec.name))
        if ownership is None:
            raise IdConflictError(
                f"the name {spec.name!r} is taken by another sandbox",
                provider=self.name,
                operation="create",
            )
        return ownership

    def _bring_up(
        self,
        api: VercelApi,
        spec: CreateSpec[VercelOptions],
        ownership: Ownership,
        *,
        timeout_s: float,
    ) -> View:
        """Wait until it runs; remove it if it never will."""
        follow = waiting.settled if ownership == "created" else waiting.started
        try:
            view = follow(api, spec.name, timeout_s=timeout_s)
        except SandboxError as error:
            # Whatever went wrong with the waiting: it exists.
            error.outcome = "unknown"
            raise
        if view is not None and view.running:
            return view
        problem = ProviderError(
            f"the sandbox {spec.name!r} did not come up" + (f": {view.status}" if view else ""),
            provider=self.name,
            operation="create",
        )
        if ownership != "borrowed":
            try:
                self._delete(spec.name)
            except SandboxError:
                problem.outcome = "unknown"
        raise problem

    def _connection(
        self,
        ref: SandboxRef[VercelOptions],
        view: View,
        *,
        ownership: Ownership = "created",
        restored: bool = False,
    ) -> VercelConnection:
        return VercelConnection(
            self._api(),
            ref,
            session_id=view.session_id,
            cwd=view.cwd,
            created=view.created_at,
            url=view.url,
            ownership=ownership,
            restored=restored,
        )

    def _lookup(self, ref: SandboxRef[VercelOptions]) -> View | None:
        view = self._api().get(ref.name)
        return view if view is not None and is_meant(ref, view, ref.data) else None

    def _require(self, ref: SandboxRef[VercelOptions], operation: str) -> View:
        view = self._lookup(ref)
        if view is None:
            raise gone(ref, self.name, operation=operation)
        return view

    def _end(self, name: str, view: View | None) -> None:
        """Stop whatever session a sandbox has, until none is left."""
        api = self._api()
        for attempt in range(1, _ROUNDS + 1):
            if view is None or view.state == "stopped":
                return
            try:
                api.stop(view.session_id)
            except RefusedError as refused:
                if refused.status not in _ON_THE_WAY or attempt == _ROUNDS:
                    raise
            else:
                return
            view = waiting.settled(api, name)

    def _delete(self, name: str) -> None:
        api = self._api()
        for attempt in range(1, _ROUNDS + 1):
            try:
                api.delete(name)
            except RefusedError as refused:
                if refused.status not in _ON_THE_WAY or attempt == _ROUNDS:
                    raise
            else:
                return
            if waiting.settled(api, name) is None:
                return


def _is_duplicate(error: ProviderError) -> bool:
    if not isinstance(error, RefusedError):
        return False
    # The service's code for it is that of any bad request.
    return error.status == 409 or (error.status == 400 and "already exists" in error.message)
