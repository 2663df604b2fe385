"""The official clients of InstantDB at work on the loopback server.

What they make of its answers shows that the answers are right; what they send shows what a client
is expected to send.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from oracles import oracle_env
from servers.http import Request
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import App, InstantServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(420)]

VERSION = "1.0.67"
A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"
C = "33333333-3333-4333-8333-333333333333"


@dataclass(frozen=True)
class Run:
    """What a script printed, and what the server saw of it."""

    out: dict[str, Any]
    app: App
    server: InstantServer
    requests: list[Request]

    def bodies(self, path: str) -> list[Any]:
        return [json.loads(seen.body) for seen in self.requests if seen.path == path and seen.body]

    def steps(self) -> list[list[Any]]:
        return [body["steps"] for body in self.bodies("/admin/transact")]


def _settings(server: InstantServer, app: App) -> dict[str, str]:
    return {
        "url": server.url,
        "app_id": app.id,
        "admin_token": app.admin_token,
        "personal_token": server.apps.personal_token,
    }


def _finished(server: InstantServer, app: App, out: dict[str, Any]) -> Run:
    assert server.internal_errors == []
    return Run(out, app, server, list(server.requests))


@pytest.fixture(scope="module")
def python_sdk() -> Iterator[Run]:
    packages = oracle_env.python_packages(f"instantdb=={VERSION}")
    with InstantServer() as server:
        app = server.create_app(SANDBOX_SCHEMA)
        out = oracle_env.run_python(packages, "instantdb_python_sdk.py", _settings(server, app))
        yield _finished(server, app, out)


def _npm_run(script: str, schema: Any) -> Iterator[Run]:
    packages = oracle_env.npm_packages(
        f"@instantdb/admin@{VERSION}", f"@instantdb/platform@{VERSION}"
    )
    with InstantServer() as server:
        server.job_polls = 2
        app = server.create_app(schema)
        out = oracle_env.run_node(packages, script, _settings(server, app))
        yield _finished(server, app, out)


@pytest.fixture(scope="module")
def npm_admin() -> Iterator[Run]:
    yield from _npm_run("instantdb_admin.mjs", SANDBOX_SCHEMA)


@pytest.fixture(scope="module")
def platform() -> Iterator[Run]:
    yield from _npm_run("instantdb_platform.mjs", None)


@pytest.fixture(params=["python_sdk", "npm_admin"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


# Both data clients


def test_transactions_return_increasing_ids(run: Run) -> None:
    names = ("create", "update", "merge", "fence", "lookup", "made_attribute", "delete")
    ids = [run.out[name]["tx-id"] for name in names]
    assert ids == sorted(set(ids))


def test_query_reads_back_what_was_written(run: Run) -> None:
    assert run.out["rows"] == {
        "sandbox_sandboxes": [
            {"id": B, "status": "active", "createdAt": 2, "params": {"a": {"x": 1, "y": 2}}},
            {"id": A, "status": "shutdown", "createdAt": 1},
        ],
        "sandbox_fences": [{"id": C, "key": "k:1", "createdAt": 9}],
    }
    assert run.out["unknown"] == {"nowhere": []}
    assert run.out["left"] == {"sandbox_sandboxes": [{"id": B, "status": "active"}]}
    assert run.out["loose"] == {"loose": [{"id": A, "colour": "red"}]}


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("again", "validation-failed", f"Creating entities that exist: {A}"),
        ("missing", "validation-failed", f"Updating entities that don't exist: {C}"),
        ("not_unique", "record-not-unique", "`key` is a unique attribute on `sandbox_fences`"),
        ("stranger", "record-not-found", "Record not found: app-admin-token"),
    ],
)
def test_refusals_arrive_as_api_errors(run: Run, name: str, kind: str, text: str) -> None:
    refusal = run.out[name]
    assert (refusal["status"], refusal["type"]) == (400, kind)
    assert text in refusal["text"]


def test_uploads_are_listed_and_can_be_fetched(run: Run) -> None:
    assert run.out["upload"]["data"]["size"] == 5
    assert run.out["stream"]["data"]["size"] == 200_000
    files = run.out["files"]["$files"]
    assert [(row["path"], row["size"]) for row in files] == [("dir/a.txt", 5), ("b.bin", 200_000)]
    assert all(row["url"].startswith(f"{run.server.url}/storage/{run.app.id}/") for row in files)


def test_upload_sends_raw_bytes_and_the_path_as_a_header(run: Run) -> None:
    first, second = run.server.seen("/admin/storage/upload")
    assert (first.method, first.body) == ("PUT", b"hello")
    assert first.headers["path"] == "dir/a.txt"
    assert first.headers["content-type"] == "text/plain"
    assert first.headers["content-length"] == "5"
    assert len(second.body) == 200_000
    assert second.headers["content-length"] == "200000"
    assert "content-type" not in second.headers


def test_every_admin_request_names_the_app_twice_and_bears_the_token(run: Run) -> None:
    requests = [seen for seen in run.requests if seen.path.startswith("/admin/")]
    assert requests
    for seen in requests:
        assert seen.query["app_id"] == seen.headers["app-id"] == run.app.id
        assert seen.headers["instant-admin-version"].lstrip("v") == VERSION
        expected = {f"Bearer {run.app.admin_token}", f"Bearer {A}"}
        if "as-guest" in seen.headers or "as-token" in seen.headers:
            continue
        assert seen.headers["authorization"] in expected


def test_steps_have_the_documented_shapes(run: Run) -> None:
    base = {"provider": "local", "status": "active"}
    assert run.steps()[:8] == [
        [
            ["create", "sandbox_sandboxes", A, {**base, "createdAt": 1}],
            ["create", "sandbox_sandboxes", B, {**base, "createdAt": 2, "params": {"a": {"x": 1}}}],
        ],
        [["update", "sandbox_sandboxes", A, {"status": "shutdown"}, {"upsert": False}]],
        [["merge", "sandbox_sandboxes", B, {"params": {"a": {"y": 2}}}]],
        [["create", "sandbox_sandboxes", A, {**base, "createdAt": 3}]],
        [["update", "sandbox_sandboxes", C, {"status": "x"}, {"upsert": False}]],
        [["create", "sandbox_fences", C, {"key": "k:1"}]],
        [["create", "sandbox_fences", A, {"key": "k:1"}]],
        [["update", "sandbox_fences", ["key", "k:1"], {"createdAt": 9}]],
    ]


def test_deletes_end_with_null(run: Run) -> None:
    deletes = [step for steps in run.steps() for step in steps if step[0] == "delete"]
    assert ["delete", "sandbox_sandboxes", A, None] in deletes
    assert all(step[3:] == [None] for step in deletes)


def test_query_body_has_two_keys_and_rule_parameters_are_inside_the_query(run: Run) -> None:
    bodies = run.bodies("/admin/query")
    assert {tuple(body) for body in bodies} == {("query", "inference?")}
    assert bodies[0]["query"] == {
        "sandbox_sandboxes": {
            "$": {
                "where": {"createdAt": {"$gte": 1}},
                "order": {"createdAt": "desc"},
                "limit": 5,
                "fields": ["status", "createdAt", "params"],
            }
        },
        "sandbox_fences": {},
    }
    assert {"$$ruleParams": {"k": 1}, "nowhere": {}} in [body["query"] for body in bodies]


# What only one of them does


def test_python_sdk_never_asks_for_existing_attributes(python_sdk: Run) -> None:
    flags = {body["throw-on-missing-attrs?"] for body in python_sdk.bodies("/admin/transact")}
    assert flags == {False}
    assert python_sdk.out["bad_query"]["type"] == "validation-failed"


def test_python_sdk_deletes_files_in_a_transaction(python_sdk: Run) -> None:
    assert [["delete", "$files", ["path", "b.bin"], None]] in python_sdk.steps()
    assert [row["path"] for row in python_sdk.server.rows(python_sdk.app.id, "$files")] == [
        "dir/a.txt"
    ]
    assert python_sdk.out["guest"] == {"$files": []}


def test_python_sdk_sends_compact_json_without_ascii_escapes(python_sdk: Run) -> None:
    first = python_sdk.server.seen("/admin/transact")[0]
    assert first.headers["content-type"] == "application/json"
    assert first.body.startswith(b'{"steps":[["create","sandbox_sandboxes",')
    assert first.body.endswith(b'"throw-on-missing-attrs?":false}')


def test_npm_admin_asks_for_existing_attributes_when_it_has_a_schema(npm_admin: Run) -> None:
    flags = {body["throw-on-missing-attrs?"] for body in npm_admin.bodies("/admin/transact")}
    assert flags == {True, False}
    refusal = npm_admin.out["missing_attribute"]
    assert (refusal["status"], refusal["type"]) == (400, "validation-failed")
    assert "Attributes are missing in your schema" in refusal["text"]


def test_npm_admin_leaves_undefined_keys_out(npm_admin: Run) -> None:
    assert "updatedAt" not in npm_admin.steps()[0][0][3]
    [row] = npm_admin.server.rows(npm_admin.app.id, "sandbox_sandboxes")
    assert row["updatedAt"] is None


def test_npm_admin_downloads_and_deletes_files(npm_admin: Run) -> None:
    assert npm_admin.out["download"] == "hello"
    first, second = npm_admin.out["files"]["$files"]
    assert npm_admin.out["file_delete"] == {"data": {"id": second["id"]}}
    assert npm_admin.out["file_delete_many"] == {"data": {"ids": [first["id"]]}}
    assert npm_admin.server.rows(npm_admin.app.id, "$files") == []


def test_npm_admin_acts_as_users_and_guests(npm_admin: Run) -> None:
    assert npm_admin.out["as_email"] == npm_admin.out["as_token"] == {"sandbox_fences": []}
    assert npm_admin.out["as_guest"] == {"status": 200}
    [guest] = [seen for seen in npm_admin.requests if "as-guest" in seen.headers]
    assert "authorization" not in guest.headers
    assert guest.headers["as-guest"] == "true"


# The platform client


def test_platform_makes_a_temporary_app_with_rules(platform: Run) -> None:
    made = platform.out["temporary"]
    assert platform.server.rules(made["id"]) == {"notes": {"allow": {"$default": "false"}}}
    [body] = platform.bodies("/dash/apps/ephemeral")
    assert list(body) == ["title", "schema", "rules"]
    [seen] = platform.server.seen("/dash/apps/ephemeral")
    assert "authorization" not in seen.headers
    assert made["expiresMs"] > 0
    assert made["adminToken"]


def test_platform_reads_an_app_with_its_admin_token(platform: Run) -> None:
    assert platform.out["app"]["id"] == platform.app.id
    assert platform.out["app"]["perms"] is None
    assert set(platform.out["app"]["schema"]["entities"]) == {"$files", "$streams", "$users"}


def test_platform_plans_and_pushes_new_attributes(platform: Run) -> None:
    expected = [
        ["add-attr", "Create new entity notes.id.", None],
        ["add-attr", "Create new entity tags.id.", None],
        ["add-attr", "Add attribute notes.title.", None],
        ["add-attr", "Add attribute notes.rank.", None],
        ["add-attr", "Add attribute notes.slug.", None],
        ["add-attr", "Add attribute tags.name.", None],
        ["add-attr", "Link notes.tags to tags.notes.", None],
    ]
    assert platform.out["plan"] == expected
    assert platform.out["push"] == expected
    assert platform.out["nothing"] == []


def test_platform_waits_for_the_jobs_of_a_push(platform: Run) -> None:
    kinds = ["index", "index", "check-data-type", "remove-unique", "remove-required"]
    assert [step[0] for step in platform.out["changes"]] == kinds
    assert [step[2] for step in platform.out["pushed"]] == ["completed"] * 5
    assert platform.out["summary"] == {"total": 5, "errors": 0}
    assert platform.out["progress"] == [5, 5, 0]


def test_platform_sends_the_documented_push_body(platform: Run) -> None:
    body = platform.bodies(f"/superadmin/apps/{platform.app.id}/schema/push/apply")[0]
    assert body["check_types"] is True
    assert body["supports_background_updates"] is True
    title = body["schema"]["entities"]["notes"]["attrs"]["title"]
    assert title["valueType"] == "string"
    assert title["required"] is True
    assert title["config"] == {"indexed": False, "unique": False}


def test_platform_overwrites_a_schema_by_steps(platform: Run) -> None:
    removed = {step[1] for step in platform.out["overwrite"] if step[0] == "delete-attr"}
    assert {"Delete attribute tags.name.", "Delete attribute notes.rank."} <= removed
    assert platform.out["schema"]["notes"] == ["title"]
    assert "tags" not in platform.out["schema"]
    assert platform.out["title"]["config"] == {"indexed": True, "unique": False}


def test_platform_replaces_the_rules(platform: Run) -> None:
    rules = {"notes": {"allow": {"$default": "false"}}}
    assert platform.out["push_perms"] == {"perms": rules}
    assert platform.out["perms"] == {"perms": rules}
    assert platform.bodies(f"/superadmin/apps/{platform.app.id}/perms") == [{"code": rules}]


def test_platform_gets_401_for_an_unknown_token(platform: Run) -> None:
    refusal = platform.out["stranger"]
    assert (refusal["status"], refusal["type"]) == (401, "record-not-found")


def test_platform_creates_and_deletes_apps_with_a_personal_token(platform: Run) -> None:
    assert platform.out["created"]["adminToken"]
    assert platform.out["deleted"]["id"] == platform.out["created"]["id"]
    assert platform.server.apps.get(platform.out["created"]["id"]) is None
