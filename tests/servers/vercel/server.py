"""The loopback Vercel Sandbox server: HTTP, faults, and what tests observe."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from servers.vercel.faults import STREAMED, Fault, Faults, Injection
from servers.vercel.lifecycle import ApiError, World
from servers.vercel.routes import Routes, error_response, operation_of
from servers.vercel.wire import Answer, CutError, Drop, HttpServer, Request, Response, Stream
from servers.vercel.world import Project, Sandbox, new_id

_HTML = b"<html><head><title>502: Bad Gateway</title></head><body>Bad Gateway</body></html>"
_LIMITED = (b'{"error":{"code":"rate_limited","message":"Too many requests"}}', 429)
_BROKEN = (b'{"error":{"code":"internal_server_error","message":"Internal Server Error"}}', 500)
_FORBIDDEN = (
    b'{"error":{"code":"forbidden","message":"Not authorized","invalidToken":true}}',
    403,
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request as it arrived; ``operation`` is "" for paths that do not exist."""

    operation: str
    request: Request
    fault: Fault | None


class VercelServer:
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
        requests: Every request in order, unless ``recording`` is off.
        internal_errors: Tracebacks of mistakes in this server; tests want it empty.
    """

    def __init__(self, port: int = 0) -> None:
        top = Path(tempfile.mkdtemp(prefix="vercel-server-"))
        top.chmod(0o711)
        self.world = World(top)
        self.routes = Routes(self.world)
        self.faults = Faults()
        self.latency_s = 0.0
        self.requests: list[Recorded] = []
        self.recording = True
        self.internal_errors: list[str] = []
        self._lock = threading.Lock()
        self._arrived = threading.Condition()
        self._closing = threading.Event()
        self.team, self.project, self.token = self.add_project()
        self._http = HttpServer(("127.0.0.1", port), self._answer, self.world.now)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/api"
        self._thread = threading.Thread(target=self._accept, name="vercel")
        self._thread.start()

    def __enter__(self) -> VercelServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, end all threads and every process of every sandbox. Safe to call twice."""
        self._closing.set()
        for project in self.world.projects.values():
            for sandbox in project.sandboxes.values():
                sandbox.machine.end()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self._http.server_port), timeout=1).close()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()
        self.world.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            self._http.handle_request()

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
            return [recorded.operation for recorded in self.requests]

    def counts(self) -> Counter[str]:
        return Counter(self.operations())

    def seen(self, operation: str) -> list[Request]:
        """The requests of one kind."""
        with self._lock:
            return [r.request for r in self.requests if r.operation == operation]

    def wait_for_request(self, timeout_s: float) -> None:
        """Block until another request comes, at most so long."""
        with self._arrived:
            self._arrived.wait(timeout_s)

    def clear_requests(self) -> None:
        with self._lock:
            self.requests.clear()

    def _answer(self, request: Request) -> Answer:
        found = operation_of(request)
        operation, parts = found or ("", {})
        injection = self.faults.pick(operation)
        with self._lock:
            if self.recording:
                fault = injection.fault if injection else None
                self.requests.append(Recorded(operation, request, fault))
        with self._arrived:
            self._arrived.notify_all()
        if self.latency_s:
            self._closing.wait(self.latency_s)
        if injection is not None and injection.fault is Fault.SLOW:
            self._closing.wait(injection.seconds)
        early = _refusal(injection) if injection else None
        answer = early if early is not None else self._handle(operation, parts, request)
        if early is None and injection is not None:
            answer = self._damage(injection, answer)
        if isinstance(answer, Response):
            answer.headers.setdefault("x-vercel-id", f"iad1::{new_id('req')[4:16]}")
            limit = "20" if operation in ("create", "delete") else "1000"
            answer.headers["x-ratelimit-limit"] = limit
            answer.headers["x-ratelimit-remaining"] = str(int(limit) - 1)
            answer.headers["x-ratelimit-reset"] = str(self.world.now() // 1000 + 60)
        return answer

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
            return Response(500, b"{}")

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
            return Response(200, answer.body[: len(answer.body) // 2])
        if fault in STREAMED and isinstance(answer, Stream):
            return Stream(self._broken(answer.chunks, injection), answer.content_type)
        return answer

    def _broken(self, chunks: Iterator[bytes], injection: Injection) -> Iterator[bytes]:
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


def _refusal(injection: Injection) -> Answer | None:
    """The answer of a fault that keeps the call from being carried out; None of the others."""
    match injection.fault:
        case Fault.RESET_BEFORE:
            return Drop()
        case Fault.RATE_LIMITED:
            headers = {}
            if injection.retry_after is not None:
                headers["Retry-After"] = str(injection.retry_after)
            return Response(_LIMITED[1], _LIMITED[0], headers=headers)
        case Fault.SERVER_ERROR:
            return Response(_BROKEN[1], _BROKEN[0])
        case Fault.BAD_GATEWAY:
            return Response(502, _HTML, "text/html; charset=utf-8")
        case Fault.FORBIDDEN:
            return Response(_FORBIDDEN[1], _FORBIDDEN[0])
        case Fault.EMPTY_404:
            return Response(404)
        case _:
            return None


def _exhaust(answer: Answer) -> None:
    """Have a streamed answer produced, though nobody gets it."""
    if isinstance(answer, Stream):
        with contextlib.suppress(CutError):
            for _ in answer.chunks:
                pass


__all__ = ["Fault", "Recorded", "VercelServer"]
