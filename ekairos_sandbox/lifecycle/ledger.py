"""Records and their providers: what every part of the lifecycle needs."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, TypeVar

from typing_extensions import Unpack

from ekairos_sandbox.connections import Live
from ekairos_sandbox.exceptions import ConfigurationError, RecordConflictError, WrongAccountError
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.hookspecs import SandboxEvent
from ekairos_sandbox.models import STATE_KEY, RecordChanges, SandboxRecord, SandboxState
from ekairos_sandbox.plans import stored_options
from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.provider import (
    Connection,
    Provider,
    ProviderContext,
    SandboxRef,
    Tags,
)
from ekairos_sandbox.redaction import known_secrets, redact
from ekairos_sandbox.repository.base import SandboxRepository

CONFLICT_ROUNDS = 10
"""How often a decision is taken anew after somebody else changed the record."""

REASON_LENGTH = 500

T = TypeVar("T")


class StateChanges(TypedDict, total=False):
    """The fields of ``SandboxState`` that a transition may write."""

    incarnation: int
    name: str
    owner: str
    account: str | None
    epoch: str
    home: str | None
    deadline: int | None
    expires_at: int | None
    borrowed: bool
    stop: str | None
    release: str | None


class Ledger:
    """The record store, the providers in use, and the transitions between them.

    Args:
        repository: Where records are kept.
        registry: Where provider classes come from.
        context: What providers are constructed with.
        providers: Ready-made providers, used in the place of constructing them.
        local_only: Refuse every provider but ``local``.
    """

    def __init__(
        self,
        repository: SandboxRepository,
        registry: PluginRegistry,
        context: ProviderContext,
        *,
        providers: Iterable[Provider[Any]] = (),
        local_only: bool = False,
    ) -> None:
        self.repository = repository
        self.registry = registry
        self.context = context
        self.clock = context.clock
        self._local_only = local_only
        self._providers = {provider.name: provider for provider in providers}
        self._lent = frozenset(self._providers)
        for provider in self._providers.values():
            registry.register_provider(type(provider))
        self._lock = threading.Lock()
        reset_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def provider(self, name: str) -> Provider[Any]:
        """Return the provider of this name, constructing it at first use.

        Raises:
            ConfigurationError: The record store is good for ``local`` only.
            PluginError: It is not installed or not usable.
        """
        if self._local_only and name != "local":
            raise ConfigurationError(
                f"no durable record store is configured for the provider {name!r}",
                provider=name,
                hint=(
                    "set INSTANT_APP_ID and INSTANT_APP_ADMIN_TOKEN, or name a durable file "
                    "with EKAIROS_SANDBOX_STORE=sqlite:////path/to/sandboxes.db; the provider "
                    "'local' needs none"
                ),
            )
        cls = self.registry.provider_class(name)
        with self._lock:
            if name not in self._providers:
                self._providers[name] = cls(self.context)
            return self._providers[name]

    def provider_of(self, record: SandboxRecord) -> Provider[Any]:
        """Return the provider of a record, having verified that its account is in use.

        Raises:
            WrongAccountError: The record was made in another account. Nothing was changed.
        """
        provider = self.provider(record.provider)
        state = record.state
        if state is not None and state.account is not None:
            account = provider.account()
            if account != state.account:
                raise WrongAccountError(
                    f"the sandbox {record.id} was created in {state.account}, the credentials in "
                    f"use belong to {account}",
                    provider=record.provider,
                    sandbox_id=record.id,
                    hint="use the credentials it was created with",
                )
        return provider

    def get(self, sandbox_id: str) -> SandboxRecord:
        """Read a record."""
        return self.repository.get(sandbox_id)

    def decide(self, sandbox_id: str, decision: Callable[[SandboxRecord], T]) -> T:
        """Read a record and act on it, again and again while others change it under us."""
        for _ in range(CONFLICT_ROUNDS):
            try:
                return decision(self.repository.get(sandbox_id))
            except RecordConflictError:
                continue
        raise RecordConflictError(
            f"the record {sandbox_id} is being changed by others all the time",
            sandbox_id=sandbox_id,
        )

    def ref(self, record: SandboxRecord) -> SandboxRef[Any]:
        """Return what the record knows of its current incarnation."""
        state = record.state
        raw = (record.params or {}).get(record.provider)
        data: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
        tags = None
        name = None
        if state is not None and state.name is not None:
            name = state.name
            if not state.borrowed:
                tags = Tags(state.owner, record.id, state.incarnation)
        return SandboxRef(
            name=name or str(data.get("name") or record.external_sandbox_id or record.id),
            external_id=record.external_sandbox_id,
            tags=tags,
            data=data,
            options=stored_options(record, self.registry.provider_class(record.provider)),
            timeout_ms=record.timeout,
            ports=tuple(record.ports or ()),
            borrowed=bool(state and state.borrowed),
        )

    def transition(
        self,
        record: SandboxRecord,
        state: StateChanges,
        *,
        data: Mapping[str, Any] | None = None,
        error: str | None = None,
        **changes: Unpack[RecordChanges],
    ) -> SandboxRecord:
        """Change a record if nobody else has, and tell the observers.

        Args:
            record: The record as it was read.
            state: What to change in this library's own state.
            data: New provider data; an empty mapping removes it, None leaves it.
            error: New ``params.error``.
            **changes: Attributes to change.

        Raises:
            RecordConflictError: Somebody else changed it; read it again and decide anew.
        """
        params = dict(record.params or {})
        own = params.get(STATE_KEY)
        params[STATE_KEY] = {**(own if isinstance(own, Mapping) else {"v": 1}), **state}
        if data is not None:
            params.pop(record.provider, None)
            if data:
                params[record.provider] = dict(data)
        if error is not None:
            params["error"] = error
        elif changes.get("status") == "active":
            params.pop("error", None)
        changes["params"] = params
        changes["updated_at"] = self.clock.now_ms()
        changed = self.repository.transition(record.id, record.rev, changes)
        if changed.status != record.status:
            self._tell(changed, record.status)
        return changed

    def _tell(self, record: SandboxRecord, previous: str) -> None:
        event = SandboxEvent(
            sandbox_id=record.id,
            provider=record.provider,
            status=record.status,
            previous=previous,
            incarnation=incarnation_of(record),
            external_id=record.external_sandbox_id,
        )
        self.registry.notify("ekairos_sandbox_status_changed", event=event)
        if previous == "creating" and record.status == "active":
            self.registry.notify("ekairos_sandbox_created", event=event)

    def live(self, record: SandboxRecord, provider: Provider[Any], connection: Connection) -> Live:
        """Put together what is needed to use a connection without reading the record."""
        state = record.state
        assert state is not None
        assert state.home is not None
        return Live(
            sandbox_id=record.id,
            provider=provider,
            ref=self.ref(record),
            connection=connection,
            incarnation=state.incarnation,
            epoch=state.epoch,
            home=state.home,
        )

    def reason(self, error: BaseException) -> str:
        """Return an error as text to be stored: short and without secrets of the environment."""
        text = str(error) or type(error).__name__
        return redact(text, known_secrets(self.context.environ))[:REASON_LENGTH]

    def close(self) -> None:
        """Close the providers that were constructed here; those handed in are their owner's."""
        with self._lock:
            providers = [p for name, p in self._providers.items() if name not in self._lent]
        for provider in providers:
            provider.close()


def incarnation_of(record: SandboxRecord) -> int:
    """Return which incarnation a record stands for; 1 for records of other programs."""
    state: SandboxState | None = record.state
    return state.incarnation if state else 1


def new_epoch() -> str:
    """Return a fresh mark for a sandbox."""
    return secrets.token_hex(8)
