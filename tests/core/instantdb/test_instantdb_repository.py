"""What the InstantDB store does beyond what every store does."""

from __future__ import annotations

import json
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from helpers.instant import ID, T0, Store, number_of, record
from servers.instantdb.faults import Fault
from servers.instantdb.server import InstantServer

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    SchemaError,
)
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.repository.instantdb import (
    InstantClient,
    InstantSandboxRepository,
    RefusedError,
    sandbox_domain,
)

DAY_S = 24 * 3600


def rewrite(store: Store, **attrs: Any) -> None:
    """Write a record's attributes as another program does, past our revisions."""
    store.client.transact([["update", "sandbox_sandboxes", ID, attrs]])


# Requests


def test_a_read_is_one_request_and_so_is_a_transition(store: Store) -> None:
    store.repository.create(record())
    fresh = store.again()
    store.server.clear_requests()
    fresh.repository.get(ID)
    assert store.requests() == ["/admin/query"]
    store.server.clear_requests()
    fresh.repository.transition(ID, 0, {"status": "active"})
    fresh.repository.transition(ID, 1, {"status": "shutdown"})
    assert store.requests() == ["/admin/transact", "/admin/transact"]


def test_a_transition_of_a_record_that_was_not_read_reads_it_first(store: Store) -> None:
    store.repository.create(record())
    fresh = store.again()
    store.server.clear_requests()
    assert fresh.repository.transition(ID, 0, {"status": "active"}).purpose is None
    assert store.requests() == ["/admin/query", "/admin/transact"]


def test_what_was_read_long_ago_is_read_again(store: Store) -> None:
    store.repository.create(record())
    store.clock.advance(2 * 3600)
    store.server.clear_requests()
    store.repository.transition(ID, 0, {"status": "active"})
    assert store.requests() == ["/admin/query", "/admin/transact"]


def test_a_page_is_one_request(store: Store) -> None:
    for number in range(5):
        store.repository.create(record(number_of(number), created_at=T0))
    store.server.clear_requests()
    page = store.repository.list(RecordQuery(limit=2))
    page = store.repository.list(RecordQuery(limit=2, cursor=page.cursor))
    assert [found.id for found in page.records] == [number_of(2), number_of(1)]
    assert store.requests() == ["/admin/query", "/admin/query"]


# What is written


def test_a_create_and_a_transition_each_write_a_fence_beside_the_record(store: Store) -> None:
    store.server.clear_requests()
    store.repository.create(record())
    store.repository.transition(ID, 0, {"status": "active", "external_sandbox_id": None})
    first, second = (json.loads(seen.body) for seen in store.server.requests)
    assert first["throw-on-missing-attrs?"] is second["throw-on-missing-attrs?"] is True
    [[create, namespace, fence_id, fence], _] = first["steps"]
    assert (create, namespace) == ("create", "sandbox_fences")
    assert fence == {"key": f"{ID}:rev:0000000000", "createdAt": T0}
    [[_, _, other_id, other], update] = second["steps"]
    assert other == {"key": f"{ID}:rev:0000000001", "createdAt": T0}
    assert other_id != fence_id
    state = {"v": 1, "rev": 1, "name": f"ekairos-{ID}"}
    assert update == [
        "update",
        "sandbox_sandboxes",
        ID,
        {
            "status": "active",
            "externalSandboxId": None,
            "params": {"ekairos": state, "mine": {"a": 1}},
        },
        {"upsert": False},
    ]


def test_ids_are_lower_case_however_they_are_given(store: Store) -> None:
    store.repository.create(record(ID.upper()))
    assert store.repository.get(ID.upper()).id == ID
    assert store.repository.transition(ID.upper(), 0, {"status": "active"}).id == ID
    store.repository.delete(ID.upper())
    assert store.rows() == []


@pytest.mark.parametrize("malformed", ["nope", "", f"{ID}x", ID.replace("-", "")])
def test_an_id_that_is_no_uuid_is_refused_before_the_request(store: Store, malformed: str) -> None:
    store.server.clear_requests()
    for call in (
        lambda: store.repository.get(malformed),
        lambda: store.repository.create(record(malformed)),
        lambda: store.repository.transition(malformed, 0, {"status": "active"}),
        lambda: store.repository.delete(malformed),
    ):
        with pytest.raises(ConfigurationError, match="is a UUID like"):
            call()
    assert store.requests() == []


