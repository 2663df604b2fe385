"""Where races and kills take place: a provider for real, with a record store.

An ``Arena`` can be sent to other processes; ``helpers.grounds`` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ekairos_sandbox import RaisingService, SandboxService
from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.provider import Provider, ProviderContext, SandboxInfo, SandboxRef
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.repository.instantdb import InstantClient, InstantSandboxRepository
from ekairos_sandbox.testing import HastyClock


class LaterClock(HastyClock):
    """The machine's time, an hour later: every deadline has passed."""

    def now_ms(self) -> int:
        return super().now_ms() + 3_600_000


@dataclass(frozen=True)
class Arena:
    """One record store and one provider, for any number of processes.

    Attributes:
        name: The provider's name.
        store: ``"module:callable"`` that returns the record store, and what it is called with.
        provider: The same for the provider; called with a ``ProviderContext``.
        environ: Environment of the provider and of the service.
        folder: For whatever is to be seen from outside, by whatever sandbox or process.
        options: The provider's options.
    """

    name: str
    store: tuple[str, Mapping[str, Any]]
    provider: str
    environ: Mapping[str, str]
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def effects(self) -> Path:
        """A file that commands can append to, whatever sandbox they run in."""
        return self.folder / "effects"

    def repository(self) -> SandboxRepository:
        name, arguments = self.store
        made: SandboxRepository = _found(name)(**arguments)
        return made

    def make_provider(self, clock: Clock | None = None) -> Provider[Any]:
        context = ProviderContext(environ=self.environ, clock=clock or SystemClock())
        made: Provider[Any] = _found(self.provider)(context)
        return made

    def service(
        self,
        clock: Clock | None = None,
        repository: SandboxRepository | None = None,
        provider: Provider[Any] | None = None,
    ) -> RaisingService:
        clock = clock or SystemClock()
        return SandboxService(
            repository or self.repository(),
            environ=self.environ,
            clock=clock,
            providers=[provider or self.make_provider(clock)],
        ).raising

    def create(self, service: RaisingService, sandbox_id: str | None, **fields: Any) -> str:
        options = {self.name: dict(self.options)}
        return service.create_sandbox(
            provider=self.name, provider_options=options, sandbox_id=sandbox_id, **fields
        ).sandbox_id


def owned(service: RaisingService, provider: Provider[Any]) -> list[SandboxInfo]:
    """Return everything that the provider has of this record store."""
    return list(provider.list_owned(service._operations.ledger.repository.owner))


def lose(arena: Arena, service: RaisingService) -> None:
    """Destroy what there is behind everybody's back."""
    provider = service._operations.ledger.provider(arena.name)
    for info in owned(service, provider):
        provider.destroy(SandboxRef(info.name, info.external_id, info.tags))


def _found(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def instant_repository(url: str, app_id: str, token: str) -> SandboxRepository:
    """Return the record store of an app on the loopback InstantDB."""
    return InstantSandboxRepository(InstantClient(app_id, token, base_url=url, environ={}))
