"""The suite for providers again, while the service behaves at its worst."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from helpers.instant import Store
from helpers.sprites_conformance import SpritesConformance, SpritesLab
from servers.instantdb.server import InstantServer
from servers.sprites.server import SpritesServer
from servers.sprites.switches import Rule

from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.testing.commands import CommandSuite
from ekairos_sandbox.testing.files import FileSuite
from ekairos_sandbox.testing.output import OutputSuite
from ekairos_sandbox.testing.processes import ProcessSuite

pytestmark = pytest.mark.slow


class TestSpritesWithInstantDB(SpritesConformance):
    """Through the whole stack: records at the loopback InstantDB server."""

    provider_factory: ClassVar[str | None] = None
    instant: ClassVar[InstantServer]
    stores: ClassVar[dict[Path, Store]]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _instant(cls) -> Iterator[None]:
        with InstantServer() as cls.instant:
            cls.stores = {}
            yield

    @classmethod
    def open_store(cls, path: Path) -> SandboxRepository:
        known = cls.stores.get(path)
        app = known.app if known else None
        opened = Store(cls.instant, app, clock=SystemClock())
        cls.stores.setdefault(path, opened)
        return opened.repository


class TestSpritesWithRandomChunks(SpritesConformance):
    @classmethod
    def prepare(cls, server: SpritesServer) -> None:
        server.switches.chunking = "random"
        server.switches.odd_sizes = True


class TestSpritesWithMergedChunks(SpritesConformance):
    @classmethod
    def prepare(cls, server: SpritesServer) -> None:
        server.switches.chunking = "merge"


class TestSpritesThatLoseMuch(SpritesLab, CommandSuite, OutputSuite, ProcessSuite, FileSuite):
    """A third of the commands lose their output; every sixth request or reply is lost.

    Without what rightly ends otherwise then: ``shell`` itself repeats nothing, a sandbox that is
    deleted or restored after a lost answer leaves an unknown outcome, an interrupted caller tries
    once only to end its command, and how many results were forgotten is lost with the answer.
    """

    test_an_interrupt_ends_the_command = None  # type: ignore[assignment]
    test_leaving_a_stream_early_ends_the_command = None  # type: ignore[assignment]
    test_purging_forgets_results_of_ended_commands_only = None  # type: ignore[assignment]

    big_file_bytes = 20 * 1024 * 1024
    big_output_bytes = 8_000_000

    @classmethod
    def prepare(cls, server: SpritesServer) -> None:
        server.switches.lose_every = 3
        numbers = itertools.count(1)

        def chance(method: str, path: str) -> Rule | None:
            if not re.search(r"/exec$|/fs/", path):
                return None
            number = next(numbers)
            if number % 12 == 5:
                return Rule("before")
            return Rule("after", reset=True) if number % 12 == 11 else None

        server.switches.chance = chance
