"""The SQLite store does what every record store does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.testing import RepositoryConformance


class TestSqlite(RepositoryConformance):
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Iterator[SqliteSandboxRepository]:
        repository = SqliteSandboxRepository(tmp_path / "records.db")
        yield repository
        repository.close()

    @pytest.fixture
    def break_record(self, repository: SqliteSandboxRepository) -> Callable[[str], None]:
        def damage(sandbox_id: str) -> None:
            with sqlite3.connect(repository.path) as db:
                db.execute(
                    "UPDATE sandboxes SET data = json_set(data, '$.createdAt', 'yesterday')"
                    " WHERE id = ?",
                    (sandbox_id,),
                )
            db.close()

        return damage
