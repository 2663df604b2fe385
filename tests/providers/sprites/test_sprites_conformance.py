"""The Sprites provider passes the suite for providers, over the loopback service."""

from __future__ import annotations

import pytest
from helpers.sprites_conformance import SpritesConformance, SpritesLab
from servers.sprites.server import SpritesServer

from ekairos_sandbox.testing.capabilities import CapabilitySuite
from ekairos_sandbox.testing.connection import ConnectionSuite
from ekairos_sandbox.testing.creation import CreationSuite
from ekairos_sandbox.testing.lifecycle import LifecycleSuite
from ekairos_sandbox.testing.trouble import TroubleSuite


class TestSpritesInShort(
    SpritesLab, CreationSuite, ConnectionSuite, LifecycleSuite, TroubleSuite, CapabilitySuite
):
    """What a provider does itself; commands and files are built on it once, in core."""

    big_output_bytes = 1_000_000


@pytest.mark.slow
class TestSprites(SpritesConformance):
    big_file_bytes = 20 * 1024 * 1024
    big_output_bytes = 8_000_000

    @classmethod
    def prepare(cls, server: SpritesServer) -> None:
        server.switches.odd_sizes = True
