"""The loopback Sprites service: HTTP, faults, and what tests observe."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import tempfile
import threading
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from servers.clock import ServerClock
from servers.http import Exchange, Handler, HttpServer, Response
from servers.loopback import LoopbackService
from servers.sprites.machine import Machine
from servers.sprites.routes import Routes
from servers.sprites.sprites import Sprite, World
from servers.sprites.switches import Rule, Switches

_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"

# The socket of the machine's own API is at one place in every sprite, but here all share one
# file system.
_CURL = """#!/bin/sh
for word do
  shift
  case $word in
  /.sprite/api.sock) set -- "$@" '{socket}' -H "X-Sprite: $SPRITE_LOOPBACK" ;;
  *) set -- "$@" "$word" ;;
  esac
done
exec '{curl}' "$@"
"""


class _InsideServer(HttpServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "sprite", 0

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = self.socket.accept()
        return connection, ("inside", 0)


class _InsideHandler(Handler):
    disable_nagle_algorithm = False


class SpritesServer(LoopbackService):
    """The service on a free loopback port; use it as a context manager.

    Attributes:
        token: A token of the organisation ``acme``.
        other_token: One of ``globex``.
        switches: What shall go wrong, and how the service behaves.
        clock: Its time.
        keep_bodies: Whether ``requests`` have what was sent.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.clock = ServerClock()
        self.switches = Switches(closing=self._closing)
        self.keep_bodies = True
        folder = Path(tempfile.mkdtemp(prefix="sprites-"))
        tools = folder / "tools"
        tools.mkdir()
        self.world = World(folder, tools, self.clock)
        self.token = self.world.token("acme")
        self.other_token = self.world.token("globex")
        self.routes = Routes(self.world, self.switches)
        self.world.base_url = self.url
        inside: Any = str(folder / "api.sock")
        self._inside = _InsideServer(
            inside, lambda exchange: self.routes.inside(exchange.request), self._headers
        )
        self._inside.RequestHandlerClass = _InsideHandler
        curl = shutil.which("curl")
        if curl is not None:
            (tools / "curl").write_text(_CURL.format(socket=inside, curl=curl))
            (tools / "curl").chmod(0o755)
        self._watcher = threading.Thread(target=self._watch)
        for part in (self._http, self._inside, self._watcher):
            part.start()

    def close(self) -> None:
        """Stop, end every process of every sprite, and remove all files. Safe to call twice."""
        self._closing.set()
        for server in (self._http, self._inside):
            server.stop()
        self._watcher.join()
        self.world.close()
        for server in (self._http, self._inside):
            server.server_close()

    def sprite(self, name: str, organization: str = "acme") -> Sprite:
        """A sprite by name."""
        found = self.world.find(organization, name)
        if found is None:
            raise KeyError(name)
        return found

    def machine(self, name: str) -> Machine:
        """The inside of a sprite of ``acme``."""
        return self.sprite(name).machine

    def advance(self, seconds: float) -> None:
        """Let time pass on the service's clock; machines that are idle fall asleep."""
        self.clock.advance(seconds)
        self.settle()

    def settle(self) -> None:
        """Let idle machines fall asleep; connections to them are cut, as all idle ones are."""
        asleep = [sprite.machine.settle() for sprite in self.world.all()]
        if any(asleep):
            self._http.close_connections()

    def close_connections(self) -> None:
        """Cut every connection there is."""
        self._http.close_connections()

    def counts(self) -> Counter[str]:
        """How many requests came in, by method and last part of the path."""
        with self._lock:
            return Counter(f"{one.method} {one.path.rpartition('/')[2]}" for one in self.requests)

    def reset(self) -> None:
        """Be as at the beginning: no sprites, no requests, nothing goes wrong."""
        for sprite in self.world.all():
            self.world.delete(sprite)
        self.world.creations.clear()
        fresh = Switches()
        for one in dataclasses.fields(Switches):
            if one.name != "closing" and not one.name.startswith("_"):
                setattr(self.switches, one.name, getattr(fresh, one.name))
        self.switches.clear()
        self.clear_requests()

    def _watch(self) -> None:
        while not self.switches.closing.wait(0.05):
            if self.switches.idle:
                self.settle()

    def _answer(self, exchange: Exchange) -> Response | None:
        switches = self.switches
        self._record(exchange.request)
        if switches.latency_s:
            switches.closing.wait(switches.latency_s)
        rule = switches.pick(exchange.request)
        try:
            return self.routes.answer(exchange) if rule is None else self._fail(exchange, rule)
        except (ConnectionError, TimeoutError):
            exchange.drop()
        except Exception:
            self.internal_errors.append(traceback.format_exc())
            exchange.drop()
        finally:
            if not self.keep_bodies:
                exchange.request.body = b""
        return None

    def _fail(self, exchange: Exchange, rule: Rule) -> Response | None:
        if rule.kind == "slow":
            self.switches.closing.wait(rule.seconds)
            return self.routes.answer(exchange)
        if rule.kind == "html":
            return Response(rule.status if rule.status != 500 else 502, _PAGE, "text/html")
        if rule.kind == "status":
            text, kind = json.dumps(rule.body), "application/json"
            if rule.raw:
                text, kind = str(rule.body), "text/plain"
            return Response(rule.status, text.encode(), kind, rule.headers)
        if rule.kind == "after":
            exchange.muted = True
            self.routes.answer(exchange)
        exchange.request.status = 0
        exchange.drop(reset=rule.reset)
        return None

    def _headers(self) -> dict[str, str]:
        return {"Sprite-Version": "0.0.1-loopback"}


def leftovers(server: SpritesServer) -> list[int]:
    """Processes of sprites that are still there."""
    mark = os.fsencode(server.world.folder.name)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"=" + mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found