def test_only_what_changed_is_written_so_that_foreign_attributes_survive(store: Store) -> None:
    store.repository.create(record())
    store.client.transact(
        [["update", "sandbox_sandboxes", ID, {"sandboxUrl": "https://x.example"}]]
    )
    store.repository.transition(ID, 0, {"status": "active"})
    assert store.rows()[0]["sandboxUrl"] == "https://x.example"


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"purpose": "x" * 1013}, "purpose"), ({"provider": "é" * 507}, "provider")],
)
def test_a_value_over_the_index_limit_is_refused_before_the_request(
    store: Store, changes: dict[str, Any], field: str
) -> None:
    store.server.clear_requests()
    with pytest.raises(ConfigurationError, match=f"^{field} is too long"):
        store.repository.create(record(**changes))
    assert store.requests() == []


def test_the_longest_value_that_is_accepted_is_one_that_the_server_takes(store: Store) -> None:
    store.repository.create(record())
    store.repository.transition(ID, 0, {"external_sandbox_id": "x" * 1012})
    with pytest.raises(ConfigurationError, match="externalSandboxId"):
        store.repository.transition(ID, 1, {"external_sandbox_id": "x" * 1013})
    assert store.repository.get(ID).rev == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, "a\0b", "half \ud800"])
def test_what_no_store_can_keep_is_refused_before_the_request(store: Store, value: object) -> None:
    store.repository.create(record())
    store.server.clear_requests()
    with pytest.raises(ConfigurationError, match="cannot be sent or stored"):
        store.repository.create(record(number_of(1), params={"secret-1234": value}))
    with pytest.raises(ConfigurationError, match="cannot be sent or stored"):
        store.repository.transition(ID, 0, {"params": {"secret-1234": value}})
    assert store.requests() == []
    assert store.repository.get(ID).rev == 0


def test_a_backslash_before_u0000_is_no_nul(store: Store) -> None:
    text = "\\u0000 \\\\u0000"
    store.repository.create(record(params={"a": text}))
    assert store.repository.get(ID).params == {"a": text}


# Conflicts


def test_of_two_overlapping_creates_one_wins(store: Store) -> None:
    other = store.again()
    store.server.overlap_creates(2)

    def create(repository: Any, purpose: str) -> str:
        try:
            repository.create(record(purpose=purpose))
        except IdConflictError:
            return "conflict"
        return purpose

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(create, store.repository, "one")
        two = pool.submit(create, other.repository, "two")
        results = {one.result(), two.result()}
    assert "conflict" in results
    [row] = store.rows()
    assert results == {"conflict", row["purpose"]}
    assert store.fences() == ["rev:0"]


def test_of_overlapping_transitions_one_wins(store: Store) -> None:
    store.repository.create(record())
    stores = [store.again() for _ in range(4)]
    for each in stores:
        each.repository.get(ID)
    store.server.overlap_transactions(4)

    def change(number: int) -> int | None:
        try:
            repository = stores[number].repository
            repository.get(ID)
            barrier.wait()
            return repository.transition(ID, 0, {"shutdown_at": number}).shutdown_at
        except RecordConflictError:
            return None

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        winners = [done for done in pool.map(change, range(4)) if done is not None]
    assert [row["shutdownAt"] for row in store.rows()] == winners
    assert len(winners) == 1
    assert store.fences() == ["rev:0", "rev:1"]


def test_a_writer_with_an_old_read_is_refused_and_its_change_rolled_back(store: Store) -> None:
    store.repository.create(record())
    slow = store.again()
    slow.repository.get(ID)
    store.repository.transition(ID, 0, {"status": "active"})
    with pytest.raises(RecordConflictError):
        slow.repository.transition(ID, 0, {"status": "error"})
    assert store.rows()[0]["status"] == "active"


def test_a_transition_of_a_record_that_was_deleted_meanwhile_is_not_found(store: Store) -> None:
    store.repository.create(record())
    other = store.again()
    other.repository.get(ID)
    store.repository.delete(ID)
    with pytest.raises(RecordNotFoundError):
        other.repository.transition(ID, 0, {"status": "active"})
    assert (store.rows(), store.fences()) == ([], [])


def test_an_id_can_be_used_again_after_its_record_was_deleted_by_another_program(
    store: Store,
) -> None:
    store.repository.create(record())
    store.repository.transition(ID, 0, {"status": "active"})
    store.client.transact([["delete", "sandbox_sandboxes", ID]])
    with pytest.raises(RecordNotFoundError):
        store.repository.get(ID)
    assert store.repository.create(record()).rev == 0
    assert store.repository.get(ID).rev == 0
    assert store.fences() == ["rev:0"]


