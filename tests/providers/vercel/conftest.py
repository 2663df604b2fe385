"""Fixtures of the Vercel provider's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.vercel import provider_for
from servers.vercel.server import VercelServer

from ekairos_sandbox import SandboxService
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.testing import HastyClock
from ekairos_sandbox_vercel import VercelProvider


@pytest.fixture
def server() -> Iterator[VercelServer]:
    with VercelServer() as server:
        yield server
        assert server.internal_errors == []


@pytest.fixture
def provider(server: VercelServer) -> Iterator[VercelProvider]:
    provider = provider_for(server.environ())
    yield provider
    provider.close()


@pytest.fixture
def service(provider: VercelProvider, tmp_path: Path) -> Iterator[RaisingService]:
    repository = SqliteSandboxRepository(tmp_path / "records.db")
    with SandboxService(
        repository, environ={}, providers=[provider], clock=HastyClock()
    ) as service:
        yield service.raising


@pytest.fixture
def cold(
    provider: VercelProvider, service: RaisingService, tmp_path: Path
) -> Iterator[RaisingService]:
    """Another service on the same records, as another process has it."""
    del service
    repository = SqliteSandboxRepository(tmp_path / "records.db")
    with SandboxService(repository, environ={}, providers=[provider], clock=HastyClock()) as cold:
        yield cold.raising
