"""Our client and the official ones send the same, but for what is listed here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from oracles import oracle_env
from servers.http import Request
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import App, InstantServer

from ekairos_sandbox.repository.instantdb import (
    InstantClient,
    create_temporary_app,
    sandbox_domain,
)

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(420)]

VERSION = "1.0.67"
A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"
Pair = tuple[list[Request], list[Request]]
"""What our client sent, and what the official one did."""

CLOSED = {"allow": {"$default": "false"}}
RULES = {"sandbox_sandboxes": CLOSED, "sandbox_fences": CLOSED}


def settings(server: InstantServer, app: App) -> dict[str, str]:
    return {"url": server.url, "app_id": app.id, "admin_token": app.admin_token}


def ours(server: InstantServer, app: App) -> InstantClient:
    return InstantClient(app.id, app.admin_token, base_url=server.url, environ={})


def data_calls(server: InstantServer, app: App) -> None:
    with ours(server, app) as client:
        values = {
            "provider": "local",
            "status": "creating",
            "purpose": "línea 漢字",
            "createdAt": 1,
        }
        fence = {"key": f"{A}:rev:0000000000", "createdAt": 1}
        client.transact(
            [["create", "sandbox_fences", B, fence], ["create", "sandbox_sandboxes", A, values]]
        )
        change = {"status": "active", "params": {"a": [1, None, 0.5]}}
        client.transact([["update", "sandbox_sandboxes", A, change, {"upsert": False}]])
        where = {"and": [{"status": {"$in": ["active"]}}, {"createdAt": {"$lte": 5}}]}
        options = {"where": where, "order": {"createdAt": "desc"}, "limit": 3}
        client.query({"sandbox_sandboxes": {"$": options}})
        client.files.upload("dir/a.txt", b"hello", content_type="text/plain")
        client.transact([["delete", "sandbox_sandboxes", A], ["delete", "sandbox_fences", B]])


def platform_calls(server: InstantServer, app: App) -> None:
    schema = sandbox_domain.schema
    create_temporary_app("same", schema=schema, rules=RULES, base_url=server.url, environ={})
    with ours(server, app) as client:
        client.plan_schema(schema)
        client.apply_schema(schema)
        client.replace_rules(RULES)
        client.rules()


def recorded(schema: Any, run: Callable[[InstantServer, App], object]) -> tuple[App, list[Request]]:
    with InstantServer() as server:
        app = server.create_app(schema)
        run(server, app)
        assert server.internal_errors == []
        assert [seen.status for seen in server.requests if seen.status != 200] == []
        return app, list(server.requests)


@pytest.fixture(scope="module")
def data() -> Pair:
    packages = oracle_env.python_packages(f"instantdb=={VERSION}")

    def official(server: InstantServer, app: App) -> None:
        out = oracle_env.run_python(packages, "instantdb_same_python.py", settings(server, app))
        assert out == {
            "app": app.id,
            "url": server.url,
            "refused": "this Instant client acts as a user or guest",
        }

    return recorded(SANDBOX_SCHEMA, data_calls)[1], recorded(SANDBOX_SCHEMA, official)[1]


@pytest.fixture(scope="module")
def platform() -> Pair:
    packages = oracle_env.npm_packages(
        f"@instantdb/admin@{VERSION}", f"@instantdb/platform@{VERSION}"
    )

    def official(server: InstantServer, app: App) -> None:
        oracle_env.run_node(packages, "instantdb_same_platform.mjs", settings(server, app))

    app, mine = recorded(None, platform_calls)
    other, theirs = recorded(None, official)
    return [_renamed(seen, app) for seen in mine], [_renamed(seen, other) for seen in theirs]


def _renamed(seen: Request, app: App) -> Request:
    return dataclasses.replace(seen, path=seen.path.replace(app.id, "<app>"))


def test_the_same_requests_are_made_in_the_same_order(data: Pair) -> None:
    mine, theirs = data
    calls = [(seen.method, seen.path) for seen in mine]
    assert calls == [(seen.method, seen.path) for seen in theirs]
    assert len(calls) == 5


def test_queries_and_uploads_are_the_same_bytes(data: Pair) -> None:
    mine, theirs = data
    assert mine[2].body == theirs[2].body
    assert mine[3].body == theirs[3].body == b"hello"


def test_creates_and_updates_differ_only_in_asking_for_known_attributes(data: Pair) -> None:
    mine, theirs = data
    for number in (0, 1):
        assert theirs[number].body.endswith(b',"throw-on-missing-attrs?":false}')
        expected = theirs[number].body.replace(
            b'"throw-on-missing-attrs?":false', b'"throw-on-missing-attrs?":true'
        )
        assert mine[number].body == expected


def test_deletes_differ_only_in_the_null_at_their_end(data: Pair) -> None:
    mine, theirs = (json.loads(side[4].body)["steps"] for side in data)
    assert [[*step, None] for step in mine] == theirs


def test_headers_differ_only_in_version_and_agent(data: Pair) -> None:
    optional = {"instant-admin-version", "instant-core-version"}
    varying = {"user-agent", "accept-encoding", "host", "authorization", "app-id"}
    for mine, theirs in zip(*data, strict=True):
        assert set(theirs.headers) - set(mine.headers) == optional
        assert set(mine.headers) - set(theirs.headers) == set()
        same = set(mine.headers) - varying
        if mine.path == "/admin/transact":
            same -= {"content-length"}
        assert {name: mine.headers[name] for name in same} == {
            name: theirs.headers[name] for name in same
        }
        assert mine.headers["authorization"].startswith("Bearer ")


def test_the_official_clients_name_the_app_in_the_address_too(data: Pair) -> None:
    mine, theirs = data
    assert {tuple(seen.query) for seen in mine} == {()}
    assert {tuple(seen.query) for seen in theirs} == {("app_id",)}


def bodies(requests: list[Request], ending: str) -> list[Any]:
    return [json.loads(seen.body) for seen in requests if seen.path.endswith(ending) and seen.body]


@pytest.mark.parametrize("ending", ["/push/plan", "/push/apply"])
def test_a_schema_push_says_what_the_platform_client_s_says(platform: Pair, ending: str) -> None:
    [mine], [theirs] = (bodies(side, ending)[:1] for side in platform)
    assert set(mine) == set(theirs)
    assert (mine["check_types"], mine["supports_background_updates"]) == (True, True)
    assert {key: theirs[key] for key in ("check_types", "supports_background_updates")} == {
        "check_types": True,
        "supports_background_updates": True,
    }
    assert effective(mine["schema"]) == effective(theirs["schema"])


def test_a_temporary_app_is_asked_for_in_the_same_way(platform: Pair) -> None:
    [mine], [theirs] = (bodies(side, "/dash/apps/ephemeral") for side in platform)
    assert list(mine) == list(theirs) == ["title", "schema", "rules"]
    assert (mine["title"], mine["rules"]) == (theirs["title"], theirs["rules"])
    assert effective(mine["schema"]) == effective(theirs["schema"])


def test_rules_are_pushed_and_read_in_the_same_way(platform: Pair) -> None:
    for side in platform:
        calls = [(s.method, s.path) for s in side if s.path.endswith("/perms")]
        assert calls == [
            ("POST", "/superadmin/apps/<app>/perms"),
            ("GET", "/superadmin/apps/<app>/perms"),
        ]
        assert bodies(side, "/perms") == [{"code": RULES}]


def effective(schema: Any) -> Any:
    """Return of a schema document what the server looks at; the rest is for clients."""
    return {
        name: {
            label: (
                attr["valueType"],
                attr.get("required") is True,
                bool(attr["config"]["indexed"]),
                bool(attr["config"]["unique"]),
            )
            for label, attr in entity["attrs"].items()
        }
        for name, entity in schema["entities"].items()
    }
