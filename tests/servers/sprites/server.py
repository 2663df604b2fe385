"""The loopback Sprites service: HTTP, faults, and what tests observe."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import tempfile
import threading
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from servers.sprites.machine import Clock, Machine
from servers.sprites.routes import Routes
from servers.sprites.sprites import Sprite, World
from servers.sprites.switches import Rule, Switches
from servers.sprites.wire import Exchange, Handler, HttpServer

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


@dataclass(slots=True)
class Recorded:
    """One request as it arrived; ``status`` is 0 until, and unless, it was answered."""

    method: str
    target: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int


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


class SpritesServer:
    """The service on a free loopback port; use it as a context manager.

    Attributes:
        url: What a client takes as its API address.
        token: A token of the organisation ``acme``.
        other_token: One of ``globex``.
        switches: What shall go wrong, and how the service behaves.
        clock: Its time.
        requests: Every request in the order in which they came.
        internal_errors: Tracebacks of mistakes in this server; tests want it empty.
    """

    def __init__(self, port: int = 0) -> None:
        self.clock = Clock()
        self.switches = Switches()
        self.requests: list[Recorded] = []
        self.keep_bodies = True
        self.internal_errors: list[str] = []
        folder = Path(tempfile.mkdtemp(prefix="sprites-"))
        tools = folder / "tools"
        tools.mkdir()
        self.world = World(folder, tools, self.clock)
        self.token = self.world.token("acme")
        self.other_token = self.world.token("globex")
        self.routes = Routes(self.world, self.switches)
        self._lock = threading.Lock()
        self._http = HttpServer(("127.0.0.1", port), self._answer)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.world.base_url = self.url
        inside = folder / "api.sock"
        self._inside = _InsideServer(str(inside), self.routes.inside)  # type: ignore[arg-type]
        self._inside.RequestHandlerClass = _InsideHandler
        curl = shutil.which("curl")
        if curl is not None:
            (tools / "curl").write_text(_CURL.format(socket=inside, curl=curl))
            (tools / "curl").chmod(0o755)
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True),
            threading.Thread(target=self._inside.serve_forever, args=(0.02,), daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> SpritesServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, end every process of every sprite, and remove all files. Safe to call twice."""
        self.switches.closing.set()
        for server in (self._http, self._inside):
            server.shutdown()
            server.close_connections()
            server.server_close()
        for thread in self._threads:
            thread.join()
        self.world.close()

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

    def clear_requests(self) -> None:
        with self._lock:
            self.requests.clear()

    def _watch(self) -> None:
        while not self.switches.closing.wait(0.05):
            if self.switches.idle:
                self.settle()

    def _answer(self, exchange: Exchange) -> None:
        switches = self.switches
        seen = self._record(exchange)
        if switches.latency_s:
            switches.closing.wait(switches.latency_s)
        rule = switches.pick(exchange.method, exchange.path)
        try:
            if rule is None:
                self.routes.answer(exchange)
            else:
                self._fail(exchange, rule)
        except (ConnectionError, TimeoutError):
            exchange.drop()
        except Exception:
            self.internal_errors.append(traceback.format_exc())
            exchange.drop()
        finally:
            seen.status = exchange.status

    def _fail(self, exchange: Exchange, rule: Rule) -> None:
        if rule.kind == "slow":
            self.switches.closing.wait(rule.seconds)
            self.routes.answer(exchange)
        elif rule.kind == "status" and rule.raw:
            exchange.raw(rule.status, str(rule.body).encode(), headers=rule.headers)
        elif rule.kind == "status":
            exchange.json(rule.status, rule.body, rule.headers)
        elif rule.kind == "html":
            exchange.raw(rule.status if rule.status != 500 else 502, _PAGE, "text/html")
        else:
            if rule.kind == "after":
                exchange.muted = True
                self.routes.answer(exchange)
            exchange.status = 0
            exchange.drop(reset=rule.reset)

    def _record(self, exchange: Exchange) -> Recorded:
        body = exchange.body if self.keep_bodies else b""
        seen = Recorded(exchange.method, exchange.target, exchange.path, exchange.headers, body, 0)
        with self._lock:
            self.requests.append(seen)
        return seen


def leftovers(server: SpritesServer) -> list[int]:
    """Processes of sprites that are still there."""
    mark = os.fsencode(server.world.folder.name)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"=" + mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found
