"""Headers, authentication and parameters of the loopback InstantDB server, and its own runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.instantdb.client import NOTES, A, B, C, Client, connected
from servers.instantdb.server import InstantServer

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def client() -> Iterator[Client]:
    with connected(NOTES) as connection:
        yield connection


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"]


# Headers, authentication, parameters


def test_unknown_route_is_404_with_a_message(client: Client) -> None:
    response = client.post("/admin/nothing", {})
    assert response.status_code == 404
    assert list(response.json()) == ["message"]


def test_missing_app_id_names_the_header(client: Client) -> None:
    del client.headers["app-id"]
    response = client.post("/admin/query", {"query": {}})
    assert error(response) == (400, "param-missing")
    body = response.json()
    assert body["message"] == 'Missing parameter: ["headers" "app-id"]'
    assert body["hint"]["in"] == ["headers", "app-id"]
    assert ["params", "app_id"] in body["hint"]["possible-ins"]


def test_app_id_is_accepted_as_a_query_parameter(client: Client) -> None:
    app_id = client.headers.pop("app-id")
    response = client.post(f"/admin/query?app_id={app_id}", {"query": {}})
    assert response.status_code == 200


def test_malformed_token_is_echoed_with_the_whole_header(client: Client) -> None:
    client.headers["authorization"] = "Bearer not-a-uuid"
    response = client.post("/admin/query", {"query": {}})
    assert error(response) == (400, "param-malformed")
    assert response.json()["hint"]["original-input"] == "Bearer not-a-uuid"


def test_missing_authorization_is_a_missing_parameter(client: Client) -> None:
    del client.headers["authorization"]
    response = client.post("/admin/query", {"query": {}})
    assert error(response) == (400, "param-missing")
    assert response.json()["message"] == 'Missing parameter: ["headers" "authorization"]'


def test_wrong_token_is_400_and_comes_back_in_the_hint(client: Client) -> None:
    client.headers["authorization"] = f"Bearer {A}"
    response = client.post("/admin/query", {"query": {}})
    assert error(response) == (400, "record-not-found")
    hint = response.json()["hint"]
    assert hint["record-type"] == "app-admin-token"
    assert hint["args"] == [{"app-id": client.app.id, "token": A}]


def test_token_of_another_app_is_not_accepted(client: Client) -> None:
    client.headers["authorization"] = f"Bearer {client.server.create_app().admin_token}"
    response = client.post("/admin/transact", {"steps": []})
    assert error(response) == (400, "record-not-found")


def test_missing_query_is_reported_before_a_bad_token(client: Client) -> None:
    client.headers["authorization"] = f"Bearer {A}"
    response = client.post("/admin/query", {})
    assert error(response) == (400, "param-missing")
    assert response.json()["message"] == 'Missing parameter: ["body" "query"]'


def test_body_without_json_content_type_is_not_parsed(client: Client) -> None:
    url = f"{client.server.url}/admin/transact"
    response = client.http.post(url, data=b'{"steps": []}', headers=client.headers, timeout=30)
    assert error(response) == (400, "param-missing")
    assert response.json()["hint"]["in"] == ["body", "steps"]


@pytest.mark.parametrize("text", ["{", '{"query": {"a": NaN}}', "\xff"])
def test_bad_json_is_400_in_plain_text(client: Client, text: str) -> None:
    headers = {**client.headers, "content-type": "application/json"}
    url = f"{client.server.url}/admin/query"
    response = client.http.post(url, data=text.encode("latin-1"), headers=headers, timeout=30)
    assert response.status_code == 400
    assert response.headers["content-type"] == "text/plain"


def test_success_is_json_in_utf8_on_one_kept_connection(client: Client) -> None:
    first = client.post("/admin/query", {"query": {}})
    client.post("/admin/query", {"query": {}})
    assert first.headers["content-type"] == "application/json; charset=utf-8"
    assert len({seen.client_port for seen in client.server.requests}) == 1


def test_requests_are_recorded_with_their_bytes(client: Client) -> None:
    client.post("/admin/query", {"query": {}})
    [seen] = client.server.seen("/admin/query")
    assert (seen.method, seen.status, seen.body) == ("POST", 200, b'{"query": {}}')
    assert seen.headers["app-id"] == client.app.id
    assert client.server.counts() == {"POST /admin/query": 1}


# Anything at all

TEXTS = st.sampled_from(
    "notes tags title rank data slug id due loose $ where order limit fields and or $in $gt $like"
    f" $isNull $ne asc create update merge delete link add-attr lookup__slug__1 x {A} {B}".split()
)
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | TEXTS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
IDS = st.sampled_from([A, B, C]) | ANYTHING
STEPS = st.lists(
    ANYTHING
    | st.tuples(st.sampled_from(["add-attr", "update-attr", "delete-attr"]), ANYTHING)
    | st.tuples(
        st.sampled_from(["create", "update", "merge", "delete", "link", "unlink", "ruleParams"]),
        st.sampled_from(["notes", "tags", "new", "$files", "$users"]),
        IDS,
        st.dictionaries(TEXTS, ANYTHING, max_size=3),
    ),
    max_size=4,
)
QUERIES = st.dictionaries(
    TEXTS,
    ANYTHING
    | st.fixed_dictionaries(
        {"$": ANYTHING | st.fixed_dictionaries({"where": st.dictionaries(TEXTS, ANYTHING)})}
    ),
    max_size=2,
)


def test_no_body_makes_the_server_fail() -> None:
    with InstantServer() as server:
        app = server.create_app(NOTES)
        client = Client(server, app)

        @settings(max_examples=150, deadline=None, derandomize=True, database=None)
        @given(steps=STEPS, query=QUERIES, strict=st.booleans())
        def check(steps: Any, query: Any, strict: bool) -> None:
            written = client.post(
                "/admin/transact", {"steps": steps, "throw-on-missing-attrs?": strict}
            )
            assert written.status_code in (200, 400), server.internal_errors
            read = client.post("/admin/query", {"query": query})
            assert read.status_code in (200, 400), server.internal_errors

        try:
            check()
        finally:
            client.close()


# By hand


def test_server_runs_by_hand_until_stdin_closes() -> None:
    command = [sys.executable, "-m", "servers.instantdb", "--schema", "sandbox"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    ) as process:
        assert process.stdout is not None
        hello = json.loads(process.stdout.readline())
        assert set(hello) == {"url", "app_id", "admin_token"}
        headers = {
            "app-id": hello["app_id"],
            "authorization": f"Bearer {hello['admin_token']}",
        }
        answer = requests.get(f"{hello['url']}/admin/schema", headers=headers, timeout=30).json()
        assert "sandbox_sandboxes" in answer["schema"]["blobs"]
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_server_stops_on_a_termination_signal() -> None:
    command = [sys.executable, "-m", "servers.instantdb"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_recording_can_be_switched_off_and_counts_go_on(client: Client) -> None:
    client.server.recording = False
    client.post("/admin/query", {"query": {}})
    assert client.server.requests == []
    assert client.server.counts() == {"POST /admin/query": 1}
