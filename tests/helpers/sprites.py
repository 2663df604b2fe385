"""Providers for the loopback Sprites service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ekairos_sandbox_sprites.provider import SpritesProvider
from servers.sprites.server import SpritesServer

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.provider import ProviderContext


class QuickClock(SystemClock):
    """The machine's own time, but pauses are a tenth of what they should be.

    Attributes:
        waits: The pauses that were asked for, in seconds.
    """

    def __init__(self) -> None:
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
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
