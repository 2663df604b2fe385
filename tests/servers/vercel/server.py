"""The loopback Vercel Sandbox server: HTTP, faults, and what tests observe."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Generator
from email.utils import formatdate
from pathlib import Path
from typing import Any

from servers.http import Exchange, Request, Response
from servers.loopback import LoopbackService
from servers.vercel.answers import Answer, CutError, Drop, Stream
from servers.vercel.faults import STREAMED, Fault, Faults, Injection
from servers.vercel.lifecycle import ApiError, World, forbidden
from servers.vercel.routes import Routes, error_response, json_response, operation_of
from servers.vercel.world import Project, Sandbox, new_id

_HTML = b"<html><head><title>502: Bad Gateway</title></head><body>Bad Gateway</body></html>"
_LIMITED = ApiError(429, "rate_limited", "Too many requests")
_BROKEN = ApiError(500, "internal_server_error", "Internal Server Error")


class VercelServer(LoopbackService):
    """A Vercel Sandbox API on a free loopback port; use it as a context manager.

    Commands run for real, in a folder and, where the server is root, as a user id of their own
    for each sandbox; ``sudo`` is accepted and ignored.

    Attributes:
        url: Base URL for a client, with ``/api``.
        token: A token for ``team`` and ``project``.
        team: Id of a team.
        project: Id of a project of that team.
        world: The state itself, with its clock and switches.
        routes: More switches.
        faults: What shall go wrong; see ``Faults``.
        latency_s: Seconds by which every answer is delayed.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.url += "/api"
        top = Path(tempfile.mkdtemp(prefix="vercel-server-"))
        top.chmod(0o711)
        self.world = World(top)
        self.routes = Routes(self.world)
        self.faults = Faults()
        self.latency_s = 0.0
        self._arrived = threading.Condition()
        self.team, self.project, self.token = self.add_project()
        self._http.start()

    def close(self) -> None:
        """Stop, end all threads and every process of every sandbox. Safe to call twice."""
        self._closing.set()
        self._http.stop()
        self.world.close()
        self._http.server_close()

    def add_project(self, team: str | None = None) -> tuple[str, str, str]:
        """Add a project, in a new team unless one is named; its team, id and a new token."""
        project = Project(new_id("prj"), team or new_id("team"))
        token = f"vcp-{new_id('secret')}"
        with self.world.lock:
            self.world.projects[project.id] = project
            self.world.tokens[token] = {project.team}
        return project.team, project.id, token

    def make(self, name: str, **body: Any) -> Sandbox:
        """Make a sandbox as another program would have done."""
        with self.world.lock:
            return self.world.create(self.world.projects[self.project], {"name": name, **body})

    def revoke(self, token: str) -> None:
        """Let a token be refused from now on."""
        self.world.tokens.pop(token, None)

    def environ(self) -> dict[str, str]:
        """The variables that lead a provider here."""
        return {
            "SANDBOX_VERCEL_BASE_URL": self.url,
            "SANDBOX_VERCEL_TOKEN": self.token,
            "SANDBOX_VERCEL_TEAM_ID": self.team,
            "SANDBOX_VERCEL_PROJECT_ID": self.project,
        }

    def sandboxes(self, project: str | None = None) -> dict[str, Sandbox]:
        """The sandboxes of a project by name, stopped ones included."""
        return dict(self.world.projects[project or self.project].sandboxes)

    def operations(self) -> list[str]:
        """The calls since ``clear_requests``, in order of arrival."""
        with self._lock:
            return [operation_of(request)[0] for request in self.requests]

    def counts(self) -> Counter[str]:
        return Counter(self.operations())

    def seen(self, operation: str) -> list[Request]:
        """The requests of one kind."""
        with self._lock:
            return [one for one in self.requests if operation_of(one)[0] == operation]

    def wait_for_request(self, timeout_s: float) -> None:
        """Block until another request comes, at most so long."""
        with self._arrived:
            self._arrived.wait(timeout_s)

    def _answer(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        request.path = request.path.removeprefix("/api")
        operation, parts = operation_of(request)
        injection = self.faults.pick(operation)
        request.fault = injection.fault if injection else None
        self._record(request)
        with self._arrived:
            self._arrived.notify_all()
        if self.latency_s:
            self._closing.wait(self.latency_s)
        if injection is not None and injection.fault is Fault.SLOW:
            self._closing.wait(injection.seconds)
        early = _refusal(injection, request) if injection else None
        answer = early if early is not None else self._handle(operation, parts, request)
        if early is None and injection is not None:
            answer = self._damage(injection, answer)
        if isinstance(answer, Stream):
            answer.send(exchange)
            return None
        if isinstance(answer, Drop):
            exchange.drop(reset=True)
            return None
        answer.headers.setdefault("x-vercel-id", f"iad1::{new_id('req')[4:16]}")
        limit = "20" if operation in ("create", "delete") else "1000"
        answer.headers["x-ratelimit-limit"] = limit
        answer.headers["x-ratelimit-remaining"] = str(int(limit) - 1)
        answer.headers["x-ratelimit-reset"] = str(self.world.now() // 1000 + 60)
        return answer

    def _headers(self) -> dict[str, str]:
        return {"Date": formatdate(self.world.now() / 1000, usegmt=True)}

    def _handle(self, operation: str, parts: dict[str, str], request: Request) -> Answer:
        try:
            if not operation:
                raise ApiError(404, "not_found", "The requested resource was not found.")
            return self.routes.answer(operation, parts, request)
        except ApiError as error:
            return error_response(error)
        except CutError:
            return Drop()
        except Exception:
            self.internal_errors.append(traceback.format_exc())
            return json_response({}, 500)

    def _damage(self, injection: Injection, answer: Answer) -> Answer:
        """What the client gets to see of an answer that was given."""
        fault = injection.fault
        if fault is Fault.RESET_AFTER:
            _exhaust(answer)
            return Drop()
        if fault is Fault.BAD_GATEWAY_AFTER:
            _exhaust(answer)
            return Response(502, _HTML, "text/html; charset=utf-8")
        if fault is Fault.GARBAGE and isinstance(answer, Response):
            body = answer.encoded()
            return Response(200, body[: len(body) // 2], answer.content_type)
        if fault in STREAMED and isinstance(answer, Stream):
            return Stream(self._broken(answer.chunks, injection), answer.content_type)
        return answer

    def _broken(self, chunks: Generator[bytes], injection: Injection) -> Generator[bytes]:
        for number, chunk in enumerate(chunks):
            if number < injection.records:
                yield chunk
                continue
            # The command itself goes on: nobody needs to read its output.
            match injection.fault:
                case Fault.CUT:
                    raise CutError
                case Fault.CUT_MID_LINE:
                    yield chunk[: max(1, len(chunk) // 2)]
                    raise CutError
                case Fault.ERROR_RECORD:
                    text = "Sandbox stream was closed and is not accepting commands."
                    data = {"code": "sandbox_stream_closed", "message": text}
                    yield json.dumps({"stream": "error", "data": data}).encode() + b"\n"
                    return
                case Fault.STALL:
                    self._closing.wait(injection.seconds)
                    raise CutError
                case _:
                    return


def _refusal(injection: Injection, request: Request) -> Answer | None:
    """The answer of a fault that keeps the call from being carried out; None of the others."""
    match injection.fault:
        case Fault.RESET_BEFORE:
            return Drop()
        case Fault.RATE_LIMITED:
            limited = error_response(_LIMITED)
            if injection.retry_after is not None:
                limited.headers["Retry-After"] = str(injection.retry_after)
            return limited
        case Fault.SERVER_ERROR:
            return error_response(_BROKEN)
        case Fault.BAD_GATEWAY:
            return Response(502, _HTML, "text/html; charset=utf-8")
        case Fault.FORBIDDEN:
            return error_response(forbidden())
        case Fault.EMPTY_404:
            return Response(404, b"", "application/json; charset=utf-8")
        case Fault.PAGE:
            return Response(200, _HTML, "text/html; charset=utf-8")
        case Fault.NOT_READY:
            return error_response(ApiError(400, "image_not_ready", "The image is not ready yet."))
        case Fault.ECHO:
            sent = json.loads(request.body)
            said = f"Invalid request: {sent.get('source')}, {sent.get('env')}"
            return error_response(ApiError(400, "bad_request", said))
        case _:
            return None


def _exhaust(answer: Answer) -> None:
    """Have a streamed answer produced, though nobody gets it."""
    if isinstance(answer, Stream):
        with contextlib.suppress(CutError):
            for _ in answer.chunks:
                pass


__all__ = ["Fault", "VercelServer"]
