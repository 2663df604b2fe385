"""The Sprites provider passes the suite for providers, over the loopback service."""

from __future__ import annotations

from helpers.sprites_conformance import SpritesConformance
from servers.sprites.server import SpritesServer


class TestSprites(SpritesConformance):
    big_file_bytes = 20 * 1024 * 1024
    big_output_bytes = 8_000_000

    @classmethod
    def prepare(cls, server: SpritesServer) -> None:
        server.switches.odd_sizes = True
