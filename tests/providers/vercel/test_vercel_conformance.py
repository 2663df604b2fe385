"""The Vercel provider passes the suite for providers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from helpers.instant_stores import InstantStores
from helpers.vercel import VercelFixtures
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.provider import Provider
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.testing import HastyClock, Lab, ProviderConformance
from ekairos_sandbox.testing.commands import CommandSuite
from ekairos_sandbox.testing.connection import ConnectionSuite
from ekairos_sandbox.testing.creation import CreationSuite
from ekairos_sandbox.testing.files import FileSuite
from ekairos_sandbox.testing.lifecycle import LifecycleSuite
from ekairos_sandbox.testing.trouble import TroubleSuite
from ekairos_sandbox_vercel import VercelProvider


class TestVercelInShort(
    VercelFixtures, CreationSuite, ConnectionSuite, LifecycleSuite, TroubleSuite
):
    """What a provider does itself; commands and files are built on it once, in core."""


@pytest.mark.slow
class TestVercel(VercelFixtures, ProviderConformance):
    """Sandboxes that are not persistent, as they are by default."""


@pytest.mark.slow
class TestVercelPersistent(VercelFixtures, ProviderConformance):
    """Persistent sandboxes: stopped, they keep their files and start again."""

    options: ClassVar[Mapping[str, Any]] = {"persistent": True}
    keeps_files_after_stop = True
    restarts_after_stop = True


@pytest.mark.slow
class TestVercelWithInstantdb(InstantStores, VercelFixtures, ProviderConformance):
    """The whole stack, with records in InstantDB."""

    options: ClassVar[Mapping[str, Any]] = {"persistent": True}
    keeps_files_after_stop = True
    restarts_after_stop = True


class HastyLab(Lab):
    """Services that hardly wait before they try again."""

    def service(self, provider: Provider[Any] | None = None, **how: Any) -> RaisingService:
        return super().service(provider, **{"clock": HastyClock(), **how})


class UnderTrouble(VercelFixtures, CommandSuite, FileSuite):
    """What is built on calls that are made again until they are answered."""

    big_file_bytes = 2 * 1024 * 1024

    @pytest.fixture(scope="class")
    @classmethod
    def lab(
        cls, provider: VercelProvider, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Lab]:
        lab = HastyLab(provider, cls, tmp_path_factory.mktemp("conformance"))
        yield lab
        lab.close()


@pytest.mark.slow
class TestVercelCutStreams(UnderTrouble):
    """A third of the answers of commands are cut, each kind in another place."""

    @classmethod
    def trouble(cls, server: VercelServer) -> None:
        server.faults.add(Fault.CUT_MID_LINE, "run", every=9, records=1, times=None)
        server.faults.add(Fault.CUT, "run", every=10, records=1, times=None)
        server.faults.add(Fault.END_EARLY, "run", every=11, records=0, times=None)
        server.faults.add(Fault.ERROR_RECORD, "run", every=13, records=2, times=None)


@pytest.mark.slow
class TestVercelRateLimits(UnderTrouble):
    """Too many requests, with and without a word on when to come again."""

    @classmethod
    def trouble(cls, server: VercelServer) -> None:
        server.faults.add(Fault.RATE_LIMITED, every=5, times=None)
        server.faults.add(Fault.RATE_LIMITED, every=7, retry_after=2, times=None)


@pytest.mark.slow
class TestVercelLostAnswers(UnderTrouble):
    """Requests that are carried out and whose answers do not come, and others that are not."""

    @classmethod
    def trouble(cls, server: VercelServer) -> None:
        server.faults.add(Fault.RESET_AFTER, every=8, times=None)
        server.faults.add(Fault.RESET_BEFORE, every=9, times=None)
        server.faults.add(Fault.BAD_GATEWAY_AFTER, every=11, times=None)
