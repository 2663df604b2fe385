"""The REST API: sprites, commands, checkpoints, addresses, and the socket inside."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable
from typing import Any

from servers.http import Exchange, Request, Response
from servers.sprites.execution import Sessions, relay
from servers.sprites.files import Files
from servers.sprites.sprites import Sprite, World, stamp, valid_name
from servers.sprites.switches import Switches

Endpoint = Callable[[Exchange, Sprite], Response | None]

_GONE = {"error": "sprite not found"}
_DURATION = re.compile(r"(\d+)(s|m|h)")


class Routes:
    """Finds what answers a request."""

    def __init__(self, world: World, switches: Switches) -> None:
        self.world = world
        self.switches = switches
        self.sessions = Sessions(switches)
        self.files = Files(switches)

    def answer(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        parts = request.path.strip("/").split("/")
        if parts[0] == "at" and len(parts) >= 3:
            return self._address(request, parts[1], parts[2])
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        organization = self.world.tokens.get(token)
        if scheme != "Bearer" or organization is None:
            return Response(401, {"error": "authentication failed"})
        if parts == ["v1", "sprites"]:
            if request.method == "POST":
                return self._create(request, organization)
            return self._list(request, organization)
        if parts[:2] == ["v1", "sprites"]:
            return self._one(exchange, organization, parts[2], parts[3:])
        return Response(404, {"error": "not found"})

    def _create(self, request: Request, organization: str) -> Response:
        is_json = request.headers.get("content-type", "").startswith("application/json")
        order = request.json() if is_json else {}
        name = order.get("name")
        if not name:
            return Response(400, {"error": "name is required"})
        if not valid_name(name):
            return Response(400, {"errors": ["invalid sprite name format"]})
        auth = (order.get("url_settings") or {}).get("auth", "sprite")
        if auth not in ("sprite", "public"):
            return Response(400, {"errors": ["invalid auth type, must be sprite or public"]})
        with self.world.lock:
            if limited := self._limited(organization):
                return limited
            if self.world.find(organization, name):
                text = f"A sprite named '{name}' already exists. Choose another name."
                return Response(self.switches.duplicate_status, {"error": text})
            labels = list(order.get("labels") or []) if self.switches.keeps_labels else []
            made = self.world.create(organization, name, auth, labels)
        return Response(201, made.listed())

    def _limited(self, organization: str) -> Response | None:
        limit = self.switches.creations_per_minute
        now = self.world.clock.now()
        recent = [at for at in self.world.creations.get(organization, []) if now - at < 60]
        self.world.creations[organization] = recent
        if not limit or len(recent) < limit:
            recent.append(now)
            return None
        wait = int(60 - (now - recent[0])) + 1
        headers = {
            "Retry-After": str(wait),
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(int(now) + wait),
        }
        body = {
            "error": "sprite_creation_rate_limited",
            "message": "too many sprites were created",
            "limit": limit,
            "window_seconds": 60,
            "retry_after_seconds": wait,
            "upgrade_available": True,
            "upgrade_url": "https://example.com/upgrade",
        }
        return Response(429, body, headers=headers)

    def _list(self, request: Request, organization: str) -> Response:
        prefix = request.query.get("prefix", "")
        size = min(max(int(request.query.get("max_results", "50")), 1), 500)
        after = request.query.get("continuation_token", "")
        now = self.world.clock.now()
        found = sorted(
            (
                one
                for one in self.world.all(organization)
                if one.name.startswith(prefix)
                and one.name > after
                and now - one.created >= self.switches.invisible_s
            ),
            key=lambda one: one.name,
        )
        page, more = found[:size], len(found) > size
        states = [one.machine.status for one in page]
        return Response(
            200,
            {
                "sprites": [one.listed() for one in page],
                "has_more": more or self.switches.false_has_more,
                "next_continuation_token": page[-1].name if more else None,
                "running": states.count("running"),
                "warm": states.count("warm"),
                "cold": states.count("cold"),
                "name": organization,
                "running_limit": 10,
                "warm_limit": 10,
            },
        )

    def _one(
        self, exchange: Exchange, organization: str, name: str, rest: list[str]
    ) -> Response | None:
        sprite = self.world.find(organization, name)
        now = self.world.clock.now()
        if sprite is None or now - sprite.created < self.switches.invisible_s:
            return Response(404, _GONE)
        if now < sprite.unavailable_until:
            return Response(502, b"<html><body>Bad Gateway</body></html>", "text/html")
        act = self._find(exchange.request.method, rest)
        if act is None:
            return Response(404, {"error": "not found"})
        return act(exchange, sprite)

    def _find(self, method: str, rest: list[str]) -> Endpoint | None:
        match method, rest:
            case "GET", []:
                return lambda _, sprite: Response(200, sprite.listed())
            case "PUT", []:
                return self._update
            case "DELETE", []:
                return self._delete
            case "POST", ["exec"]:
                return self._post
            case "GET", ["exec"]:
                return self._sessions
            case "POST", ["exec", session, "kill"]:
                return lambda e, s: self.sessions.kill(e, s.machine, session)
            case "GET", ["exec", session]:
                return lambda _, s: self._session(s, session)
            case _, ["fs", verb]:
                return lambda e, s: self.files.answer(e, s.machine, verb)
            case "GET", ["proxy"]:
                return lambda e, s: relay(e, lambda _, port: s.machine.ports.get(port, port))
            case "POST", ["checkpoint"]:
                return self._checkpoint
            case "GET", ["checkpoints"]:
                return self._checkpoints
            case "POST", ["checkpoints", which, "restore"]:
                return lambda e, s: self._restore(e, s, which)
        return None

    def _update(self, exchange: Exchange, sprite: Sprite) -> Response:
        order = exchange.request.json()
        auth = (order.get("url_settings") or {}).get("auth", sprite.auth)
        if auth not in ("sprite", "public"):
            return Response(400, {"errors": ["invalid auth type, must be sprite or public"]})
        sprite.auth = auth
        sprite.labels = list(order.get("labels", sprite.labels))
        return Response(200, sprite.listed())

    def _delete(self, exchange: Exchange, sprite: Sprite) -> Response:
        self.world.delete(sprite)
        return Response(204)

    def _wake(self, sprite: Sprite) -> None:
        if sprite.machine.status == "cold" and self.switches.wake_s:
            self.switches.closing.wait(self.switches.wake_s)

    def _post(self, exchange: Exchange, sprite: Sprite) -> None:
        self._wake(sprite)
        with sprite.machine.attached():
            finish = self.sessions.post(exchange, sprite.machine)
        if finish is not None:
            finish()

    def _sessions(self, exchange: Exchange, sprite: Sprite) -> Response | None:
        if "upgrade" in exchange.request.headers.get("connection", "").lower():
            self._wake(sprite)
            with sprite.machine.attached():
                self.sessions.websocket(exchange, sprite.machine)
            return None
        found = [session.listed() for session in self.sessions.of(sprite.machine)]
        if self.switches.sessions_as_object:
            return Response(200, {"count": len(found), "sessions": found})
        return Response(200, [{**one, "id": int(str(one["id"]))} for one in found])

    def _session(self, sprite: Sprite, session_id: str) -> Response:
        found = self.sessions.find(sprite.machine, session_id)
        if found is None:
            return Response(404, {"error": "session not found"})
        return Response(200, found.listed())

    def _checkpoint(self, exchange: Exchange, sprite: Sprite) -> None:
        comment = str(exchange.request.json().get("comment", ""))
        fails = self.switches.take("checkpoint_fails")
        events: list[dict[str, str]] = [{"type": "info", "data": "Creating checkpoint..."}]
        if fails:
            events.append({"type": "error", "error": "failed to create checkpoint: storage busy"})
        else:
            with sprite.machine.attached():
                made = sprite.checkpoint(comment, self.world.clock.now())
            events.append({"type": "info", "data": f"  ID: {made.id}"})
            text = f"Checkpoint {made.id} created successfully"
            events.append({"type": "complete", "data": text})
        self._stream(exchange, events)
        exchange.end_chunks()

    def _checkpoints(self, exchange: Exchange, sprite: Sprite) -> Response:
        current = {"id": "Current", "create_time": stamp(sprite.created), "comment": ""}
        listed = [one.listed() for one in reversed(sprite.checkpoints)]
        return Response(200, [current, *listed])

    def _restore(self, exchange: Exchange, sprite: Sprite, which: str) -> Response | None:
        found = next((one for one in sprite.checkpoints if one.id == which), None)
        if found is None:
            return Response(500, b"failed to get checkpoint: not found", "text/plain")
        if self.switches.take("restore_fails"):
            self._stream(exchange, [{"type": "error", "data": "restore failed: storage busy"}])
            exchange.end_chunks()
            return None
        self._stream(exchange, [{"type": "info", "data": f"Restoring from {which}..."}])
        sprite.machine.load(found.folder)
        wait = self.switches.restore_unavailable_s
        sprite.unavailable_until = self.world.clock.now() + wait if wait else 0.0
        text = f"Restore from {which} complete"
        exchange.chunk(_line({"type": "complete", "data": text}))
        self.switches.closing.wait(self.switches.restore_holds_s)
        exchange.end_chunks()
        return None

    def _stream(self, exchange: Exchange, events: list[dict[str, str]]) -> None:
        exchange.begin_chunks("application/x-ndjson")
        for event in events:
            exchange.chunk(_line(event))

    def _address(self, request: Request, organization: str, name: str) -> Response:
        """The sprite's own URL: what listens on port 8080 inside."""
        sprite = self.world.find(organization, name)
        if sprite is None:
            return Response(404, {"error": "not found"})
        if sprite.auth != "public" and self.world.tokens.get(request.token) != organization:
            where = {"Location": f"{self.world.base_url}/auth/login"}
            return Response(302, b"", "text/html", where)
        port = sprite.machine.ports.get(8080)
        if port is None:
            return Response(502, b"nothing listens on port 8080", "text/plain")
        with sprite.machine.attached():
            inside = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            inside.request(request.method, "/", request.body or None)
            reply = inside.getresponse()
            body = reply.read()
            inside.close()
        return Response(reply.status, body, "text/plain")

    def inside(self, request: Request) -> Response:
        """What a sprite is answered by the socket in its own file system."""
        sprite = self.world.by_mark(request.headers.get("x-sprite", ""))
        name = request.path.removeprefix("/v1/tasks/")
        if sprite is None or not request.path.startswith("/v1/tasks"):
            return Response(404, {"error": "not found"})
        if request.method == "PUT":
            found = _DURATION.fullmatch(str(request.json().get("expire", "")))
            if found is None:
                return Response(400, {"error": "invalid expire"})
            seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
            if seconds > 3600:
                return Response(400, {"error": "expire is at most 1h"})
            sprite.machine.hold(name, seconds)
            return Response(200, {"name": name, "expire": f"{seconds}s"})
        if request.method == "DELETE":
            found_it = sprite.machine.let_go(name)
            return Response(204 if found_it else 404, b"", "text/plain")
        return Response(200, {"tasks": [{"name": one} for one in sprite.machine.tasks]})


def _line(event: dict[str, Any]) -> bytes:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({**event, "time": moment}).encode() + b"\n"
