"""Every fault of the server at every operation of the store: what is reported, and what is true.

A cell has three letters: what an operation reports when the fault strikes its first request, every
request, and every write. ``o``: it is done. ``f``: it failed, nothing was changed. ``u``: unknown,
it may be done. Whatever is reported, the store then holds the change once or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.instant import ID, Store, record
from servers.instantdb.faults import Fault
from servers.instantdb.server import InstantServer

from ekairos_sandbox.exceptions import RepositoryError
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.repository.instantdb import InstantSandboxRepository

TABLE = """
fault             | create | change | read+change | get | list | delete | purge | check
429 timeout       | off    | off    | off         | ofo | ofo  | off    | off   | ofo
429 rate-limited  | off    | off    | off         | ofo | ofo  | off    | off   | ofo
500 deadlock      | off    | off    | off         | ofo | ofo  | off    | off   | ofo
500 serialization | off    | off    | off         | ofo | ofo  | off    | off   | ofo
500, not done     | ouu    | ouu    | ouu         | ouo | ouo  | ouu    | ouu   | ouo
500, done         | ouo    | ouo    | ouo         | ouo | ouo  | ouu    | ouu   | ouo
502, not done     | ouu    | ouu    | ouu         | ouo | ouo  | ouu    | ouu   | ouo
502, done         | ouo    | ouo    | ouo         | ouo | ouo  | ouu    | ouu   | ouo
503, not done     | ouu    | ouu    | ouu         | ouo | ouo  | ouu    | ouu   | ouo
503, done         | ouo    | ouo    | ouo         | ouo | ouo  | ouu    | ouu   | ouo
dropped, not done | ouu    | ouu    | ouu         | ouo | ouo  | ouu    | ouu   | ouo
dropped, done     | ouo    | ouo    | ouo         | ouo | ouo  | ouu    | ouu   | ouo
no JSON, done     | ouo    | ouo    | ouo         | ouo | ouo  | ouu    | ouu   | ouo
cut off, done     | ouo    | ouo    | ouo         | ouo | ouo  | ouu    | ouu   | ouo
late              | ooo    | ooo    | ooo         | ooo | ooo  | ooo    | ooo   | ooo
read-only         | fff    | fff    | fff         | ffo | ffo  | fff    | fff   | ffo
disabled          | fff    | fff    | fff         | ffo | ffo  | fff    | fff   | ffo
no new apps       | fff    | fff    | fff         | ffo | ffo  | fff    | fff   | ffo
"""

Operation = Callable[[Store], object]


def read_and_transition(store: Store) -> None:
    InstantSandboxRepository(store.client).transition(ID, 0, {"status": "active"})


OPERATIONS: dict[str, Operation] = {
    "create": lambda store: store.repository.create(record()),
    "change": lambda store: store.repository.transition(ID, 0, {"status": "active"}),
    "read+change": read_and_transition,
    "get": lambda store: store.repository.get(ID),
    "list": lambda store: list(store.repository.iterate(RecordQuery(limit=1))),
    "delete": lambda store: store.repository.delete(ID),
    "purge": lambda store: store.repository.purge_fences(older_than_s=-1),
    "check": lambda store: store.repository.check(),
}
State = tuple[list[str], list[str]]
CREATED: State = (["creating"], ["rev:0"])
NOTHING: State = ([], [])
CHANGED: State = (["active"], ["rev:0", "rev:1"])
STATES: dict[str, tuple[State, State]] = {
    # Statuses and fences before and after.
    "create": (NOTHING, CREATED),
    "change": (CREATED, CHANGED),
    "read+change": (CREATED, CHANGED),
    "get": (CREATED, CREATED),
    "list": (CREATED, CREATED),
    "delete": (CREATED, NOTHING),
    "purge": (CREATED, (["creating"], [])),
    "check": (CREATED, CREATED),
}
FAULTS: dict[str, tuple[Fault, bool]] = {
    "429 timeout": (Fault.TIMEOUT, False),
    "429 rate-limited": (Fault.RATE_LIMITED, False),
    "500 deadlock": (Fault.DEADLOCK, False),
    "500 serialization": (Fault.SERIALIZATION, False),
    "500, not done": (Fault.UNKNOWN, False),
    "500, done": (Fault.UNKNOWN, True),
    "502, not done": (Fault.BAD_GATEWAY, False),
    "502, done": (Fault.BAD_GATEWAY, True),
    "503, not done": (Fault.UNAVAILABLE, False),
    "503, done": (Fault.UNAVAILABLE, True),
    "dropped, not done": (Fault.DROP_BEFORE, False),
    "dropped, done": (Fault.DROP_AFTER, True),
    "no JSON, done": (Fault.GARBAGE, True),
    "cut off, done": (Fault.TRUNCATED, True),
    "late": (Fault.SLOW, True),
    "read-only": (Fault.READ_ONLY, False),
    "disabled": (Fault.DISABLED, False),
    "no new apps": (Fault.CREATION_DISABLED, False),
}


def state(store: Store) -> State:
    return [row["status"] for row in store.rows()], store.fences()


def prepared(server: InstantServer, operation: str, **options: Any) -> Store:
    store = Store(server, **options)
    if operation != "create":
        store.repository.create(record())
    store.clock.advance(10)
    assert state(store) == STATES[operation][0]
    return store


def reported(store: Store, operation: str) -> str:
    """Carry out an operation; return what it reports, having seen that it is true."""
    before, after = STATES[operation]
    possible = {"ok": [after], "failed": [before], "unknown": [before, after]}
    outcome = "ok"
    try:
        OPERATIONS[operation](store)
    except RepositoryError as error:
        outcome = error.outcome
    store.server.faults.clear()
    store.repository.close()
    assert state(store) in possible[outcome]
    return outcome


def cell(server: InstantServer, fault: str, operation: str) -> str:
    kind, applied = FAULTS[fault]
    letters = ""
    for times, path in ((1, None), (None, None), (None, "/admin/transact")):
        store = prepared(server, operation)
        server.faults.add(kind, times=times, path=path, applied=applied, seconds=0.01)
        letters += reported(store, operation)[0]
    return letters


@pytest.mark.parametrize("line", TABLE.strip().splitlines()[1:], ids=list(FAULTS))
def test_what_is_reported_is_true_and_as_precise_as_it_can_be(
    server: InstantServer, line: str
) -> None:
    fault, *cells = (word.strip() for word in line.split("|"))
    found = [cell(server, fault, operation) for operation in OPERATIONS]
    assert found == cells


def test_the_table_has_every_fault_and_every_operation() -> None:
    head, *lines = (
        [word.strip() for word in line.split("|")] for line in TABLE.strip().splitlines()
    )
    assert head == ["fault", *OPERATIONS]
    assert [line[0] for line in lines] == list(FAULTS)
    # A request that is held is the subject of tests of its own, as it needs a client that gives up.
    assert {fault for fault, _ in FAULTS.values()} == set(Fault) - {Fault.HOLD}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_request_that_is_held_until_the_client_gave_up_changes_nothing_more(
    server: InstantServer, operation: str, after: bool
) -> None:
    store = prepared(server, operation, timeout_s=(10.0, 0.2))
    gate = server.faults.hold(after=after)
    done = len(server.requests)
    assert reported(store, operation) == "ok"
    gate.release()
    while not any(seen.fault is Fault.HOLD for seen in server.requests[done:]):
        store.client.query({"sandbox_fences": {}})
    assert state(store) == STATES[operation][1]
    store.repository.close()
