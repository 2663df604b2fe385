"""Fixtures of the Sprites provider's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ekairos_sandbox_sprites.provider import SpritesProvider
from helpers.sprites import QuickClock, Sprites
from servers.sprites.server import SpritesServer


@pytest.fixture(scope="module")
def running_server() -> Iterator[SpritesServer]:
    with SpritesServer() as server:
        yield server


@pytest.fixture
def server(running_server: SpritesServer) -> Iterator[SpritesServer]:
    """The service, with its switches as at the beginning and without sprites."""
    server = running_server
    server.reset()
    yield server
    assert server.internal_errors == []


@pytest.fixture
def sprites(server: SpritesServer, tmp_path: Path) -> Iterator[Sprites]:
    """A provider, and services over it."""
    made = Sprites(server, tmp_path)
    yield made
    made.close()


@pytest.fixture
def provider(sprites: Sprites) -> SpritesProvider:
    return sprites.provider


@pytest.fixture
def clock(sprites: Sprites) -> QuickClock:
    return sprites.clock
