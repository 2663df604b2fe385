"""When the client sends a request again, and what it takes for an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.http_server import Server, send, serving
from helpers.instant import ID, FakeClock, Store, record
from servers.instantdb.faults import Fault
from servers.instantdb.server import InstantServer

from ekairos_sandbox.exceptions import RepositoryUnavailableError, SandboxError
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.repository.instantdb import (
    InstantClient,
    InstantSandboxRepository,
    push_rules,
    push_schema,
)

STEP = ["update", "sandbox_fences", ID, {"key": "k"}]
CALLS: dict[str, Callable[[InstantClient], object]] = {
    "query": lambda client: client.query({"sandbox_fences": {}}),
    "write": lambda client: client.transact([STEP]),
    "safe write": lambda client: client.transact([STEP], replay_safe=True),
    "schema": lambda client: client.schema(),
    "upload": lambda client: client.files.upload("a", b"a"),
}
SAFE = {"query": 5, "safe write": 5, "schema": 5, "upload": 5}
ALWAYS, IF_SAFE = {**SAFE, "write": 5}, {**SAFE, "write": 1}
NEVER = dict.fromkeys(ALWAYS, 1)

# The fault, whether its requests are carried out, how often each call is sent, and its outcome.
FAULTS: dict[str, tuple[Fault, bool, dict[str, int], str]] = {
    "429 timeout": (Fault.TIMEOUT, False, ALWAYS, "failed"),
    "429 rate-limited": (Fault.RATE_LIMITED, False, ALWAYS, "failed"),
    "500 deadlock-detected": (Fault.DEADLOCK, False, ALWAYS, "failed"),
    "500 serialization-failure": (Fault.SERIALIZATION, False, ALWAYS, "failed"),
    "500 unknown, not done": (Fault.UNKNOWN, False, IF_SAFE, "unknown"),
    "500 unknown, done": (Fault.UNKNOWN, True, IF_SAFE, "unknown"),
    "502": (Fault.BAD_GATEWAY, False, IF_SAFE, "unknown"),
    "503": (Fault.UNAVAILABLE, False, IF_SAFE, "unknown"),
    "connection lost, not done": (Fault.DROP_BEFORE, False, IF_SAFE, "unknown"),
    "connection lost, done": (Fault.DROP_AFTER, True, IF_SAFE, "unknown"),
    "400 app-read-only": (Fault.READ_ONLY, False, NEVER, "failed"),
    "400 app-disabled": (Fault.DISABLED, False, NEVER, "failed"),
}


def failure(call: Callable[[], object]) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_is_sent_again_only_if_that_is_proven_safe(
    store: Store, fault: str, call: str
) -> None:
    kind, applied, attempts, outcome = FAULTS[fault]
    store.server.faults.add(kind, applied=applied, times=None)
    store.server.clear_requests()
    error = failure(lambda: CALLS[call](store.client))
    assert len(store.server.requests) == attempts[call]
    assert error.outcome == outcome
    assert isinstance(error, RepositoryUnavailableError)


@pytest.mark.parametrize("call", CALLS)
def test_no_connection_is_a_reason_to_try_again(store: Store, call: str) -> None:
    client = InstantClient(ID, "t", base_url="http://127.0.0.1:1", clock=store.clock, environ={})
    error = failure(lambda: CALLS[call](client))
    assert (error.outcome, len(store.clock.waits)) == ("failed", 4)


@pytest.mark.parametrize("call", CALLS)
def test_silence_is_a_reason_to_try_again_only_if_that_is_safe(
    server: InstantServer, call: str
) -> None:
    store = Store(server, timeout_s=(5.0, 0.05))
    server.faults.add(Fault.SLOW, seconds=0.3, times=None)
    error = failure(lambda: CALLS[call](store.client))
    assert (error.outcome, len(store.clock.waits)) == ("unknown", IF_SAFE[call] - 1)
    server.faults.clear()
    store.repository.close()


@pytest.mark.parametrize("call", CALLS)
def test_what_the_server_refuses_is_not_sent_again(store: Store, call: str) -> None:
    stranger = InstantClient(ID, ID, base_url=store.server.url, clock=store.clock, environ={})
    error = failure(lambda: CALLS[call](stranger))
    assert (error.outcome, store.clock.waits) == ("failed", [])


# What is an answer

STRANGE: list[Any] = [
    {"status": "ok"},
    [],
    {"sandbox_fences": None, "sandbox_sandboxes": None},
    {"sandbox_fences": [{}], "sandbox_sandboxes": [{"status": "active"}]},
]


@pytest.fixture
def stranger() -> Iterator[Server]:
    """Something that answers 200 to everything, as the login page of a network does."""
    with serving() as server:
        yield server


@pytest.mark.parametrize("body", STRANGE, ids=str)
@pytest.mark.parametrize(
    "call",
    [
        lambda repository: repository.get(ID),
        lambda repository: repository.create(record()),
        lambda repository: repository.transition(ID, 0, {"status": "active"}),
        lambda repository: repository.list(RecordQuery()),
        lambda repository: repository.delete(ID),
        lambda repository: repository.check(),
        lambda repository: repository.purge_fences(),
        lambda repository: repository.client.files.upload("a", b"a"),
        lambda repository: push_schema(repository.client),
        lambda repository: push_rules(repository.client),
    ],
    ids=[
        "get", "create", "transition", "list", "delete", "check", "purge", "upload", "schema push",
        "rules push",
    ],
)  # fmt: skip
def test_what_something_else_answers_is_neither_found_nor_missing_nor_done(
    stranger: Server, body: Any, call: Callable[[InstantSandboxRepository], object]
) -> None:
    stranger.answer = lambda handler: send(handler, 200, json.dumps(body).encode())
    client = InstantClient(ID, ID, base_url=stranger.url, clock=FakeClock(), environ={})
    repository = InstantSandboxRepository(client)
    error = failure(lambda: call(repository))
    assert isinstance(error, RepositoryUnavailableError)
    assert error.outcome == "unknown"
    assert "not one of InstantDB" in str(error)
    repository.close()


def test_rules_that_cannot_be_read_are_not_replaced(stranger: Server) -> None:
    stranger.answer = lambda handler: send(handler, 200, b'{"rules": {"notes": {}}}')
    client = InstantClient(ID, ID, base_url=stranger.url, clock=FakeClock(), environ={})
    failure(lambda: push_rules(client))
    assert {line.split()[0] for line in stranger.lines} == {"GET"}
    client.close()
