"""Sessions of the toolbox, as far as clients use them to run one command each.

Unlike the real ones, each command has a shell of its own: nothing but the folder of commands that
ran before is left to the next one.
"""

from __future__ import annotations

import subprocess
import threading
import uuid
from dataclasses import dataclass, field

from servers.daytona.boxes import ApiError, Json
from servers.daytona.guest import Guest
from servers.http import Request, Response


@dataclass(slots=True)
class Command:
    """A command of a session."""

    id: str
    text: str
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def body(self) -> Json:
        """The command as the toolbox answers it."""
        body: Json = {"id": self.id, "command": self.text}
        return body if self.exit_code is None else {**body, "exitCode": self.exit_code}


class Sessions:
    """The sessions of one sandbox."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[str, Command]] = {}

    def answer(self, request: Request, guest: Guest, path: str) -> Response:
        """Answer a request; ``path`` begins after ``/process/session``."""
        words = path.strip("/").split("/")
        match request.method, words:
            case "POST", [""]:
                name = request.json()["sessionId"]
                if name in self._sessions:
                    raise ApiError(409, "session already exists")
                self._sessions[name] = {}
                return Response(201)
            case "DELETE", [name]:
                self._session(name)
                del self._sessions[name]
                return Response(204)
            case "POST", [name, "exec"]:
                return self._execute(request.json(), guest, self._session(name))
            case "GET", [name, "command", command]:
                return Response(200, self._command(name, command).body())
            case "GET", [name, "command", command, "logs"]:
                found = self._command(name, command)
                output = found.stdout + found.stderr
                logs = {"output": output, "stdout": found.stdout, "stderr": found.stderr}
                return Response(200, logs)
        raise ApiError(404, f"Cannot {request.method} {request.path}")

    def _session(self, name: str) -> dict[str, Command]:
        if name not in self._sessions:
            raise ApiError(404, "session not found")
        return self._sessions[name]

    def _command(self, session: str, name: str) -> Command:
        found = self._session(session).get(name)
        if found is None:
            raise ApiError(404, "command not found")
        return found

    def _execute(self, order: Json, guest: Guest, session: dict[str, Command]) -> Response:
        command = Command(str(uuid.uuid4()), order["command"])
        session[command.id] = command
        process = guest.start(order["command"], cwd=None, env={}, stderr=subprocess.PIPE)
        thread = threading.Thread(target=self._finish, args=(process, command), daemon=True)
        thread.start()
        if order.get("runAsync") or order.get("async"):
            return Response(202, {"cmdId": command.id})
        command.done.wait()
        answer: Json = {"cmdId": command.id, "output": command.stdout + command.stderr}
        answer |= {"stdout": command.stdout, "stderr": command.stderr}
        return Response(200, {**answer, "exitCode": command.exit_code})

    @staticmethod
    def _finish(process: subprocess.Popen[bytes], command: Command) -> None:
        with process:
            out, err = process.communicate(command.text.encode())
        command.stdout = out.decode(errors="replace")
        command.stderr = err.decode(errors="replace")
        command.exit_code = process.returncode
        command.done.set()
