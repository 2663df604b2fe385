"""What every run of the suite for providers has in common for Sprites."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

import pytest
import requests
from ekairos_sandbox_sprites.provider import SpritesProvider
from helpers.sprites import provider_for, sprite_body
from servers.sprites.server import SpritesServer
from servers.sprites.switches import Rule

from ekairos_sandbox.testing import ProviderConformance
from ekairos_sandbox.testing.base import Suite


class SpritesLab(Suite):
    """A server of its own for each class. A stopped sprite is deleted, which is the default."""

    provider_factory: ClassVar[str | None] = "ekairos_sandbox_sprites.provider:SpritesProvider"
    keeps_files_after_stop = False
    restarts_after_stop = False

    @classmethod
    def prepare(cls, server: SpritesServer) -> None:
        """Set the server's switches."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[SpritesServer]:
        with SpritesServer() as server:
            server.keep_bodies = False
            cls.prepare(server)
            yield server
            assert server.internal_errors == []

    @pytest.fixture(scope="class")
    @classmethod
    def provider(cls, server: SpritesServer) -> Iterator[SpritesProvider]:
        provider = provider_for(server)
        yield provider
        provider.close()

    @pytest.fixture(scope="class")
    @classmethod
    def other_account(cls, server: SpritesServer) -> Iterator[SpritesProvider]:
        provider = provider_for(server, SPRITES_API_TOKEN=server.other_token)
        yield provider
        provider.close()

    @pytest.fixture(scope="class")
    @classmethod
    def make_untagged(cls, server: SpritesServer) -> Callable[[str], None]:
        def make(name: str) -> None:
            answer = requests.post(
                f"{server.url}/v1/sprites",
                json=sprite_body(name),
                headers={"Authorization": f"Bearer {server.token}"},
                timeout=30,
            )
            assert answer.status_code == 201

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def unreachable(cls, server: SpritesServer) -> Callable[[], AbstractContextManager[None]]:
        @contextlib.contextmanager
        def unreachable() -> Iterator[None]:
            server.switches.chance = lambda method, path: Rule("before")
            yield
            server.switches.chance = None

        return unreachable


class SpritesConformance(SpritesLab, ProviderConformance):
    """The whole suite."""
