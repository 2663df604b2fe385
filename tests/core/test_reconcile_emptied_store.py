"""A store that has lost its records, for whatever reason, ends no sandbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.instant import Store
from helpers.memory_world import ManualClock, MemoryProvider, World
from servers.instantdb.server import InstantServer

from ekairos_sandbox import ReconcileReport, SandboxService, SchemaError
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

ID = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"
OTHER = "00000000-0000-4000-8000-000000000001"
NAME, OTHER_NAME = f"ekairos-{ID}", f"ekairos-{OTHER}"


@dataclass
class Site:
    repository: SandboxRepository
    empty: Callable[[], None]
    service: RaisingService
    world: World
    clock: ManualClock

    def create(self, sandbox_id: str) -> None:
        self.service.create_sandbox(provider="memory", sandbox_id=sandbox_id)
        self.clock.advance(60)

    def reconcile(self, *named: str) -> ReconcileReport:
        return self.service.reconcile(
            apply=True, destroy_unrecorded=named or True, providers=["memory"]
        )


@pytest.fixture(scope="module")
def server() -> Iterator[InstantServer]:
    with InstantServer() as server:
        yield server
        assert server.internal_errors == []


def sqlite_store(folder: Path) -> tuple[SandboxRepository, Callable[[], None]]:
    path = folder / "records.db"

    def empty() -> None:
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM sandboxes")
        db.close()

    return SqliteSandboxRepository(path), empty


def instant_store(server: InstantServer) -> tuple[SandboxRepository, Callable[[], None]]:
    store = Store(server)

    def empty() -> None:
        for namespace in ("sandbox_sandboxes", "sandbox_fences"):
            rows = server.rows(store.app.id, namespace)
            store.client.transact([["delete", namespace, row["id"]] for row in rows])

    return store.repository, empty


@pytest.fixture(params=["sqlite", "instantdb"])
def site(request: pytest.FixtureRequest, tmp_path: Path, server: InstantServer) -> Iterator[Site]:
    made = sqlite_store(tmp_path) if request.param == "sqlite" else instant_store(server)
    repository, empty = made
    clock, world = ManualClock(), World(tmp_path / "machines")
    provider = MemoryProvider(world, ProviderContext(environ={}, clock=clock))
    service = SandboxService(repository, environ={}, clock=clock, providers=[provider])
    yield Site(repository, empty, service.raising, world, clock)
    for machine in list(world.machines.values()):
        world.remove(machine)
    service.close()
    repository.close()


def refused(report: ReconcileReport) -> list[str]:
    """Return the ids that were left alone, having seen why."""
    for action in report.actions:
        assert (action.kind, action.applied) == ("unrecorded", False)
        assert "emptied, restored or exchanged" in str(action.error)
        assert f"destroy_unrecorded=['{action.sandbox_id}']" in str(action.error)
    return sorted(action.sandbox_id for action in report.actions)


def test_an_emptied_store_ends_nothing(site: Site) -> None:
    site.create(ID)
    site.create(OTHER)
    site.empty()
    assert refused(site.reconcile()) == [OTHER, ID]
    assert site.world.running() == [OTHER_NAME, NAME]


def test_an_emptied_store_that_got_new_records_ends_nothing_older(site: Site) -> None:
    site.create(ID)
    site.empty()
    site.create(OTHER)
    assert refused(site.reconcile()) == [ID]
    assert site.world.running() == [OTHER_NAME, NAME]


def test_a_single_record_that_was_lost_is_no_emptied_store(site: Site) -> None:
    site.create(OTHER)
    site.create(ID)
    site.repository.delete(ID)
    assert [action.applied for action in site.reconcile().actions] == [True]
    assert site.world.running() == [OTHER_NAME]


def test_a_sandbox_of_unknown_age_ends_if_the_store_has_records(site: Site) -> None:
    site.create(ID)
    site.create(OTHER)
    site.world.machines[NAME].created_at = None
    site.empty()
    assert site.reconcile().errors != ()
    site.create("00000000-0000-4000-8000-000000000002")
    assert [action.applied for action in site.reconcile().actions] == [True, False]


def test_what_is_named_ends_whatever_the_store_remembers(site: Site) -> None:
    site.create(ID)
    site.create(OTHER)
    site.empty()
    report = site.reconcile(ID)
    assert [(action.sandbox_id, action.applied) for action in report.actions] == [
        (ID, True),
        (OTHER, False),
    ]
    assert report.errors == ()
    assert site.world.running() == [OTHER_NAME]


def test_what_is_named_and_has_a_record_does_not_end(site: Site) -> None:
    site.create(ID)
    assert site.reconcile(ID).actions == ()
    assert site.world.running() == [NAME]


def test_a_store_that_is_emptied_in_the_middle_ends_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.create(OTHER)
    site.create(ID)
    site.repository.delete(ID)
    listed = site.repository.pages

    def pages(query: object) -> object:
        yield from listed(query)  # type: ignore[arg-type]
        site.empty()

    monkeypatch.setattr(site.repository, "pages", pages)
    report = site.reconcile()
    (action,) = report.actions
    assert not action.applied
    assert f"no sandbox has the id {OTHER}" in str(action.error)
    assert site.world.running() == [OTHER_NAME, NAME]


def test_an_app_whose_schema_is_gone_ends_nothing(server: InstantServer, tmp_path: Path) -> None:
    """The schema was there when the listing began."""
    site_store = Store(server, server.create_app())
    world = World(tmp_path / "machines")
    service = SandboxService(
        site_store.repository, environ={}, providers=[MemoryProvider(world)]
    ).raising
    with pytest.raises(SchemaError, match="schema push"):
        service.reconcile(apply=True, destroy_unrecorded=True, providers=["memory"])
    with pytest.raises(SchemaError, match="schema push"):
        service.get_record(ID)
    service.close()


def test_a_record_that_cannot_be_read_is_reported_and_the_others_are_settled(
    server: InstantServer, tmp_path: Path
) -> None:
    repository, _ = instant_store(server)
    clock, world = ManualClock(), World(tmp_path / "machines")
    provider = MemoryProvider(world, ProviderContext(environ={}, clock=clock))
    service = SandboxService(repository, environ={}, clock=clock, providers=[provider])
    site = Site(repository, lambda: None, service.raising, world, clock)
    site.create(OTHER)
    site.create(ID)
    step = ["update", "sandbox_sandboxes", OTHER, {"ports": "yesterday"}]
    repository.client.transact([step])  # type: ignore[attr-defined]
    world.lose(NAME)
    report = site.reconcile()
    assert {(a.kind, a.sandbox_id, a.applied) for a in report.actions} == {
        ("lost", ID, True),
        ("skipped", OTHER, False),
    }
    assert f"the record {OTHER} cannot be read: ports" in str(report.errors[0].error)
    assert world.running() == [OTHER_NAME]
    for machine in list(world.machines.values()):
        world.remove(machine)
    service.close()
    repository.close()