def test_a_unique_attribute_of_the_app_itself_is_not_taken_for_a_conflict(
    server: InstantServer,
) -> None:
    document = sandbox_domain.schema
    attrs = document["entities"]["sandbox_sandboxes"]["attrs"]
    attrs["externalSandboxId"]["config"]["unique"] = True
    store = Store(server, server.create_app(schema=document))
    store.repository.create(record(external_sandbox_id="same"))
    with pytest.raises(RefusedError, match=r"sandbox_sandboxes\.externalSandboxId"):
        store.repository.create(record(number_of(2), external_sandbox_id="same"))


# Healing


def test_a_record_whose_params_lost_our_key_keeps_its_revision(store: Store) -> None:
    store.repository.create(record())
    store.repository.transition(ID, 0, {"status": "active"})
    rewrite(store, params={"sprites": {"id": "s-1"}}, status="shutdown")
    found = store.repository.get(ID)
    assert found.params == {"sprites": {"id": "s-1"}, "ekairos": {"v": 1, "rev": 1}}
    assert (found.rev, found.ours) == (1, False)
    changed = store.repository.transition(ID, 1, {"status": "active"})
    assert changed.rev == 2
    assert store.rows()[0]["params"] == {"sprites": {"id": "s-1"}, "ekairos": {"v": 1, "rev": 2}}


def test_a_record_whose_params_are_an_old_copy_gets_its_revision_back(store: Store) -> None:
    old = store.repository.create(record()).params
    store.repository.transition(ID, 0, {"status": "active"})
    store.repository.transition(ID, 1, {"status": "shutdown"})
    rewrite(store, params=old)
    for reader in (store, store.again()):
        found = reader.repository.get(ID)
        assert (found.rev, found.ours, found.status) == (2, True, "shutdown")
    with pytest.raises(RecordConflictError):
        store.again().repository.transition(ID, 0, {"status": "active"})
    store.repository.transition(ID, 2, {"status": "active"})
    assert store.rows()[0]["params"]["ekairos"]["rev"] == 3


def test_a_transition_between_the_two_parts_of_a_read_is_not_taken_for_a_foreign_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.repository.create(record())
    other = store.again()
    query = other.client.query
    stale: list[dict[str, Any]] = []

    def torn(question: Any) -> Any:
        # The record as it was, and the fence of a transition that came between.
        if not stale:
            stale.append(query(question))
            store.repository.transition(ID, 0, {"status": "active"})
            return {**query(question), "sandbox_sandboxes": stale[0]["sandbox_sandboxes"]}
        return query(question)

    monkeypatch.setattr(other.client, "query", torn)
    found = other.repository.get(ID)
    assert (found.rev, found.status) == (1, "active")


# Fences that are not needed any more


def test_old_fences_are_removed_and_young_ones_kept(store: Store) -> None:
    store.repository.create(record())
    store.repository.transition(ID, 0, {"status": "active"})
    store.clock.advance(31 * DAY_S)
    store.repository.get(ID)
    store.repository.transition(ID, 1, {"status": "shutdown"})
    assert store.repository.purge_fences() == 2
    assert store.fences() == ["rev:2"]
    assert store.repository.purge_fences() == 0
    assert store.repository.transition(ID, 2, {"status": "active"}).rev == 3


def test_checking_the_store_removes_old_fences(store: Store) -> None:
    store.repository.create(record())
    store.clock.advance(31 * DAY_S)
    store.repository.check(acting=False)
    assert store.fences() == ["rev:0"]
    store.repository.check()
    assert store.fences() == []


def test_checking_does_not_fail_because_fences_cannot_be_removed(store: Store) -> None:
    store.repository.create(record())
    store.clock.advance(31 * DAY_S)
    store.server.faults.add(Fault.READ_ONLY, path="/admin/transact", times=None)
    store.repository.check()
    assert store.fences() == ["rev:0"]


def test_a_fence_that_knows_more_than_its_record_is_kept_whatever_its_age(store: Store) -> None:
    old = store.repository.create(record()).params
    store.repository.transition(ID, 0, {"status": "active"})
    rewrite(store, params=old)
    store.clock.advance(100 * DAY_S)
    assert store.repository.purge_fences() == 1
    assert store.fences() == ["rev:1"]
    assert store.repository.get(ID).rev == 1


