"""The record store in memory does what every record store does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ekairos_sandbox.testing import MemorySandboxRepository, RepositoryConformance


class TestMemoryStore(RepositoryConformance):
    @pytest.fixture
    def repository(self) -> MemorySandboxRepository:
        return MemorySandboxRepository()

    @pytest.fixture
    def break_record(self, repository: MemorySandboxRepository) -> Callable[[str], None]:
        def damage(sandbox_id: str) -> None:
            text = repository.stored[sandbox_id]
            repository.stored[sandbox_id] = text.replace('"createdAt":', '"createdAt":"yesterday",')

        return damage
