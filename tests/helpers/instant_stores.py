"""Records in InstantDB for the suite for providers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from helpers.instant import Store
from servers.instantdb.server import App, InstantServer

from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.testing.base import Suite


class InstantStores(Suite):
    """To be put before the fixtures of a provider: every record store is an app of its own."""

    provider_factory: ClassVar[str | None] = None
    instant: ClassVar[InstantServer]
    apps: ClassVar[dict[Path, App]]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _instant(cls) -> Iterator[None]:
        with InstantServer() as cls.instant:
            cls.apps = {}
            yield
            assert cls.instant.internal_errors == []

    @classmethod
    def open_store(cls, path: Path) -> SandboxRepository:
        store = Store(cls.instant, cls.apps.get(path), clock=SystemClock())
        cls.apps[path] = store.app
        return store.repository
