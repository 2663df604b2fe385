"""Providers for the loopback Sprites service."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ekairos_sandbox_sprites.connection import SpritesConnection
from ekairos_sandbox_sprites.options import SpritesOptions
from ekairos_sandbox_sprites.provider import SpritesProvider
from servers.sprites.server import SpritesServer

from ekairos_sandbox import RaisingService, SandboxService
from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.provider import Connection, CreateSpec, ProviderContext, SandboxRef, Tags
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

OWNER = "0a1b2c3d4e5f6071"
ID = "7a1c2a52-8d5c-4a53-9d6a-4d1f6f2d8f11"
TAGS = Tags(OWNER, ID, 1)


class QuickClock(SystemClock):
    """The machine's own time, but pauses are short; the service's own time passes in full.

    Attributes:
        waits: The pauses that were asked for, in seconds.
    """

    def __init__(self, server: SpritesServer | None = None) -> None:
        self.waits: list[float] = []
        self._server = server

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if self._server is not None:
            self._server.clock.advance(seconds)
        super().sleep(min(seconds / 10, 0.2))


def environ(server: SpritesServer, **more: str) -> dict[str, str]:
    """Return the variables that lead to a server."""
    return {"SPRITES_API_TOKEN": server.token, "SPRITES_API_BASE_URL": server.url, **more}


def provider_for(
    server: SpritesServer, *, clock: Clock | None = None, **more: str
) -> SpritesProvider:
    """Return a provider of ours for a server; ``more`` are further variables."""
    context = ProviderContext(environ=environ(server, **more), clock=clock or QuickClock())
    return SpritesProvider(context)


def sprite_body(name: str, **fields: Any) -> Mapping[str, Any]:
    """Return what the API takes to make a sprite that is none of ours."""
    return {"name": name, "url_settings": {"auth": "sprite"}, **fields}


class Sprites:
    """A provider on a clock that hurries, and short ways to use it."""

    def __init__(self, server: SpritesServer, folder: Path, **variables: str) -> None:
        self.server = server
        self.clock = QuickClock(server)
        self.provider = provider_for(server, clock=self.clock, **variables)
        self._store = folder / "records.db"
        self._services: list[SandboxService] = []

    def spec(
        self, name: str = "", *, timeout_s: float = 60.0, user_chosen: bool = False, **options: Any
    ) -> CreateSpec[SpritesOptions]:
        return CreateSpec(
            name=name or f"ekairos-{uuid.uuid4()}",
            tags=TAGS,
            options=SpritesOptions(**options),
            timeout_s=timeout_s,
            user_chosen_name=user_chosen,
        )

    def create(
        self, name: str = "", **given: Any
    ) -> tuple[SpritesConnection, SandboxRef[SpritesOptions]]:
        spec = self.spec(name, **given)
        connection = self.provider.create(spec)
        assert isinstance(connection, SpritesConnection)
        return connection, ref_of(spec, connection)

    def service(self, clock: Clock | None = None) -> RaisingService:
        """Return a new service; all of them have the same record store."""
        repository = SqliteSandboxRepository(self._store)
        service = SandboxService(
            repository, environ={}, clock=clock or self.clock, providers=[self.provider]
        )
        self._services.append(service)
        return service.raising

    def close(self) -> None:
        for service in self._services:
            service.close()
        self.provider.close()


def ref_of(spec: CreateSpec[SpritesOptions], made: Connection) -> SandboxRef[SpritesOptions]:
    """Return what a record knows of a sprite that was made from a spec."""
    return SandboxRef(spec.name, made.external_id, spec.tags, made.data, spec.options)


def say(connection: Connection, script: str, **limits: Any) -> str:
    """Run a script and return its output without the last line end."""
    limits = {"timeout_s": 30.0, "max_bytes": 1 << 20, **limits}
    return connection.shell(script.encode(), **limits).decode().rstrip("\n")
