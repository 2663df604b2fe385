"""Whatever goes wrong between us and the server, nothing is lost, doubled or guessed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.instant import ID, Store, record
from servers.instantdb.faults import Fault
from servers.instantdb.server import InstantServer

from ekairos_sandbox.exceptions import RepositoryUnavailableError
from ekairos_sandbox.models import RecordQuery

Operation = Callable[[Store], object]

REPAIRABLE = [
    pytest.param(fault, applied, id=f"{fault.name.lower()}-{'done' if applied else 'not-done'}")
    for fault, applied in [
        (Fault.TIMEOUT, False),
        (Fault.RATE_LIMITED, False),
        (Fault.DEADLOCK, False),
        (Fault.SERIALIZATION, False),
        (Fault.UNKNOWN, False),
        (Fault.UNKNOWN, True),
        (Fault.BAD_GATEWAY, False),
        (Fault.BAD_GATEWAY, True),
        (Fault.UNAVAILABLE, False),
        (Fault.UNAVAILABLE, True),
        (Fault.DROP_BEFORE, False),
        (Fault.DROP_AFTER, True),
        (Fault.GARBAGE, True),
        (Fault.TRUNCATED, True),
    ]
]
PROVEN = (Fault.TIMEOUT, Fault.RATE_LIMITED, Fault.DEADLOCK, Fault.SERIALIZATION)
"""Faults whose answer proves that nothing was done."""


def create(store: Store) -> object:
    return store.repository.create(record(purpose="x"))


def transition(store: Store) -> object:
    return store.repository.transition(ID, 0, {"status": "active", "shutdown_at": 5})


def delete(store: Store) -> None:
    store.repository.delete(ID)


def purge(store: Store) -> object:
    return store.repository.purge_fences(older_than_s=-1)


def get(store: Store) -> object:
    return store.repository.get(ID).status


def listing(store: Store) -> object:
    return [found.id for found in store.repository.list(RecordQuery()).records]


BEFORE: dict[Operation, tuple[list[str], list[str]]] = {
    create: ([], []),
    transition: (["creating"], ["rev:0"]),
    delete: (["creating"], ["rev:0"]),
    purge: (["creating"], ["rev:0"]),
}
AFTER: dict[Operation, tuple[list[str], list[str]]] = {
    create: (["creating"], ["rev:0"]),
    transition: (["active"], ["rev:0", "rev:1"]),
    delete: ([], []),
    purge: (["creating"], []),
}
writes = pytest.mark.parametrize("operation", list(BEFORE), ids=lambda op: op.__name__)
reads = pytest.mark.parametrize("operation", [get, listing], ids=lambda op: op.__name__)


def state(store: Store) -> tuple[list[str], list[str]]:
    return [row["status"] for row in store.rows()], store.fences()


def prepared(store: Store, operation: Operation) -> Store:
    if operation is not create:
        store.repository.create(record())
    store.clock.advance(10)
    return store


@writes
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("fault", "applied"), REPAIRABLE)
def test_a_passing_fault_is_repaired_and_the_write_is_done_once(
    store: Store, operation: Operation, fault: Fault, applied: bool, times: int
) -> None:
    prepared(store, operation)
    store.server.faults.add(fault, path="/admin/transact", applied=applied, times=times)
    operation(store)
    assert state(store) == AFTER[operation]
    assert operation is not transition or store.repository.get(ID).rev == 1


@writes
@pytest.mark.parametrize(("fault", "applied"), REPAIRABLE)
def test_a_lasting_fault_is_reported_as_what_it_leaves(
    store: Store, operation: Operation, fault: Fault, applied: bool
) -> None:
    prepared(store, operation)
    store.server.faults.add(fault, path="/admin/transact", applied=applied, times=None)
    if applied and operation in (create, transition):
        # The answers were lost, and reading back showed that it is done.
        operation(store)
    else:
        with pytest.raises(RepositoryUnavailableError) as caught:
            operation(store)
        assert caught.value.outcome == ("failed" if fault in PROVEN else "unknown")
        assert caught.value.retryable is True
    assert state(store) == (AFTER if applied else BEFORE)[operation]


@writes
@pytest.mark.parametrize("applied", [True, False])
def test_a_server_that_is_lost_in_the_middle_leaves_the_outcome_unknown(
    store: Store, operation: Operation, applied: bool
) -> None:
    prepared(store, operation)
    fault = Fault.DROP_AFTER if applied else Fault.DROP_BEFORE
    store.server.faults.add(fault, path="/admin/transact", times=1)
    store.server.faults.add(Fault.UNAVAILABLE, path="/admin/transact", times=None)
    store.server.faults.add(Fault.UNAVAILABLE, contains=b'"key":"asc"', times=None)
    with pytest.raises(RepositoryUnavailableError) as caught:
        operation(store)
    assert caught.value.outcome == "unknown"
    store.server.faults.clear()
    assert state(store) == (AFTER if applied else BEFORE)[operation]


@pytest.mark.parametrize("operation", [create, transition], ids=["create", "transition"])
def test_an_early_lost_answer_is_not_forgotten_when_later_attempts_provably_fail(
    store: Store, operation: Operation
) -> None:
    prepared(store, operation)
    store.server.faults.add(Fault.DROP_BEFORE, path="/admin/transact", times=1)
    store.server.faults.add(Fault.DEADLOCK, path="/admin/transact", times=None)
    with pytest.raises(RepositoryUnavailableError) as caught:
        operation(store)
    assert caught.value.outcome == "unknown"
    assert state(store) == BEFORE[operation]


@reads
@pytest.mark.parametrize(("fault", "applied"), REPAIRABLE)
def test_reads_are_repeated(
    store: Store, operation: Operation, fault: Fault, applied: bool
) -> None:
    prepared(store, operation)
    store.server.faults.add(fault, path="/admin/query", applied=applied, times=4)
    assert operation(store) in ("creating", [ID])
    assert len(store.clock.waits) == 4


@writes
@pytest.mark.parametrize("fault", [Fault.READ_ONLY, Fault.DISABLED])
def test_an_app_that_takes_no_writes_is_asked_once_and_nothing_changes(
    store: Store, operation: Operation, fault: Fault
) -> None:
    prepared(store, operation)
    store.server.faults.add(fault, path="/admin/transact", times=None)
    with pytest.raises(RepositoryUnavailableError) as caught:
        operation(store)
    assert (caught.value.retryable, caught.value.outcome) == (False, "failed")
    assert "INSTANT_API_URI" in str(caught.value)
    assert store.clock.waits == []
    assert state(store) == BEFORE[operation]


@pytest.mark.parametrize("operation", [create, transition], ids=["create", "transition"])
@pytest.mark.parametrize("after", [True, False], ids=["committed", "not-committed"])
def test_an_answer_that_comes_too_late_is_not_carried_out_twice(
    server: InstantServer, operation: Operation, after: bool
) -> None:
    store = Store(server, timeout_s=(10.0, 0.3))
    prepared(store, operation)
    gate = server.faults.hold(path="/admin/transact", after=after)
    operation(store)
    expected = state(store)
    assert expected == AFTER[operation]
    # The first attempt, held until now, arrives after the second one.
    gate.release()
    store.repository.close()
    others = store.again()
    assert others.repository.get(ID).rev == (1 if operation is transition else 0)
    assert state(store) == expected


def test_a_delayed_attempt_does_not_overwrite_what_came_after_it(server: InstantServer) -> None:
    store = Store(server, timeout_s=(10.0, 0.3))
    prepared(store, transition)
    gate = server.faults.hold(path="/admin/transact", contains=b"active")
    transition(store)
    store.repository.transition(ID, 1, {"status": "shutdown"})
    done = len(server.requests)
    gate.release()
    while len(server.requests) == done:
        store.repository.get(ID)
    assert state(store) == (["shutdown"], ["rev:0", "rev:1", "rev:2"])
    assert store.repository.get(ID).rev == 2


def test_a_slow_answer_is_waited_for(store: Store) -> None:
    store.server.faults.add(Fault.SLOW, path="/admin/transact", seconds=0.2)
    create(store)
    assert state(store) == AFTER[create]
    assert store.clock.waits == []


def test_a_rate_limit_s_own_pause_is_kept(store: Store) -> None:
    store.server.faults.add(Fault.RATE_LIMITED, path="/admin/transact", retry_after=7)
    create(store)
    assert store.clock.waits == [7.0]


def test_a_server_that_is_not_there_is_a_proven_failure(store: Store) -> None:
    gone = InstantServer()
    url = gone.url
    gone.close()
    from ekairos_sandbox.repository.instantdb import InstantClient, InstantSandboxRepository

    client = InstantClient(store.app.id, "t", base_url=url, clock=store.clock, environ={})
    with pytest.raises(RepositoryUnavailableError) as caught:
        InstantSandboxRepository(client).create(record())
    assert (caught.value.outcome, caught.value.retryable) == ("failed", True)
    assert len(store.clock.waits) == 4


def test_under_random_faults_every_transition_that_was_reported_is_there_once(
    server: InstantServer,
) -> None:
    store = Store(server)
    store.repository.create(record())
    lasting = (Fault.READ_ONLY, Fault.DISABLED, Fault.CREATION_DISABLED)
    rates: dict[Fault, float] = {
        fault: 0.04 for fault in Fault if fault not in (Fault.HOLD, Fault.SLOW, *lasting)
    }
    server.faults.random(7, rates)
    rev, uncertain = 0, 0
    for number in range(150):
        try:
            rev = store.repository.transition(ID, rev, {"shutdown_at": number}).rev
        except RepositoryUnavailableError as error:
            uncertain += error.outcome == "unknown"
            server.faults.clear()
            rev = store.repository.get(ID).rev
            server.faults.random(number, rates)
    server.faults.clear()
    assert store.repository.get(ID).rev == rev
    assert len(store.fences()) == rev + 1
    assert rev + uncertain >= 140
