"""The loopback Daytona: one address for control plane and toolbox, faults, and a log."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import traceback
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from servers.clock import ServerClock
from servers.daytona.boxes import ApiError, Box, Boxes, Organisation, iso
from servers.daytona.control import ControlPlane
from servers.daytona.faults import Dropped, Fault, Faults
from servers.daytona.toolbox import Toolbox
from servers.http import Exchange, Request, Response
from servers.loopback import LoopbackService


class DaytonaServer(LoopbackService):
    """A Daytona service on a free loopback port; use it as a context manager.

    Attributes:
        api_url: What a client takes as its API address.
        organisation: The first organisation; ``add_organisation`` makes more.
        faults: What shall go wrong.
        clock: The service's time, which can be moved forward.
        boxes: Its sandboxes and volumes, and switches of their life.
        control: Switches of the control plane's answers.
        toolbox: What the daemons were told.
        latency_s: Pause before each answer.
        requests: Every request in the order of the answers.
    """

    def __init__(self, port: int = 0, *, shell: str | list[str] = "/bin/bash") -> None:
        super().__init__(port)
        self._folder = Path(tempfile.mkdtemp(prefix="daytona-loopback-"))
        self._folder.chmod(0o711)
        self.clock = ServerClock()
        self.faults = Faults(self.clock)
        words = [shell] if isinstance(shell, str) else shell
        self.boxes = Boxes(self._folder, self.clock, words)
        self.control = ControlPlane(self.boxes)
        self.toolbox = Toolbox(self.boxes)
        self.latency_s = 0.0
        self._organisations: dict[str, Organisation] = {}
        self.api_url = f"{self.url}/api"
        self.control.url = self.url
        self.organisation = self.add_organisation()
        self._http.start()

    def close(self) -> None:
        """Stop, end every process and remove every home. Safe to call twice."""
        self._closing.set()
        self.clock.close()
        self._http.stop()
        self.boxes.close()
        self._http.server_close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_organisation(self) -> Organisation:
        """A new organisation with an API key and a token of its own."""
        made = Organisation(
            str(uuid.uuid4()),
            f"dtn_{secrets.token_hex(32)}",
            f"eyJ{secrets.token_hex(40)}",
            f"user-{secrets.token_hex(4)}",
        )
        self._organisations[made.id] = made
        return made

    def environ(self, organisation: Organisation | None = None, /, **more: str) -> dict[str, str]:
        """Environment variables that lead a client here."""
        one = organisation or self.organisation
        return {"DAYTONA_API_URL": self.api_url, "DAYTONA_API_KEY": one.api_key, **more}

    def box(self, key: str, organisation: Organisation | None = None) -> Box:
        """A sandbox by id or name, looked up past the protocol."""
        return self.boxes.get((organisation or self.organisation).id, key)

    def set_state(self, key: str, state: str, **more: Any) -> None:
        """Put a sandbox into a state, past the protocol."""
        box = self.box(key)
        with self.boxes.lock:
            box.state, box.then = state, None
            for name, value in more.items():
                setattr(box, name, value)

    def alive(self) -> list[Box]:
        """Every sandbox that is not destroyed, of all organisations."""
        for box in self.boxes.boxes.values():
            self.boxes.settle(box)
        return [box for box in self.boxes.boxes.values() if box.state != "destroyed"]

    def counts(self) -> Counter[str]:
        """How many requests came in, by ``METHOD path`` with ids left out."""
        with self._lock:
            return Counter(f"{seen.method} {_kind(seen.path)}" for seen in self.requests)

    def seen(self, method: str, kind: str) -> list[Request]:
        """The requests of a kind, as ``counts`` names them."""
        with self._lock:
            return [r for r in self.requests if r.method == method and _kind(r.path) == kind]

    def _answer(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        self._closing.wait(self.latency_s)
        fault = self.faults.pick(request)
        response: Response | None = None
        with contextlib.suppress(Dropped):
            response = self._handle(request) if fault is None else self._strike(fault, request)
        request.status = response.status if response is not None else 0
        self._record(request)
        if response is None:
            exchange.drop()
        return response

    def _strike(self, fault: Fault, request: Request) -> Response:
        instead = self.faults.before(fault)
        return instead or self.faults.after(fault, self._handle(request))

    def _handle(self, request: Request) -> Response:
        try:
            return self._route(request)
        except ApiError as error:
            if not error.message:
                return Response(error.status)
            body = {
                "path": request.path,
                "timestamp": iso(self.clock.now()),
                "statusCode": error.status,
                "error": "Error",
                "message": error.message,
                **error.extra,
            }
            return Response(error.status, body)
        except Exception:
            self.internal_errors.append(traceback.format_exc())
            return Response(500, {"statusCode": 500, "message": "internal error"})

    def _route(self, request: Request) -> Response:
        path = request.path
        if path.startswith("/api/socket.io"):
            raise ApiError(404, "no websockets here")
        if path == "/api/health":
            return Response(200, {"status": "ok"})
        organisation = self._organisation(request)
        if path.startswith("/api/"):
            return self.control.answer(request, path.removeprefix("/api"), organisation)
        if path.startswith("/toolbox/"):
            key, _, rest = path.removeprefix("/toolbox/").partition("/")
            box = self.boxes.boxes.get(key)
            if box is None or box.organisation != organisation.id:
                raise ApiError(404, "sandbox container not found", code="NOT_FOUND")
            return self.toolbox.answer(request, box, f"/{rest}")
        raise ApiError(404, "not found")

    def _organisation(self, request: Request) -> Organisation:
        for one in self._organisations.values():
            if secrets.compare_digest(request.token, one.api_key):
                return one
            given = request.headers.get("x-daytona-organization-id")
            if secrets.compare_digest(request.token, one.jwt) and given == one.id:
                return one
        raise ApiError(401, "Unauthorized")


def _kind(path: str) -> str:
    parts = path.strip("/").split("/")
    fixed = ("by-name",)
    if parts[0] == "toolbox" and len(parts) > 1:
        parts[1] = "*"
    elif len(parts) > 2 and parts[1] in ("sandbox", "volumes") and parts[2] not in fixed:
        parts[2] = "*"
    return "/" + "/".join(parts)


__all__ = ["Box", "DaytonaServer", "Organisation"]
