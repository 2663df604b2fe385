"""The InstantDB store does what every record store does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from helpers.instant import sandbox_client
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer

from ekairos_sandbox.repository.instantdb import InstantSandboxRepository
from ekairos_sandbox.testing import RepositoryConformance


class TestInstantdb(RepositoryConformance):
    @pytest.fixture
    def repository(self, server: InstantServer) -> Iterator[InstantSandboxRepository]:
        repository = InstantSandboxRepository(sandbox_client(server))
        yield repository
        repository.close()

    @pytest.fixture
    def break_record(self, repository: InstantSandboxRepository) -> Callable[[str], None]:
        def damage(sandbox_id: str) -> None:
            step = ["update", "sandbox_sandboxes", sandbox_id, {"ports": "yesterday"}]
            repository.client.transact([step])

        return damage


def test_the_schema_of_the_server_s_own_tests_is_ours() -> None:
    from ekairos_sandbox import sandbox_domain

    assert sandbox_domain.schema == SANDBOX_SCHEMA