def test_fences_of_deleted_records_are_removed_in_batches(store: Store) -> None:
    steps = [
        ["create", "sandbox_fences", number_of(n), {"key": f"{ID}:rev:{n:010d}", "createdAt": T0}]
        for n in range(250)
    ]
    store.client.transact(steps)
    store.clock.advance(31 * DAY_S)
    assert store.repository.purge_fences() == 250
    assert store.fences() == []


# Listing


def test_pages_over_many_records_of_one_moment_miss_and_repeat_none(store: Store) -> None:
    base = {"provider": "p", "status": "active"}
    steps: list[Any] = [
        ["create", "sandbox_sandboxes", number_of(n), {**base, "createdAt": T0 + n // 40}]
        for n in range(100)
    ]
    store.client.transact(steps)
    for limit in (1, 7, 40, 100):
        listed = store.repository.iterate(RecordQuery(limit=limit))
        assert [found.id for found in listed] == [number_of(n) for n in reversed(range(100))]


def test_a_record_that_comes_between_two_pages_hides_none(store: Store) -> None:
    for number in range(0, 8, 2):
        store.repository.create(record(number_of(number), created_at=T0))
    page = store.repository.list(RecordQuery(limit=2))
    assert [found.id for found in page.records] == [number_of(6), number_of(4)]
    for number in (5, 7, 9, 11, 13):
        store.repository.create(record(number_of(number), created_at=T0))
    page = store.repository.list(RecordQuery(limit=2, cursor=page.cursor))
    assert [found.id for found in page.records] == [number_of(2), number_of(0)]
    assert page.cursor is None


@pytest.mark.parametrize("cursor", ["1:x", f"1:{ID}", f"x:{ID}:1", f"1:{ID}:-1", ""])
def test_what_is_no_cursor_is_refused_without_a_request(store: Store, cursor: str) -> None:
    store.server.clear_requests()
    with pytest.raises(ConfigurationError, match="no cursor"):
        store.repository.list(RecordQuery(cursor=cursor))
    assert store.requests() == []


def test_a_record_with_a_wrong_typed_field_is_named_and_the_rest_is_listed(store: Store) -> None:
    for number in range(3):
        store.repository.create(record(number_of(number), created_at=T0 + number))
    wrong = {"ports": [1, "x"], "params": {"ekairos": {"rev": "many"}}}
    store.client.transact([["update", "sandbox_sandboxes", number_of(1), wrong]])
    page = store.repository.list(RecordQuery())
    assert [found.id for found in page.records] == [number_of(2), number_of(0)]
    assert page.broken == ((number_of(1), f"the record {number_of(1)} cannot be read: ports.1"),)
    with pytest.raises(SchemaError, match=rf"{number_of(1)} cannot be read: ports\.1"):
        store.repository.get(number_of(1))
    store.client.transact([["update", "sandbox_sandboxes", number_of(1), {"ports": None}]])
    with pytest.raises(SchemaError, match="cannot be read: rev"):
        store.repository.get(number_of(1))


# The store as a whole


def test_the_owner_tells_apps_apart_and_not_servers(server: InstantServer) -> None:
    one, two = Store(server), Store(server)
    assert one.repository.owner != two.repository.owner
    assert one.repository.owner == one.again().repository.owner
    with InstantServer() as elsewhere:
        moved = InstantClient(one.app.id.upper(), "t", base_url=elsewhere.url, environ={})
        assert InstantSandboxRepository(moved).owner == one.repository.owner


def test_one_store_serves_many_threads(store: Store) -> None:
    def work(number: int) -> int:
        made = store.repository.create(record(number_of(number)))
        changed = store.repository.transition(made.id, 0, {"status": "active"})
        return store.repository.get(changed.id).rev

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == [1] * 40
    assert len(store.rows()) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_uses_connections_of_its_own(store: Store) -> None:
    store.repository.create(record())
    store.server.clear_requests()
    child = os.fork()
    if child == 0:
        done = 1
        try:
            store.repository.get(ID)
            store.repository.transition(ID, 0, {"status": "active"})
            done = 0
        finally:
            os._exit(done)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    childs = {seen.client_port for seen in store.server.requests}
    assert store.repository.get(ID).status == "active"
    assert store.server.requests[-1].client_port not in childs
