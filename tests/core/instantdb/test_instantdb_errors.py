"""What the server's refusals become, and that neither token nor payload is in them."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from helpers.instant import ID, T0, Store, client_for, number_of, record
from servers.instantdb.faults import Fault
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    RepositoryError,
    RepositoryUnavailableError,
    SandboxError,
    SchemaError,
)
from ekairos_sandbox.http import HttpResponse
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.repository.instantdb import (
    InstantClient,
    InstantSandboxRepository,
    RefusedError,
    ServerBusyError,
)
from ekairos_sandbox.repository.instantdb.errors import error_of

PAYLOAD = "payload-0815-hidden"
WRONG_TOKEN = "0a1b2c3d-aaaa-4bbb-8ccc-0123456789ab"


def raised(call: Callable[[], object]) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        call()
    return caught.value


# Kinds


def test_a_wrong_token_names_the_variables(store: Store) -> None:
    client = InstantClient(
        store.app.id, WRONG_TOKEN, base_url=store.server.url, environ={}, clock=store.clock
    )
    calls: list[Callable[[], object]] = [
        lambda: InstantSandboxRepository(client).get(ID),
        lambda: InstantSandboxRepository(client).create(record()),
        lambda: client.schema(),
        lambda: client.rules(),
        lambda: client.files.upload("a", b"a"),
    ]
    for call in calls:
        error = raised(call)
        assert type(error) is ConfigurationError
        assert "the admin token is not that of the InstantDB app" in str(error)
        assert "INSTANT_APP_ADMIN_TOKEN" in str(error)
        assert WRONG_TOKEN not in str(error)
    assert store.clock.waits == []


def test_a_token_that_is_no_uuid_names_the_variable(store: Store) -> None:
    client = InstantClient(store.app.id, "not-a-uuid", base_url=store.server.url, environ={})
    error = raised(lambda: client.query({"sandbox_fences": {}}))
    assert type(error) is ConfigurationError
    assert "does not take the admin token" in str(error)


def test_the_token_of_another_app_is_refused(store: Store) -> None:
    other = store.server.create_app()
    client = InstantClient(store.app.id, other.admin_token, base_url=store.server.url, environ={})
    for call in (lambda: client.query({}), client.schema):
        assert type(raised(call)) is ConfigurationError


def test_an_app_without_the_schema_names_what_is_missing_and_what_to_run(
    server: InstantServer,
) -> None:
    store = Store(server, server.create_app())
    error = raised(lambda: store.repository.create(record()))
    assert type(error) is SchemaError
    assert "lacks" in str(error)
    for name in ("sandbox_fences.key", "sandbox_sandboxes.provider", "sandbox_sandboxes.params"):
        assert name in str(error)
    assert "ekairos-sandbox schema push" in str(error)
    assert server.rows(store.app.id, "sandbox_sandboxes") == []


@pytest.mark.parametrize("verb", ["get", "list", "transition"])
def test_an_app_without_the_schema_is_not_taken_for_an_empty_one(
    server: InstantServer, verb: str
) -> None:
    repository = Store(server, server.create_app()).repository
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: repository.get(ID),
        "list": lambda: repository.list(RecordQuery()),
        "transition": lambda: repository.transition(ID, 0, {"status": "active"}),
    }
    error = raised(calls[verb])
    assert type(error) is SchemaError
    assert "sandbox_fences.key is missing" in str(error)
    assert "ekairos-sandbox schema push" in str(error)


def test_an_app_without_records_is_empty(store: Store) -> None:
    assert store.repository.list(RecordQuery()).records == ()
    store.server.clear_requests()
    assert store.repository.list(RecordQuery(status=("active",))).records == ()
    assert store.requests() == ["/admin/query"]


def test_a_schema_without_fences_names_them(server: InstantServer) -> None:
    entities = {"sandbox_sandboxes": SANDBOX_SCHEMA["entities"]["sandbox_sandboxes"]}
    store = Store(server, server.create_app({"entities": entities, "links": {}, "rooms": {}}))
    error = raised(lambda: store.repository.create(record()))
    assert "lacks sandbox_fences.createdAt, sandbox_fences.id, sandbox_fences.key" in str(error)
    assert server.rows(store.app.id, "sandbox_sandboxes") == []


def test_a_value_of_another_type_names_the_attribute(store: Store) -> None:
    step = ["create", "sandbox_sandboxes", ID, {"provider": PAYLOAD, "status": 5, "createdAt": T0}]
    error = raised(lambda: store.client.transact([step]))
    assert type(error) is SchemaError
    assert "sandbox_sandboxes.status" in str(error)


def test_a_missing_required_value_names_the_attribute(store: Store) -> None:
    step = ["create", "sandbox_sandboxes", ID, {"provider": PAYLOAD, "createdAt": T0}]
    error = raised(lambda: store.client.transact([step]))
    assert type(error) is SchemaError
    assert "sandbox_sandboxes.status" in str(error)


def test_what_is_stored_refuses_a_write(store: Store) -> None:
    fence = {"key": PAYLOAD}
    store.client.transact([["create", "sandbox_fences", ID, fence]])
    same_id = raised(lambda: store.client.transact([["create", "sandbox_fences", ID, fence]]))
    assert isinstance(same_id, RefusedError)
    assert (same_id.reason, same_id.attribute) == ("state", None)
    other = number_of(2)
    same_key = raised(lambda: store.client.transact([["create", "sandbox_fences", other, fence]]))
    assert isinstance(same_key, RefusedError)
    assert (same_key.reason, same_key.attribute) == ("unique", "sandbox_fences.key")
    strict = ["update", "sandbox_fences", other, {"createdAt": 1}, {"upsert": False}]
    assert isinstance(raised(lambda: store.client.transact([strict])), RefusedError)


def test_a_value_too_large_for_its_index_is_said_to_be(store: Store) -> None:
    step = ["create", "sandbox_fences", ID, {"key": PAYLOAD * 100}]
    assert "larger than 1,024 bytes" in str(raised(lambda: store.client.transact([step])))


def test_a_query_that_is_not_valid_says_where(store: Store) -> None:
    error = raised(lambda: store.client.query({"sandbox_fences": {"$": {"limit": 0}}}))
    assert type(error) is SchemaError
    assert "sandbox_fences.$.limit" in str(error)


def test_steps_that_are_not_valid_say_where(store: Store) -> None:
    error = raised(lambda: store.client.transact([["create", "sandbox_fences", PAYLOAD, {}]]))
    assert type(error) is RepositoryError
    assert "steps" in str(error)
    assert "at 0.2" in str(error)


@pytest.mark.parametrize(
    ("status", "word"), [("read-only", "is read-only"), ("disabled", "is disabled")]
)
def test_an_app_in_maintenance_points_to_the_wind_down_and_the_setting(
    store: Store, status: Any, word: str
) -> None:
    store.server.set_status(store.app.id, status)
    error = raised(lambda: store.repository.create(record()))
    assert type(error) is RepositoryUnavailableError
    assert (error.retryable, error.outcome) == (False, "failed")
    for text in (word, "2027-08-31", "INSTANT_API_URI"):
        assert text in str(error)


def test_a_read_only_app_can_still_be_read(store: Store) -> None:
    store.repository.create(record())
    store.server.set_status(store.app.id, "read-only")
    assert store.repository.get(ID).id == ID


def test_a_rate_limit_keeps_what_the_server_asked_for(store: Store) -> None:
    store.server.faults.add(Fault.RATE_LIMITED, retry_after=3, times=None)
    error = raised(lambda: store.client.query({}))
    assert isinstance(error, ServerBusyError)
    assert (error.retry_after_s, error.retryable) == (3.0, True)
    assert pickle.loads(pickle.dumps(error)).retry_after_s == 3.0


@pytest.mark.parametrize(
    ("headers", "hint", "expected"),
    [
        ({"retry-after": "9"}, b"null", 9.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, b"null", 30.0),
        ({"retry-after": "9"}, b'{"retry-after": 2}', 2.0),
        ({}, b'{"retry-after": true}', None),
        ({}, b'{"retry-after": -1}', None),
        ({}, b'{"retry-after": 1' + b"0" * 400 + b"}", 1e9),
    ],
)
def test_a_pause_is_taken_from_the_hint_or_the_header(
    headers: dict[str, str], hint: bytes, expected: float | None
) -> None:
    body = b'{"type": "rate-limited", "hint": ' + hint + b"}"
    error = error_of(
        HttpResponse(429, headers, body), app_id=ID, base_url="https://s.example", now_ms=T0
    )
    assert isinstance(error, ServerBusyError)
    assert error.retry_after_s == expected


def test_the_trace_id_is_kept(store: Store) -> None:
    error = raised(lambda: store.client.query({"sandbox_fences": {"$": {"limit": 0}}}))
    assert " [trace " in error.message


@pytest.mark.parametrize(
    ("status", "body", "cls", "outcome", "text"),
    [
        (307, b"", ConfigurationError, "failed", "redirect"),
        (400, b"Malformed JSON", RepositoryError, "failed", "HTTP 400"),
        (401, b"", ConfigurationError, "failed", "INSTANT_APP_ADMIN_TOKEN"),
        (403, b"<html>", RepositoryError, "failed", "HTTP 403"),
        (404, b'{"message": "no route"}', ConfigurationError, "failed", "INSTANT_API_URI"),
        (407, b"", ConfigurationError, "failed", "proxy"),
        (408, b"", RepositoryUnavailableError, "unknown", "HTTP 408"),
        (413, b"", RepositoryError, "failed", "too large"),
        (429, b"<html>", ServerBusyError, "failed", "too many requests"),
        (500, b'{"type": "sql-exception"}', RepositoryUnavailableError, "unknown", "HTTP 500"),
        (502, b"<html>", RepositoryUnavailableError, "unknown", "HTTP 502"),
        (400, b'{"type": "sql-raise", "hint": []}', RepositoryError, "failed", "HTTP 400"),
        (400, b'{"type": 5, "hint": {"errors": 7}}', RepositoryError, "failed", "HTTP 400"),
        (400, b"[" * 100_000, RepositoryError, "failed", "HTTP 400"),
    ],
)
def test_an_answer_without_a_known_type_goes_by_its_status(
    status: int, body: bytes, cls: type, outcome: str, text: str
) -> None:
    error = error_of(
        HttpResponse(status, {}, body), app_id=ID, base_url="https://s.example", now_ms=T0
    )
    assert (type(error), error.outcome) == (cls, outcome)
    assert text in str(error)


@pytest.mark.parametrize("kind", ["validation-failed", "record-not-found", "record-not-unique"])
@pytest.mark.parametrize(
    "hint",
    [
        "[]",
        '"x"',
        '{"errors": [5, {"hint": 7, "in": [[], {}], "expected": []}]}',
        "{}",
        '{"errors": [{"hint": {"attributes": 3}}]}',
    ],
)
def test_a_hint_of_any_shape_is_an_ordinary_error(kind: str, hint: str) -> None:
    body = f'{{"type": "{kind}", "message": null, "hint": {hint}, "trace-id": 5}}'.encode()
    error = error_of(
        HttpResponse(400, {}, body), app_id=ID, base_url="https://s.example", now_ms=T0
    )
    assert isinstance(error, SandboxError)
    assert error.outcome == "failed"


# Secrecy


def everything(error: BaseException) -> str:
    """Return all that anybody could print of an exception."""
    parts: list[str] = []
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        parts += traceback.format_exception(current)
        parts += [repr(current), str(current), repr(current.args), repr(vars(current))]
        waiting += [current.__cause__, current.__context__]
    return "\n".join(parts)


FAULTS = [fault for fault in Fault if fault not in (Fault.HOLD, Fault.SLOW)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
def test_under_every_fault_neither_token_nor_payload_is_shown(
    store: Store, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = store.repository.create(record())
    store.server.faults.add(fault, path="/admin/*", times=None)
    changes: Any = {"params": {**(made.params or {}), "mine": PAYLOAD}}
    text = ""
    for call in (
        lambda: store.repository.create(record(number_of(1), params={"mine": PAYLOAD})),
        lambda: store.repository.transition(ID, 0, changes),
        lambda: store.repository.get(ID),
        lambda: store.client.files.upload("path", PAYLOAD.encode()),
        lambda: store.repository.purge_fences(),
    ):
        text += everything(raised(call))
    text += "\n".join(str(vars(entry)) + entry.getMessage() for entry in caplog.records)
    assert store.app.admin_token not in text
    assert PAYLOAD not in text


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
def test_no_variable_that_a_traceback_can_show_holds_the_token(store: Store, fault: Fault) -> None:
    store.server.faults.add(fault, times=None)
    for call in (
        lambda: store.repository.create(record()),
        lambda: store.repository.get(ID),
        lambda: store.client.files.upload("path", b"x"),
        lambda: store.repository.check(),
    ):
        seen = traceback.TracebackException.from_exception(raised(call), capture_locals=True)
        ours = [frame.locals for frame in seen.stack if "/tests/" not in frame.filename]
        assert ours
        assert store.app.admin_token not in repr(ours)


def test_refusals_that_echo_the_request_do_not_show_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store.client.transact([["create", "sandbox_fences", ID, {"key": PAYLOAD}]])
    wrong = client_for(store.server, store.app)
    stranger = InstantClient(store.app.id, WRONG_TOKEN, base_url=store.server.url, environ={})
    malformed = InstantClient(store.app.id, PAYLOAD, base_url=store.server.url, environ={})
    base = {"provider": PAYLOAD, "status": "active", "createdAt": T0}
    text = ""
    for call in (
        lambda: wrong.transact([["create", "sandbox_fences", number_of(1), {"key": PAYLOAD}]]),
        lambda: wrong.transact([["create", "sandbox_fences", PAYLOAD, {"key": "k"}]]),
        lambda: wrong.transact(
            [["create", "sandbox_sandboxes", ID, {**base, "status": [PAYLOAD]}]]
        ),
        lambda: wrong.transact(
            [["create", "sandbox_sandboxes", ID, {**base, "createdAt": PAYLOAD}]]
        ),
        lambda: wrong.transact([["create", "sandbox_sandboxes", ID, {"status": PAYLOAD}]]),
        lambda: wrong.transact([["create", "sandbox_fences", ID, {"key": PAYLOAD * 100}]]),
        lambda: wrong.transact([["nonsense", PAYLOAD]]),
        lambda: wrong.query({"sandbox_sandboxes": {"$": {"where": {"createdAt": PAYLOAD}}}}),
        lambda: wrong.query({"sandbox_sandboxes": {"$": {"where": {"params": {"$gt": PAYLOAD}}}}}),
        lambda: wrong.query({"sandbox_sandboxes": {"$": PAYLOAD}}),
        lambda: stranger.query({"a": {}}),
        lambda: stranger.schema(),
        lambda: malformed.transact([]),
        lambda: malformed.schema(),
        lambda: wrong.transact([["create", "x", ID, {"a": PAYLOAD, "b": float("nan")}]]),
        lambda: wrong.transact([["create", "x", ID, {"a": PAYLOAD + "\ud800"}]]),
    ):
        text += everything(raised(call))
    text += "\n".join(str(vars(entry)) + entry.getMessage() for entry in caplog.records)
    for secret in (store.app.admin_token, WRONG_TOKEN, "payload-0815"):
        assert secret not in text
