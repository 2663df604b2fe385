"""A service over an InstantDB app: how many requests its verbs cost, and what its records are."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.folder_provider import FolderProvider
from helpers.instant import Store
from servers.instantdb.faults import Fault
from servers.instantdb.server import InstantServer

from ekairos_sandbox import LikelySecretWarning, PluginRegistry, SandboxService
from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.exceptions import SchemaError
from ekairos_sandbox.raising import RaisingService

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs flock and a POSIX sh")


@pytest.fixture
def store(server: InstantServer) -> Iterator[Store]:
    store = Store(server, clock=SystemClock())
    yield store
    server.faults.clear()
    store.repository.close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"EKAIROS_FOLDER_ROOT": str(tmp_path), "API_KEY": "known-secret-4711"}


@pytest.fixture
def service(store: Store, environ: dict[str, str]) -> Iterator[RaisingService]:
    registry = PluginRegistry()
    registry.register_provider(FolderProvider)
    service = SandboxService(store.repository, environ=environ, registry=registry)
    yield service.raising
    service.close()


def test_creating_is_two_writes_and_a_warm_command_asks_nothing(
    store: Store, service: RaisingService
) -> None:
    store.server.clear_requests()
    sandbox = service.create_sandbox(provider="folder")
    assert store.requests() == ["/admin/transact", "/admin/transact"]
    store.server.clear_requests()
    for _ in range(3):
        assert sandbox.run_command("echo", ["hello"]).output == "hello\n"
    assert store.requests() == []
    store.server.clear_requests()
    sandbox.destroy()
    assert store.requests() == ["/admin/query", "/admin/transact", "/admin/transact"]
    assert store.fences() == ["rev:0", "rev:1", "rev:2", "rev:3"]


def test_another_process_needs_one_read(
    store: Store, service: RaisingService, environ: dict[str, str]
) -> None:
    sandbox = service.create_sandbox(provider="folder")
    registry = PluginRegistry()
    registry.register_provider(FolderProvider)
    other = SandboxService(store.again().repository, environ=environ, registry=registry).raising
    store.server.clear_requests()
    for _ in range(2):
        assert other.run_command(sandbox.sandbox_id, "echo", ["hello"]).output == "hello\n"
    assert store.requests() == ["/admin/query"]
    other.close()
    sandbox.destroy()


def test_a_lost_answer_at_every_write_of_a_creation_leaves_one_record_and_one_sandbox(
    store: Store, service: RaisingService, tmp_path: Path
) -> None:
    for skip in (0, 1):
        store.server.faults.add(Fault.DROP_AFTER, path="/admin/transact", skip=skip)
    sandbox = service.create_sandbox(provider="folder")
    [row] = store.rows()
    assert (row["id"], row["status"]) == (sandbox.sandbox_id, "active")
    assert sandbox.run_command("true").success
    sandbox.destroy()


def test_an_app_without_a_schema_refuses_before_anything_is_created(
    server: InstantServer, environ: dict[str, str], tmp_path: Path
) -> None:
    store = Store(server, server.create_app(), clock=SystemClock())
    registry = PluginRegistry()
    registry.register_provider(FolderProvider)
    service = SandboxService(store.repository, environ=environ, registry=registry)
    with pytest.raises(SchemaError, match="schema push"):
        service.raising.create_sandbox(provider="folder")
    assert [path for path in tmp_path.rglob("*") if path.name.startswith("ekairos-")] == []
    service.close()


def test_likely_secrets_in_params_are_named_and_not_shown(service: RaisingService) -> None:
    params = {
        "db": {"password": "hidden-1"},
        "list": [{"apiKey": "hidden-2"}],
        "plain": "known-secret-4711",
        "tokens": 5,
        "note": "a harmless text",
    }
    with pytest.warns(LikelySecretWarning) as caught:
        sandbox = service.create_sandbox(provider="folder", params=params)
    texts = [str(warning.message) for warning in caught]
    assert [text.partition(" ")[0] for text in texts] == [
        "params.db.password",
        "params.list.0.apiKey",
        "params.plain",
    ]
    assert not any("hidden" in text or "4711" in text for text in texts)
    sandbox.destroy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        service.create_sandbox(provider="folder", params={"note": "x", "tokens": 5}).destroy()
