"""The endpoints: which call a request is, who may make it, and what it answers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Generator
from typing import Any

from servers.http import Request, Response
from servers.vercel.answers import Answer, CutError, Stream
from servers.vercel.checks import bad, check_changes, check_create
from servers.vercel.lifecycle import ApiError, World, forbidden, refuse_transition, stopped
from servers.vercel.world import Command, Json, Project, Sandbox, Session, new_id

_TOP = "/v[234]/sandboxes"
_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    (method, re.compile(pattern + "/?"), operation)
    for method, pattern, operation in (
        ("POST", "(?P<version>/v[234])/sandboxes", "create"),
        ("GET", f"{_TOP}", "list"),
        ("GET", f"{_TOP}/sessions", "sessions"),
        ("GET", f"{_TOP}/snapshots", "snapshots"),
        ("GET", f"{_TOP}/snapshots/(?P<snapshot>[^/]+)", "get_snapshot"),
        ("DELETE", f"{_TOP}/snapshots/(?P<snapshot>[^/]+)", "delete_snapshot"),
        ("GET", f"{_TOP}/sessions/(?P<session>[^/]+)", "get_session"),
        ("POST", f"{_TOP}/sessions/(?P<session>[^/]+)/stop", "stop"),
        ("POST", f"{_TOP}/sessions/(?P<session>[^/]+)/extend-timeout", "extend"),
        ("POST", f"{_TOP}/sessions/(?P<session>[^/]+)/snapshot", "snapshot"),
        ("POST", f"{_TOP}/sessions/(?P<session>[^/]+)/network-policy", "network"),
        ("POST", f"{_TOP}/sessions/(?P<session>[^/]+)/cmd", "run"),
        ("GET", f"{_TOP}/sessions/(?P<session>[^/]+)/cmd", "commands"),
        ("GET", f"{_TOP}/sessions/(?P<session>[^/]+)/cmd/(?P<command>[^/]+)", "command"),
        ("GET", f"{_TOP}/sessions/(?P<session>[^/]+)/cmd/(?P<command>[^/]+)/logs", "logs"),
        ("POST", f"{_TOP}/sessions/(?P<session>[^/]+)/cmd/(?P<command>[^/]+)/kill", "kill"),
        ("POST", f"{_TOP}/sessions/(?P<session>[^/]+)/fs/(?P<verb>write|read|mkdir)", "fs"),
        ("POST", f"{_TOP}/(?P<name>[^/]+)/fork", "fork"),
        ("GET", f"{_TOP}/(?P<name>[^/]+)", "get"),
        ("PATCH", f"{_TOP}/(?P<name>[^/]+)", "update"),
        ("DELETE", f"{_TOP}/(?P<name>[^/]+)", "delete"),
    )
]


def operation_of(request: Request) -> tuple[str, dict[str, str]]:
    """The name of the call that a request is, "" for none, and what its path holds."""
    for method, pattern, operation in _ROUTES:
        found = pattern.fullmatch(request.path)
        if method == request.method and found:
            parts = found.groupdict()
            return (parts.pop("verb") if operation == "fs" else operation), parts
    return "", {}


def json_response(value: Json, status: int = 200) -> Response:
    return Response(status, value, "application/json; charset=utf-8")


def error_response(error: ApiError) -> Response:
    body = {"code": error.code, "message": error.message, **error.more}
    return json_response({"error": body}, error.status)


class Routes:
    """Answers calls on one world.

    Attributes:
        max_stream_s: Age at which a streamed answer is cut, by the world's clock.
        page_size: Items of a page where the client asks for more.
        lag_commands: How many listings do not show the latest command yet.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.max_stream_s = 300.0
        self.lag_commands = 0
        self.page_size = 100

    def answer(self, operation: str, parts: dict[str, str], request: Request) -> Answer:
        """Carry out a call."""
        team = self._team(request)
        handler: Callable[..., Answer] = getattr(self, f"_{operation}")
        self.world.expire()
        if "session" in parts:
            session = self._session(team, parts.pop("session"))
            return handler(session, request, **parts)
        return handler(self._project(team, operation, request, parts), request, **parts)

    def _team(self, request: Request) -> str:
        team = request.query.get("teamId", "")
        if team not in self.world.tokens.get(request.token, ()):
            raise forbidden()
        return team

    def _project(
        self, team: str, operation: str, request: Request, parts: dict[str, str]
    ) -> Project:
        if operation in ("get_snapshot", "delete_snapshot"):
            for project in self.world.projects.values():
                if project.team == team and parts["snapshot"] in project.snapshots:
                    return project
            raise ApiError(404, "snapshot_not_found", "Snapshot not found.")
        listing = operation in ("list", "sessions", "snapshots")
        if operation == "create":
            wanted = _body(request).get("projectId")
        else:
            wanted = request.query.get("project" if listing else "projectId")
        if wanted is None:
            raise bad("missing required property `projectId`.")
        found = self.world.projects.get(str(wanted))
        if found is None or found.team != team:
            raise ApiError(404, "not_found", "Project not found.")
        return found

    def _session(self, team: str, session_id: str) -> Session:
        for project in self.world.projects.values():
            if project.team == team:
                for sandbox in project.sandboxes.values():
                    for session in sandbox.sessions:
                        if session.id == session_id:
                            return session
        raise ApiError(404, "not_found", "Session not found.")

    def _named(self, project: Project, name: str) -> Sandbox:
        found = project.sandboxes.get(name)
        if found is None:
            text = f"Named sandbox '{name}' not found for this project."
            raise ApiError(404, "not_found", text)
        return found

    def _whole(self, sandbox: Sandbox, **more: Any) -> Response:
        routes = sandbox.routes()
        found = {"sandbox": sandbox.json(), "session": sandbox.session.json(), "routes": routes}
        return json_response({**found, **more})

    # Sandboxes by name

    def _create(self, project: Project, request: Request, version: str) -> Answer:
        body = _body(request)
        body.setdefault("name", f"sandbox-{new_id('x')[2:12]}")
        check_create(body, version=version.strip("/"))
        if version == "/v2":
            body.setdefault("runtime", "node24")
        else:
            body.setdefault("image", "vercel/sandbox/universal:latest")
        return self._whole(self.world.create(project, body))

    def _get(self, project: Project, request: Request, name: str) -> Answer:
        sandbox = self._named(project, name)
        self.world.look(sandbox)
        if request.query.get("resume") == "true":
            return self._whole(sandbox, resumed=self.world.resume(project, sandbox))
        return self._whole(sandbox)

    def _update(self, project: Project, request: Request, name: str) -> Answer:
        sandbox = self._named(project, name)
        body = _body(request)
        check_changes(body)
        if "currentSnapshotId" in body:
            self.world.snapshot_of(project, body["currentSnapshotId"])
            sandbox.current_snapshot_id = body["currentSnapshotId"]
        sandbox.persistent = body.get("persistent", sandbox.persistent)
        sandbox.env = body.get("env", sandbox.env)
        sandbox.runtime = body.get("runtime", sandbox.runtime)
        sandbox.vcpus = (body.get("resources") or {}).get("vcpus", sandbox.vcpus)
        sandbox.network_policy = body.get("networkPolicy", sandbox.network_policy)
        sandbox.ports = body.get("ports", sandbox.ports)
        sandbox.tags = body.get("tags", sandbox.tags)
        sandbox.timeout = body.get("timeout", sandbox.timeout)
        sandbox.keep_last = body.get("keepLastSnapshots", sandbox.keep_last)
        sandbox.snapshot_expiration = body.get("snapshotExpiration", sandbox.snapshot_expiration)
        return json_response({"sandbox": sandbox.json(), "routes": sandbox.routes()})

    def _delete(self, project: Project, request: Request, name: str) -> Answer:
        sandbox = self._named(project, name)
        orphans = request.query.get("deleteOrphanSnapshots") == "true"
        self.world.delete(project, sandbox, orphans=orphans)
        return json_response({"sandbox": sandbox.json()})

    def _fork(self, project: Project, request: Request, name: str) -> Answer:
        source = self._named(project, name)
        body = {
            "env": source.env,
            "ports": source.ports,
            "timeout": source.timeout,
            "resources": {"vcpus": source.vcpus},
            "name": f"fork-{new_id('x')[2:12]}",
            **_body(request),
        }
        if source.current_snapshot_id:
            body["source"] = {"type": "snapshot", "snapshotId": source.current_snapshot_id}
        return self._whole(self.world.create(project, body))

    def _list(self, project: Project, request: Request) -> Answer:
        query = request.query
        by_name = query.get("sortBy") == "name"
        if "namePrefix" in query and not by_name:
            raise bad("`namePrefix` needs `sortBy=name`.")
        found = [
            sandbox
            for sandbox in project.sandboxes.values()
            if sandbox.name.startswith(query.get("namePrefix", ""))
        ]
        if "tags" in query:
            key, _, value = query["tags"].partition(":")
            found = [sandbox for sandbox in found if sandbox.tags.get(key) == value]
        items = [
            ((s.name, "") if by_name else (f"{s.created_at:015d}", s.name), s.json()) for s in found
        ]
        return json_response(_page("sandboxes", items, query, self.page_size))

    def _sessions(self, project: Project, request: Request) -> Answer:
        name = request.query.get("name")
        found = [
            s for b in project.sandboxes.values() if name in (None, b.name) for s in b.sessions
        ]
        items = [((f"{s.created_at:015d}", s.id), s.json()) for s in found]
        return json_response(_page("sessions", items, request.query, self.page_size))

    def _snapshots(self, project: Project, request: Request) -> Answer:
        found = self.world.snapshots(project, request.query.get("name"))
        items = [((f"{s.created_at:015d}", s.id), s.json()) for s in found]
        return json_response(_page("snapshots", items, request.query, self.page_size))

    def _get_snapshot(self, project: Project, request: Request, snapshot: str) -> Answer:
        del request
        return json_response({"snapshot": project.snapshots[snapshot].json()})

    def _delete_snapshot(self, project: Project, request: Request, snapshot: str) -> Answer:
        del request
        self.world.delete_snapshot(project.snapshots[snapshot])
        return json_response({"snapshot": project.snapshots[snapshot].json()})

    # Sessions

    def _get_session(self, session: Session, request: Request) -> Answer:
        del request
        return json_response({"session": session.json(), "routes": session.sandbox.routes()})

    def _stop(self, session: Session, request: Request) -> Answer:
        del request
        saved = self.world.stop(self.world.projects[session.sandbox.project], session)
        answer = {"session": session.json(), "sandbox": session.sandbox.json()}
        return json_response(answer | ({"snapshot": saved.json()} if saved else {}))

    def _extend(self, session: Session, request: Request) -> Answer:
        _running(session)
        duration = _body(request).get("duration", 0)
        if duration < 1000:
            raise bad("`duration` should be >= 1000.")
        session.timeout += duration
        return json_response({"session": session.json()})

    def _snapshot(self, session: Session, request: Request) -> Answer:
        expiration = _body(request).get("expiration")
        if expiration is not None and expiration != 0 and expiration < 86_400_000:
            raise bad("`expiration` should be 0 or >= 86400000.")
        project = self.world.projects[session.sandbox.project]
        saved = self.world.save(project, session, expiration)
        return json_response({"snapshot": saved.json(), "session": session.json()}, 201)

    def _network(self, session: Session, request: Request) -> Answer:
        _running(session)
        session.sandbox.network_policy = _body(request)
        return json_response({"session": session.json()})

    # Commands

    def _run(self, session: Session, request: Request) -> Answer:
        _running(session)
        body = _body(request)
        timeout = body.get("timeout")
        if timeout is not None and timeout < 100:
            raise bad("`timeout` should be >= 100.")
        # Whoever stops the session waits for the lock, and then sees this process: what was saved
        # of a machine is the last of it.
        with self.world.lock:
            _running(session)
            process = session.sandbox.machine.start(
                body["command"],
                body.get("args") or [],
                cwd=body.get("cwd"),
                env={**session.sandbox.env, **(body.get("env") or {})},
                kill_after_s=None if timeout is None else timeout / 1000,
            )
        command = Command(
            id=new_id("cmd"),
            name=body["command"],
            args=body.get("args") or [],
            cwd=body.get("cwd") or str(session.sandbox.machine.cwd),
            session_id=session.id,
            started_at=self.world.now(),
            process=process,
        )
        with self.world.lock:
            session.commands.append(command)
        if not body.get("wait"):
            return json_response({"command": command.json(ended=False)})
        return Stream(self._whole_run(session, command, with_logs=bool(body.get("logs"))))

    def _whole_run(
        self, session: Session, command: Command, *, with_logs: bool
    ) -> Generator[bytes]:
        yield _line({"command": command.json(ended=False)})
        for record in self._follow(session, command, begun=command.started_at):
            broken_off = record.startswith(b'{"stream": "error"')
            if with_logs or broken_off:
                yield record
            if broken_off:
                return
        yield _line({"command": command.json()})

    def _follow(self, session: Session, command: Command, *, begun: int) -> Generator[bytes]:
        """The output from its beginning, until the command ends or the session does."""
        process = command.process
        sent = 0
        while True:
            with process.changed:
                if sent == len(process.records) and process.exit_code is None:
                    process.changed.wait(0.05)
                fresh = process.records[sent:]
                over = process.exit_code is not None and sent + len(fresh) == len(process.records)
            for stream, text in fresh:
                yield _line({"stream": stream, "data": text})
            sent += len(fresh)
            if session.status != "running" and (over or session.status == "stopped"):
                text = "Sandbox stream was closed and is not accepting commands."
                data = {"code": "sandbox_stream_closed", "message": text}
                yield _line({"stream": "error", "data": data})
                return
            if over:
                return
            if self.world.now() - begun > self.max_stream_s * 1000:
                raise CutError

    def _commands(self, session: Session, request: Request) -> Answer:
        del request
        _running(session)
        found = session.commands[::-1]
        if self.lag_commands:
            self.lag_commands -= 1
            found = found[1:]
        return json_response({"commands": [command.json() for command in found]})

    def _found(self, session: Session, command_id: str) -> Command:
        _running(session)
        for command in session.commands:
            if command.id == command_id:
                return command
        raise ApiError(404, "not_found", "Command not found.")

    def _command(self, session: Session, request: Request, command: str) -> Answer:
        found = self._found(session, command)
        begun = self.world.now()
        while request.query.get("wait") == "true" and found.process.exit_code is None:
            with found.process.changed:
                found.process.changed.wait(0.05)
            if session.status != "running":
                raise stopped()
            if self.world.now() - begun > self.max_stream_s * 1000:
                raise CutError
        return json_response({"command": found.json()})

    def _logs(self, session: Session, request: Request, command: str) -> Answer:
        del request
        found = self._found(session, command)
        return Stream(self._follow(session, found, begun=self.world.now()))

    def _kill(self, session: Session, request: Request, command: str) -> Answer:
        found = self._found(session, command)
        answer = found.json()
        found.process.signal(int(_body(request).get("signal", 15)))
        return json_response({"command": answer})

    # Files

    def _write(self, session: Session, request: Request) -> Answer:
        _running(session)
        if request.headers.get("content-type") != "application/gzip":
            raise bad("expected application/gzip.")
        session.sandbox.machine.extract(request.body, request.headers.get("x-cwd"))
        return json_response({})

    def _read(self, session: Session, request: Request) -> Answer:
        _running(session)
        body = _body(request)
        file = session.sandbox.machine.read(body["path"], body.get("cwd"))

        def pieces() -> Generator[bytes]:
            with file:
                while data := file.read(256 * 1024):
                    yield data

        return Stream(pieces(), "application/octet-stream")

    def _mkdir(self, session: Session, request: Request) -> Answer:
        _running(session)
        body = _body(request)
        recursive = bool(body.get("recursive", False))
        session.sandbox.machine.mkdir(body["path"], body.get("cwd"), recursive=recursive)
        return json_response({})


def _running(session: Session) -> None:
    refuse_transition(session)
    if session.status != "running":
        raise stopped()


def _body(request: Request) -> Json:
    try:
        found = request.json()
    except ValueError:
        raise bad("Invalid JSON") from None
    if not isinstance(found, dict):
        raise bad("should be an object.")
    return found


def _line(record: Json) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _page(
    key: str, items: list[tuple[tuple[str, str], Json]], query: dict[str, str], most: int
) -> Json:
    """One page; the cursor is the place of its last item in the order."""
    backwards = query.get("sortOrder", "desc") != "asc"
    items.sort(key=lambda item: item[0], reverse=backwards)
    if "cursor" in query:
        try:
            first, second = json.loads(base64.urlsafe_b64decode(query["cursor"]))
        except ValueError:
            raise bad("`cursor` is invalid.") from None
        after = (first, second)
        items = [item for item in items if (item[0] < after if backwards else item[0] > after)]
    limit = min(int(query.get("limit", "50")), most)
    page, more = items[:limit], len(items) > limit
    cursor = base64.urlsafe_b64encode(json.dumps(page[-1][0]).encode()).decode() if more else None
    return {key: [item[1] for item in page], "pagination": {"count": len(page), "next": cursor}}
