"""The REST API: sprites, commands, checkpoints, addresses, and the socket inside."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable
from typing import Any

from servers.sprites.execution import Sessions, relay
from servers.sprites.files import Files
from servers.sprites.sprites import Sprite, World, stamp, valid_name
from servers.sprites.switches import Switches
from servers.sprites.wire import Exchange

_GONE = {"error": "sprite not found"}
_DURATION = re.compile(r"(\d+)(s|m|h)")


class Routes:
    """Finds what answers a request."""

    def __init__(self, world: World, switches: Switches) -> None:
        self.world = world
        self.switches = switches
        self.sessions = Sessions(switches)
        self.files = Files(switches)

    def answer(self, exchange: Exchange) -> None:
        parts = exchange.path.strip("/").split("/")
        if parts[0] == "at" and len(parts) >= 3:
            self._address(exchange, parts[1], parts[2])
            return
        scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
        organization = self.world.tokens.get(token)
        if scheme != "Bearer" or organization is None:
            exchange.json(401, {"error": "authentication failed"})
        elif parts == ["v1", "sprites"]:
            if exchange.method == "POST":
                self._create(exchange, organization)
            else:
                self._list(exchange, organization)
        elif parts[:2] == ["v1", "sprites"]:
            self._one(exchange, organization, parts[2], parts[3:])
        else:
            exchange.json(404, {"error": "not found"})

    def _create(self, exchange: Exchange, organization: str) -> None:
        is_json = exchange.headers.get("content-type", "").startswith("application/json")
        order = exchange.json_body() if is_json else {}
        name = order.get("name")
        if not name:
            exchange.json(400, {"error": "name is required"})
            return
        if not valid_name(name):
            exchange.json(400, {"errors": ["invalid sprite name format"]})
            return
        auth = (order.get("url_settings") or {}).get("auth", "sprite")
        if auth not in ("sprite", "public"):
            exchange.json(400, {"errors": ["invalid auth type, must be sprite or public"]})
            return
        with self.world.lock:
            if self._limited(exchange, organization):
                return
            if self.world.find(organization, name):
                text = f"A sprite named '{name}' already exists. Choose another name."
                exchange.json(self.switches.duplicate_status, {"error": text})
                return
            labels = list(order.get("labels") or []) if self.switches.keeps_labels else []
            made = self.world.create(organization, name, auth, labels)
        exchange.json(201, made.listed())

    def _limited(self, exchange: Exchange, organization: str) -> bool:
        limit = self.switches.creations_per_minute
        now = self.world.clock.now()
        recent = [at for at in self.world.creations.get(organization, []) if now - at < 60]
        self.world.creations[organization] = recent
        if not limit or len(recent) < limit:
            recent.append(now)
            return False
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
        exchange.json(429, body, headers)
        return True

    def _list(self, exchange: Exchange, organization: str) -> None:
        prefix = exchange.query.get("prefix", "")
        size = min(max(int(exchange.query.get("max_results", "50")), 1), 500)
        after = exchange.query.get("continuation_token", "")
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
        exchange.json(
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

    def _one(self, exchange: Exchange, organization: str, name: str, rest: list[str]) -> None:
        sprite = self.world.find(organization, name)
        now = self.world.clock.now()
        if sprite is None or now - sprite.created < self.switches.invisible_s:
            exchange.json(404, _GONE)
            return
        if now < sprite.unavailable_until:
            exchange.raw(502, b"<html><body>Bad Gateway</body></html>", "text/html")
            return
        act = self._find(exchange.method, rest)
        if act is None:
            exchange.json(404, {"error": "not found"})
            return
        act(exchange, sprite)

    def _find(self, method: str, rest: list[str]) -> Callable[[Exchange, Sprite], None] | None:
        match method, rest:
            case "GET", []:
                return lambda exchange, sprite: exchange.json(200, sprite.listed())
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
                return lambda e, s: self._session(e, s, session)
            case _, ["fs", verb]:
                return lambda e, s: self._file(e, s, verb)
            case "GET", ["proxy"]:
                return lambda e, s: relay(e, lambda _, port: s.machine.ports.get(port, port))
            case "POST", ["checkpoint"]:
                return self._checkpoint
            case "GET", ["checkpoints"]:
                return self._checkpoints
            case "POST", ["checkpoints", which, "restore"]:
                return lambda e, s: self._restore(e, s, which)
        return None

    def _update(self, exchange: Exchange, sprite: Sprite) -> None:
        order = exchange.json_body()
        auth = (order.get("url_settings") or {}).get("auth", sprite.auth)
        if auth not in ("sprite", "public"):
            exchange.json(400, {"errors": ["invalid auth type, must be sprite or public"]})
            return
        sprite.auth = auth
        sprite.labels = list(order.get("labels", sprite.labels))
        exchange.json(200, sprite.listed())

    def _delete(self, exchange: Exchange, sprite: Sprite) -> None:
        self.world.delete(sprite)
        exchange.raw(204, b"")

    def _wake(self, sprite: Sprite) -> None:
        if sprite.machine.status == "cold" and self.switches.wake_s:
            self.switches.closing.wait(self.switches.wake_s)

    def _post(self, exchange: Exchange, sprite: Sprite) -> None:
        self._wake(sprite)
        with sprite.machine.attached():
            finish = self.sessions.post(exchange, sprite.machine)
        if finish is not None:
            finish()

    def _sessions(self, exchange: Exchange, sprite: Sprite) -> None:
        if "upgrade" in exchange.headers.get("connection", "").lower():
            self._wake(sprite)
            with sprite.machine.attached():
                self.sessions.websocket(exchange, sprite.machine)
            return
        found = [session.listed() for session in self.sessions.of(sprite.machine)]
        if self.switches.sessions_as_object:
            exchange.json(200, {"count": len(found), "sessions": found})
        else:
            exchange.json(200, [{**one, "id": int(str(one["id"]))} for one in found])

    def _session(self, exchange: Exchange, sprite: Sprite, session_id: str) -> None:
        found = self.sessions.find(sprite.machine, session_id)
        if found is None:
            exchange.json(404, {"error": "session not found"})
        else:
            exchange.json(200, found.listed())

    def _file(self, exchange: Exchange, sprite: Sprite, verb: str) -> None:
        self.files.answer(exchange, sprite.machine, verb)

    def _checkpoint(self, exchange: Exchange, sprite: Sprite) -> None:
        comment = str((exchange.json_body() if exchange.body else {}).get("comment", ""))
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

    def _checkpoints(self, exchange: Exchange, sprite: Sprite) -> None:
        current = {"id": "Current", "create_time": stamp(sprite.created), "comment": ""}
        listed = [one.listed() for one in reversed(sprite.checkpoints)]
        exchange.json(200, [current, *listed])

    def _restore(self, exchange: Exchange, sprite: Sprite, which: str) -> None:
        found = next((one for one in sprite.checkpoints if one.id == which), None)
        if found is None:
            exchange.raw(500, b"failed to get checkpoint: not found")
            return
        if self.switches.take("restore_fails"):
            self._stream(exchange, [{"type": "error", "data": "restore failed: storage busy"}])
            exchange.end_chunks()
            return
        self._stream(exchange, [{"type": "info", "data": f"Restoring from {which}..."}])
        sprite.machine.load(found.folder)
        wait = self.switches.restore_unavailable_s
        sprite.unavailable_until = self.world.clock.now() + wait if wait else 0.0
        text = f"Restore from {which} complete"
        for event in ({"type": "complete", "data": text},):
            exchange.chunk(_line(event))
        self.switches.closing.wait(self.switches.restore_holds_s)
        exchange.end_chunks()

    def _stream(self, exchange: Exchange, events: list[dict[str, str]]) -> None:
        exchange.begin_chunks("application/x-ndjson")
        for event in events:
            exchange.chunk(_line(event))

    def _address(self, exchange: Exchange, organization: str, name: str) -> None:
        """The sprite's own URL: what listens on port 8080 inside."""
        sprite = self.world.find(organization, name)
        if sprite is None:
            exchange.json(404, {"error": "not found"})
            return
        token = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        if sprite.auth != "public" and self.world.tokens.get(token) != organization:
            where = {"Location": f"{self.world.base_url}/auth/login"}
            exchange.raw(302, b"", "text/html", where)
            return
        port = sprite.machine.ports.get(8080)
        if port is None:
            exchange.raw(502, b"nothing listens on port 8080")
            return
        with sprite.machine.attached():
            inside = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            inside.request(exchange.method, "/", exchange.body or None)
            reply = inside.getresponse()
            exchange.raw(reply.status, reply.read())
            inside.close()

    def inside(self, exchange: Exchange) -> None:
        """What a sprite is answered by the socket in its own file system."""
        sprite = self.world.by_mark(exchange.headers.get("x-sprite", ""))
        name = exchange.path.removeprefix("/v1/tasks/")
        if sprite is None or not exchange.path.startswith("/v1/tasks"):
            exchange.json(404, {"error": "not found"})
        elif exchange.method == "PUT":
            found = _DURATION.fullmatch(str(exchange.json_body().get("expire", "")))
            if found is None:
                exchange.json(400, {"error": "invalid expire"})
                return
            seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
            if seconds > 3600:
                exchange.json(400, {"error": "expire is at most 1h"})
                return
            sprite.machine.hold(name, seconds)
            exchange.json(200, {"name": name, "expire": f"{seconds}s"})
        elif exchange.method == "DELETE":
            found_it = sprite.machine.let_go(name)
            exchange.raw(204 if found_it else 404, b"")
        else:
            exchange.json(200, {"tasks": [{"name": one} for one in sprite.machine.tasks]})


def _line(event: dict[str, Any]) -> bytes:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({**event, "time": moment}).encode() + b"\n"
