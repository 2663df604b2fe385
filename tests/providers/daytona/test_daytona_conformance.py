"""The Daytona provider passes the suite for providers, over the loopback service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from helpers.daytona import DaytonaFixtures
from helpers.instant import Store
from servers.daytona.server import DaytonaServer
from servers.instantdb.server import App, InstantServer

from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.testing import ProviderConformance
from ekairos_sandbox.testing.capabilities import CapabilitySuite
from ekairos_sandbox.testing.connection import ConnectionSuite
from ekairos_sandbox.testing.creation import CreationSuite
from ekairos_sandbox.testing.lifecycle import LifecycleSuite
from ekairos_sandbox.testing.trouble import TroubleSuite


class TestDaytonaInShort(
    DaytonaFixtures, CreationSuite, ConnectionSuite, LifecycleSuite, TroubleSuite, CapabilitySuite
):
    """What a provider does itself; commands and files are built on it once, in core."""

    options: ClassVar = {"ephemeral": False, "auto_stop_interval_min": 0}
    big_output_bytes = 1_000_000


@pytest.mark.slow
class TestDaytona(DaytonaFixtures, ProviderConformance):
    options: ClassVar = {"ephemeral": False, "auto_stop_interval_min": 0}


@pytest.mark.slow
class TestDaytonaEphemeral(DaytonaFixtures, ProviderConformance):
    """With everything as it is without options, except that background commands may run long."""

    options: ClassVar = {"allow_idle_stop": True}
    keeps_files_after_stop = False
    restarts_after_stop = False


@pytest.mark.slow
class TestDaytonaAtItsWorst(DaytonaFixtures, ProviderConformance):
    """Everything takes time, names are stale, lists have many pages, answers are strange."""

    options: ClassVar = {"ephemeral": False, "auto_stop_interval_min": 0}

    @classmethod
    def configure(cls, server: DaytonaServer) -> None:
        transitional = ("creating", "starting", "stopping", "destroying")
        server.boxes.delays |= dict.fromkeys(transitional, 0.2)
        server.boxes.stale_names_s = 10
        server.control.blocking_create_s = 0.1
        server.control.page_size = 1
        server.control.extra = {"novelty": [{"x": 1}], "cpu": 0.5, "sandboxClass": "quantum"}


@pytest.mark.slow
class TestDaytonaOfTheOpenSourceRelease(DaytonaFixtures, ProviderConformance):
    """Against the answers of the last open-source release, which the newest SDK refuses."""

    options: ClassVar = {"ephemeral": False, "auto_stop_interval_min": 0}

    @classmethod
    def configure(cls, server: DaytonaServer) -> None:
        server.control.version = "0.190"


@pytest.mark.slow
class TestDaytonaOnInstantDB(DaytonaFixtures, ProviderConformance):
    """Through the whole stack: records in InstantDB, sandboxes at Daytona."""

    options: ClassVar = {"ephemeral": False, "auto_stop_interval_min": 0}
    provider_factory: ClassVar[str | None] = None
    instant: ClassVar[InstantServer]
    apps: ClassVar[dict[Path, App]] = {}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _record_server(cls) -> Iterator[None]:
        with InstantServer() as cls.instant:
            cls.instant.recording = False
            yield
            assert cls.instant.internal_errors == []

    @classmethod
    def open_store(cls, path: Path) -> SandboxRepository:
        app = cls.apps.get(path)
        store = Store(cls.instant, app, clock=SystemClock())
        cls.apps[path] = store.app
        return store.repository
