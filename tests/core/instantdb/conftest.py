"""A server for each file of tests, and a store on an app of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.instant import Store
from servers.instantdb.server import InstantServer


@pytest.fixture(scope="module")
def server() -> Iterator[InstantServer]:
    with InstantServer() as server:
        yield server
        assert server.internal_errors == []


@pytest.fixture
def store(server: InstantServer) -> Iterator[Store]:
    store = Store(server)
    yield store
    server.faults.clear()
    store.repository.close()
