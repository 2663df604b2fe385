"""Faults on demand, and what was done when they strike."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from servers.instantdb.client import NOTES, A, B, Client, connected
from servers.instantdb.faults import Fault
from servers.instantdb.server import InstantServer


@pytest.fixture
def client() -> Iterator[Client]:
    with connected(NOTES) as connection:
        yield connection


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"]


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault.TIMEOUT, 429, "timeout"),
        (Fault.RATE_LIMITED, 429, "rate-limited"),
        (Fault.DEADLOCK, 500, "sql-exception"),
        (Fault.SERIALIZATION, 500, "sql-exception"),
        (Fault.UNKNOWN, 500, "unknown"),
        (Fault.READ_ONLY, 400, "app-read-only"),
        (Fault.DISABLED, 400, "app-disabled"),
        (Fault.CREATION_DISABLED, 400, "app-creation-disabled"),
    ],
)
def test_fault_answers_with_its_type_once_and_nothing_is_done(
    client: Client, fault: Fault, status: int, kind: str
) -> None:
    client.server.faults.add(fault, path="/admin/transact")
    response = client.transact(["create", "notes", A, {"title": "x"}])
    assert error(response) == (status, kind)
    assert "retry-after" not in response.headers
    assert client.server.seen("/admin/transact")[0].fault is fault
    client.done(["create", "notes", A, {"title": "x"}])


def test_rate_limit_may_carry_a_hint(client: Client) -> None:
    client.server.faults.add(Fault.RATE_LIMITED, retry_after=7)
    assert client.ask("notes").json()["hint"]["retry-after"] == 7
    client.server.faults.add(Fault.RATE_LIMITED)
    assert client.ask("notes").json()["hint"] is None


def test_deadlock_is_named_in_the_message(client: Client) -> None:
    client.server.faults.add(Fault.DEADLOCK)
    assert client.ask("notes").json()["message"] == "SQL Exception: deadlock-detected"


@pytest.mark.parametrize("applied", [True, False])
def test_gateway_error_is_html_before_or_after_the_commit(client: Client, applied: bool) -> None:
    client.server.faults.add(Fault.BAD_GATEWAY, applied=applied)
    response = client.transact(["create", "notes", A, {"title": "x"}])
    assert (response.status_code, response.headers["content-type"]) == (502, "text/html")
    assert len(client.server.rows(client.app.id, "notes")) == int(applied)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("fault", "rows"), [(Fault.DROP_BEFORE, 0), (Fault.DROP_AFTER, 1)])
def test_dropped_connection_before_or_after_the_commit(
    client: Client, fault: Fault, rows: int, reset: bool
) -> None:
    client.server.faults.add(fault, reset=reset)
    with pytest.raises(requests.ConnectionError):
        client.transact(["create", "notes", A, {"title": "x"}])
    assert len(client.server.rows(client.app.id, "notes")) == rows
    assert client.server.requests[0].status == 0


def test_garbage_and_truncated_answers_come_after_the_commit(client: Client) -> None:
    client.server.faults.add(Fault.GARBAGE)
    response = client.transact(["create", "notes", A, {"title": "x"}])
    assert response.status_code == 200
    with pytest.raises(ValueError, match="Expecting"):
        response.json()
    client.server.faults.add(Fault.TRUNCATED)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.transact(["create", "notes", B, {"title": "y"}])
    assert client.titles() == ["x", "y"]


def test_slow_answer_outlasts_the_client_and_is_carried_out_nevertheless(client: Client) -> None:
    server = client.server
    server.faults.add(Fault.SLOW, seconds=0.3)
    body = {"steps": [["create", "notes", A, {"title": "x"}]]}
    with pytest.raises(requests.ReadTimeout):
        client.http.post(
            f"{server.url}/admin/transact", json=body, headers=client.headers, timeout=(5, 0.05)
        )
    deadline = time.monotonic() + 10
    while not server.rows(client.app.id, "notes"):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_closing_the_server_releases_slow_requests() -> None:
    started = time.monotonic()
    with InstantServer() as server:
        server.faults.add(Fault.SLOW, seconds=60)
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as raw:
            raw.sendall(b"GET /admin/schema HTTP/1.1\r\nhost: x\r\n\r\n")
            while not server.faults.struck:
                assert time.monotonic() < started + 10
                threading.Event().wait(0.01)
            server.close()
    assert time.monotonic() < started + 10


@pytest.mark.parametrize(("after", "rows"), [(False, 0), (True, 1)])
def test_held_request_waits_before_or_after_its_commit(
    client: Client, after: bool, rows: int
) -> None:
    gate = client.server.faults.hold(path="/admin/transact", after=after)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.transact, ["create", "notes", A, {"title": "x"}])
        gate.wait_reached()
        assert len(client.server.rows(client.app.id, "notes")) == rows
        assert not answer.done()
        gate.release()
        assert answer.result().status_code == 200
    assert client.titles() == ["x"]


def test_faults_can_be_aimed(client: Client) -> None:
    faults = client.server.faults
    faults.add(Fault.UNKNOWN, path="/admin/*", contains=b'"slug"', skip=1, times=2)
    slugs = [client.ask("notes", where={"slug": "x"}).status_code for _ in range(4)]
    assert slugs == [200, 500, 500, 200]
    assert client.ask("notes").status_code == 200
    faults.add(Fault.UNKNOWN, method="GET", times=None)
    assert client.ask("notes").status_code == 200
    faults.clear()
    assert client.get("/admin/schema")


def test_random_faults_repeat_with_their_seed(client: Client) -> None:
    def run() -> list[int]:
        client.server.faults.random(7, {Fault.UNKNOWN: 0.3, Fault.TIMEOUT: 0.3})
        return [client.ask("notes").status_code for _ in range(30)]

    first = run()
    assert set(first) == {200, 429, 500}
    assert run() == first


@pytest.mark.parametrize("by", ["app", "stage"])
def test_read_only_refuses_writes_and_disabled_everything(client: Client, by: str) -> None:
    server = client.server

    def switch(to: Any) -> None:
        if by == "app":
            server.set_status(client.app.id, to)
        else:
            server.set_stage(to)

    switch("read-only")
    assert client.refused(["update", "notes", A, {"title": "x"}])["type"] == "app-read-only"
    assert client.find("notes") == []
    switch("disabled")
    assert error(client.ask("notes")) == (400, "app-disabled")
