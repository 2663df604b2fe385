"""A loopback Daytona for each test, and ways to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ekairos_sandbox_daytona.provider import DaytonaProvider
from helpers.daytona import provider_for
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.service import SandboxService
from ekairos_sandbox.testing.faults import HastyClock


@pytest.fixture
def server() -> Iterator[DaytonaServer]:
    with DaytonaServer() as server:
        yield server
        assert server.internal_errors == []


@pytest.fixture
def provider(server: DaytonaServer) -> DaytonaProvider:
    return provider_for(server)


@pytest.fixture
def service(provider: DaytonaProvider, tmp_path: Path) -> Iterator[RaisingService]:
    store = SqliteSandboxRepository(tmp_path / "records.db")
    with SandboxService(store, environ={}, clock=HastyClock(), providers=[provider]) as service:
        yield service.raising
