"""Schema pushes and their jobs, rules, temporary apps, files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from servers.instantdb.client import NOTES, A, B, Client, D, connected, ranked_notes
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import App, InstantServer


@pytest.fixture
def client() -> Iterator[Client]:
    with connected(NOTES) as connection:
        yield connection


@pytest.fixture
def ranked() -> Iterator[Client]:
    with ranked_notes() as connection:
        yield connection


@pytest.fixture
def server() -> Iterator[InstantServer]:
    with InstantServer() as running:
        yield running


@pytest.fixture
def bare() -> Iterator[Client]:
    with connected(None) as connection:
        yield connection


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"]


# Schema, rules, apps


def test_schema_lists_attributes_with_their_flags_and_system_namespaces(client: Client) -> None:
    schema = client.get("/admin/schema")["schema"]
    slug = schema["blobs"]["notes"]["slug"]
    assert slug["value-type"] == "blob"
    assert slug["forward-identity"][1:] == ["notes", "slug"]
    assert (slug["unique?"], slug["index?"], slug["required?"]) == (True, True, False)
    assert (slug["checked-data-type"], slug["catalog"]) == ("string", "user")
    assert schema["blobs"]["notes"]["data"]["checked-data-type"] is None
    assert {"$users", "$files", "$streams"} <= set(schema["blobs"])
    assert list(schema["refs"]) == ['["notes" "tags" "tags" "notes"]']


def test_plan_changes_nothing_and_apply_needs_no_jobs_for_new_attributes(
    bare: Client,
) -> None:
    client = bare
    planned = client.push(SANDBOX_SCHEMA, "plan")
    assert len(planned["steps"]) == 2 + 15
    assert {kind for kind, _ in planned["steps"]} == {"add-attr"}
    assert "sandbox_sandboxes" not in client.get("/admin/schema")["schema"]["blobs"]
    applied = client.push(SANDBOX_SCHEMA)
    assert applied["indexing-jobs"] is None
    assert client.push(SANDBOX_SCHEMA, "plan")["steps"] == []
    blobs = client.get(f"/superadmin/apps/{client.app.id}/schema")["schema"]["blobs"]
    assert len(blobs["sandbox_sandboxes"]) == 14


def _notes_with(**attrs: Any) -> Any:
    return {"entities": {"notes": {"attrs": attrs}}}


def test_changes_of_existing_attributes_are_jobs_to_poll(ranked: Client) -> None:
    ranked.server.job_polls = 2
    document = _notes_with(plain={"valueType": "number", "config": {"indexed": True}})
    applied = ranked.push(document)
    assert [kind for kind, _ in applied["steps"]] == ["index"]
    group = applied["indexing-jobs"]["group-id"]
    assert applied["steps"][0][1]["job-id"] == applied["indexing-jobs"]["jobs"][0]["id"]
    body = ranked.bad_query("notes", where={"plain": {"$gt": 1}})
    assert "still in the process of indexing" in body["message"]
    ranked.bad_query("notes", order={"plain": "asc"})
    path = f"/dash/apps/{ranked.app.id}/indexing-jobs/group/{group}"
    polled = [ranked.get(path)["jobs"][0]["job_status"] for _ in range(4)]
    assert polled == ["processing", "processing", "completed", "completed"]
    assert ranked.titles(where={"plain": {"$gt": 1}}) == ["a"]
    assert ranked.find("notes", where={"title": "d"}, fields=["plain"]) == [
        {"id": D, "plain": None}
    ]


@pytest.mark.parametrize(
    ("attr", "problem"),
    [
        ({"plain": {"valueType": "string", "config": {}}}, "invalid-triple-error"),
        ({"data": {"valueType": "json", "required": True}}, "missing-required-error"),
        ({"data": {"valueType": "json", "config": {"unique": True}}}, "triple-not-unique-error"),
        ({"data": {"valueType": "json", "config": {"indexed": True}}}, "triple-too-large-error"),
    ],
)
def test_jobs_end_in_an_error_when_the_data_does_not_fit(
    ranked: Client, attr: Any, problem: str
) -> None:
    ranked.done(*(["update", "notes", eid, {"data": "x" * 2000}] for eid in (A, B)))
    jobs = ranked.push(_notes_with(**attr))["indexing-jobs"]
    path = f"/dash/apps/{ranked.app.id}/indexing-jobs/group/{jobs['group-id']}"
    [job] = ranked.get(path)["jobs"]
    assert (job["job_status"], job["error"]) == ("errored", problem)


def test_required_attribute_can_not_be_added_where_rows_exist(ranked: Client) -> None:
    body = {
        "schema": _notes_with(owner={"valueType": "string", "required": True}),
        "check_types": True,
        "supports_background_updates": True,
    }
    response = ranked.post(f"/superadmin/apps/{ranked.app.id}/schema/push/apply", body)
    assert error(response) == (400, "validation-failed")
    assert "owner" not in ranked.get("/admin/schema")["schema"]["blobs"]["notes"]


def test_push_without_background_updates_changes_flags_at_once(ranked: Client) -> None:
    document = _notes_with(plain={"valueType": "number", "config": {"indexed": True}})
    applied = ranked.push(document, background=False)
    assert [kind for kind, _ in applied["steps"]] == ["update-attr"]
    assert ranked.titles(where={"plain": {"$gt": 1}}) == ["a"]


def test_schema_routes_tell_unknown_tokens_from_those_of_other_apps(client: Client) -> None:
    server = client.server
    path = f"{server.url}/superadmin/apps/{client.app.id}/schema"
    unknown = client.http.get(path, headers={"authorization": f"Bearer {A}"}, timeout=30)
    assert error(unknown) == (401, "record-not-found")
    assert unknown.json()["hint"]["record-type"] == "instant-user"
    other = {"authorization": f"Bearer {server.create_app().admin_token}"}
    mismatch = client.http.get(path, headers=other, timeout=30)
    assert error(mismatch) == (400, "validation-failed")
    assert mismatch.json()["hint"]["reason"] == "admin-token-mismatch"


def test_guests_may_do_everything_until_rules_are_pushed(ranked: Client) -> None:
    guest = {"as-guest": "true"}
    del ranked.headers["authorization"]
    query: Any = {"query": {"notes": {}}}
    assert len(ranked.post("/admin/query", query, acting=guest).json()["notes"]) == 4
    ranked.headers["authorization"] = f"Bearer {ranked.app.admin_token}"
    path = f"/superadmin/apps/{ranked.app.id}/perms"
    code = {"notes": {"allow": {"$default": "false"}}}
    answer = ranked.post(path, {"code": code})
    assert answer.json()["rules"]["code"] == code
    assert ranked.get(path) == {"perms": code}
    assert ranked.post("/admin/query", query, acting=guest).json() == {"notes": []}
    response = ranked.transact(["update", "notes", A, {"rank": 0}], acting=guest)
    assert error(response) == (400, "permission-denied")
    assert response.json()["hint"] == {"input": ["notes", "object"], "expected": "perms-pass?"}
    assert ranked.transact(["create", "tags", A, {"name": "t"}], acting=guest).status_code == 200
    assert len(ranked.find("notes")) == 4


def test_global_default_closes_every_namespace_and_new_attributes(client: Client) -> None:
    code = {
        "$default": {"allow": {"$default": "false"}},
        "attrs": {"allow": {"create": "false"}},
    }
    client.post(f"/superadmin/apps/{client.app.id}/perms", {"code": code})
    denied = client.transact(["create", "tags", A, {"name": "t"}], acting={"as-guest": "true"})
    assert error(denied) == (400, "permission-denied")
    fresh = client.transact(
        ["update", "fresh", A, {"x": 1}], strict=False, acting={"as-guest": "true"}
    )
    assert error(fresh) == (400, "permission-denied")


def test_users_are_impersonated_by_email_and_by_token(client: Client) -> None:
    unknown = client.post(
        "/admin/query", {"query": {"notes": {}}}, acting={"as-email": "a@example.com"}
    )
    assert error(unknown) == (400, "record-not-found")
    made = client.post("/admin/refresh_tokens", {"email": "a@example.com"}).json()["user"]
    code = {"notes": {"allow": {"create": "auth.id != null", "view": "auth.id != null"}}}
    client.post(f"/superadmin/apps/{client.app.id}/perms", {"code": code})
    step = ["create", "notes", A, {"title": "x"}]
    assert client.transact(step, acting={"as-guest": "true"}).status_code == 400
    assert client.transact(step, acting={"as-email": "a@example.com"}).status_code == 200
    del client.headers["authorization"]
    seen = client.post(
        "/admin/query", {"query": {"notes": {}}}, acting={"as-token": made["refresh_token"]}
    )
    assert len(seen.json()["notes"]) == 1


def test_temporary_app_needs_no_token_and_gets_schema_and_rules(server: InstantServer) -> None:
    code = {"notes": {"allow": {"$default": "false"}}}
    body = {"title": "t", "schema": NOTES, "rules": {"code": code}}
    url = f"{server.url}/dash/apps/ephemeral"
    answer = requests.post(url, json=body, timeout=30).json()
    assert answer["expires_ms"] > time.time() * 1000 + 13 * 24 * 3600 * 1000
    app = App(answer["app"]["id"], answer["app"]["admin-token"])
    client = Client(server, app)
    try:
        client.done(["create", "notes", A, {"title": "x"}])
        assert server.rules(app.id) == code
        again = requests.get(f"{url}/{app.id}", timeout=30).json()
        assert again["app"]["id"] == app.id
        change = {"admin-token": app.admin_token, "status": "read-only"}
        assert requests.post(f"{url}/{app.id}/status", json=change, timeout=30).status_code == 200
        assert client.refused(["delete", "notes", A])["type"] == "app-read-only"
    finally:
        client.close()


def test_temporary_apps_can_be_switched_off(server: InstantServer) -> None:
    url = f"{server.url}/dash/apps/ephemeral"
    server.apps.ephemeral_enabled = False
    response = requests.post(url, json={"title": "t"}, timeout=30)
    assert error(response) == (400, "permission-denied")
    server.set_stage("read-only")
    response = requests.post(url, json={"title": "t"}, timeout=30)
    assert error(response) == (400, "app-creation-disabled")


# Files


def _upload(client: Client, path: str, data: Any, **headers: str) -> Any:
    merged = {**client.headers, "path": path, **headers}
    url = f"{client.server.url}/admin/storage/upload"
    response = client.http.put(url, data=data, headers=merged, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()["data"]


def test_uploaded_file_is_listed_and_downloaded_without_headers(client: Client) -> None:
    made = _upload(client, "dir/a.txt", b"hello")
    assert set(made) == {"id", "location-id", "size"}
    [row] = client.find("$files")
    assert (row["id"], row["path"], row["size"]) == (made["id"], "dir/a.txt", 5)
    assert row["content-type"] == "application/octet-stream"
    assert row["content-disposition"] == "inline"
    assert requests.get(row["url"], timeout=30).content == b"hello"
    assert requests.get(row["url"][:-1] + "x", timeout=30).status_code == 403


def test_same_path_overwrites_with_the_same_id_and_a_new_address(client: Client) -> None:
    first = _upload(client, "a", b"1")
    [before] = client.find("$files", fields=["url"])
    second = _upload(client, "a", iter([b"2", b"22"]), **{"content-type": "text/plain"})
    assert (second["id"], second["size"]) == (first["id"], 3)
    assert second["location-id"] != first["location-id"]
    [after] = client.find("$files", fields=["url", "content-type"])
    assert after["content-type"] == "text/plain"
    assert requests.get(after["url"], timeout=30).content == b"222"
    assert requests.get(before["url"], timeout=30).status_code == 404


def test_files_are_deleted_by_name_by_list_and_in_a_transaction(client: Client) -> None:
    ids = [_upload(client, name, b"x")["id"] for name in ("a", "b", "c", "d")]
    url = f"{client.server.url}/admin/storage/files"
    one = client.http.delete(url, params={"filename": "a"}, headers=client.headers, timeout=30)
    assert one.json() == {"data": {"id": ids[0]}}
    many = client.post("/admin/storage/files/delete", {"filenames": ["b", "nothing"]})
    assert many.json() == {"data": {"ids": [ids[1]]}}
    client.done(["delete", "$files", ["path", "c"], None])
    assert [row["path"] for row in client.find("$files")] == ["d"]


def test_only_the_path_of_a_file_can_be_changed_in_a_transaction(client: Client) -> None:
    made = _upload(client, "a", b"x")
    client.done(["update", "$files", made["id"], {"path": "b"}])
    assert client.refused(["update", "$files", made["id"], {"size": 3}])["hint"]
    assert [row["path"] for row in client.find("$files")] == ["b"]


def test_guests_have_no_files_unless_a_rule_allows(client: Client) -> None:
    _upload(client, "a", b"x")
    query: Any = {"query": {"$files": {}}}
    assert client.post("/admin/query", query, acting={"as-guest": "true"}).json() == {"$files": []}
    url = f"{client.server.url}/admin/storage/upload"
    headers = {**client.headers, "path": "b", "as-guest": "true"}
    response = client.http.put(url, data=b"x", headers=headers, timeout=30)
    assert error(response) == (400, "permission-denied")


def test_upload_without_a_path_is_refused(client: Client) -> None:
    url = f"{client.server.url}/admin/storage/upload"
    response = client.http.put(url, data=b"x", headers=client.headers, timeout=30)
    assert error(response) == (400, "param-missing")
