"""A raw HTTP client for tests of the loopback server itself, and a schema to test with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
from servers.instantdb.server import App, InstantServer

A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"
C = "33333333-3333-4333-8333-333333333333"
D = "44444444-4444-4444-8444-44444444abcd"

NOTES: dict[str, Any] = {
    "entities": {
        "notes": {
            "attrs": {
                "title": {"valueType": "string", "required": True, "config": {"indexed": True}},
                "rank": {"valueType": "number", "config": {"indexed": True}},
                "plain": {"valueType": "number", "config": {}},
                "loose": {"valueType": "json", "config": {"indexed": True}},
                "data": {"valueType": "json", "config": {}},
                "slug": {"valueType": "string", "config": {"indexed": True, "unique": True}},
                "due": {"valueType": "date", "config": {"indexed": True}},
            }
        },
        "tags": {"attrs": {"name": {"valueType": "string", "config": {"unique": True}}}},
    },
    "links": {
        "noteTags": {
            "forward": {"on": "notes", "has": "many", "label": "tags"},
            "reverse": {"on": "tags", "has": "many", "label": "notes"},
        }
    },
}


class Client:
    """One app, one session, the words of the protocol and nothing clever."""

    def __init__(self, server: InstantServer, app: App) -> None:
        self.server = server
        self.app = app
        self.http = requests.Session()
        self.http.trust_env = False
        self._others: list[Client] = []
        self.headers = {"app-id": app.id, "authorization": f"Bearer {app.admin_token}"}

    def post(
        self, path: str, body: Any, *, acting: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Send a JSON body; ``acting`` adds headers such as ``as-guest``."""
        headers = {**self.headers, **(acting or {})}
        return self.http.post(self.server.url + path, json=body, headers=headers, timeout=30)

    def another(self) -> Client:
        """A second client of the same app, closed with this one."""
        self._others.append(Client(self.server, self.app))
        return self._others[-1]

    def close(self) -> None:
        for client in self._others:
            client.close()
        self.http.close()

    def get(self, path: str) -> Any:
        response = self.http.get(self.server.url + path, headers=self.headers, timeout=30)
        assert response.status_code == 200, response.text
        return response.json()

    def transact(
        self, *steps: Any, strict: bool = True, acting: Mapping[str, str] | None = None
    ) -> requests.Response:
        body = {"steps": list(steps), "throw-on-missing-attrs?": strict}
        return self.post("/admin/transact", body, acting=acting)

    def done(self, *steps: Any, strict: bool = True) -> int:
        response = self.transact(*steps, strict=strict)
        assert response.status_code == 200, response.text
        return int(response.json()["tx-id"])

    def refused(self, *steps: Any, strict: bool = True) -> dict[str, Any]:
        response = self.transact(*steps, strict=strict)
        assert response.status_code == 400, response.text
        body: dict[str, Any] = response.json()
        return body

    def ask(self, namespace: str, **options: Any) -> requests.Response:
        return self.post("/admin/query", {"query": {namespace: {"$": options}}})

    def find(self, namespace: str, **options: Any) -> list[dict[str, Any]]:
        response = self.ask(namespace, **options)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert list(answer) == [namespace]
        rows: list[dict[str, Any]] = answer[namespace]
        return rows

    def titles(self, **options: Any) -> list[str]:
        return [row["title"] for row in self.find("notes", **options)]

    def bad_query(self, namespace: str, **options: Any) -> dict[str, Any]:
        response = self.ask(namespace, **options)
        assert response.status_code == 400, response.text
        body: dict[str, Any] = response.json()
        assert body["type"] == "validation-failed"
        assert body["hint"]["data-type"] == "query"
        return body

    def push(self, document: Any, action: str = "apply", *, background: bool = True) -> Any:
        body = {
            "schema": document,
            "check_types": True,
            "supports_background_updates": background,
        }
        path = f"/superadmin/apps/{self.app.id}/schema/push/{action}"
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()


@contextmanager
def connected(schema: Any) -> Iterator[Client]:
    """A server of its own with one app; whatever made the server stumble fails the test."""
    with InstantServer() as server:
        client = Client(server, server.create_app(schema))
        try:
            yield client
        finally:
            client.close()
        assert server.internal_errors == []


@contextmanager
def ranked_notes() -> Iterator[Client]:
    """A client of an app that has four notes: ranks 1, 2, 2 and none."""
    with connected(NOTES) as client:
        client.done(
            ["create", "notes", A, {"title": "a", "rank": 1, "plain": 5}],
            ["create", "notes", B, {"title": "b", "rank": 2, "slug": "bee"}],
            ["create", "notes", C, {"title": "c", "rank": 2}],
            ["create", "notes", D, {"title": "d"}],
        )
        yield client
