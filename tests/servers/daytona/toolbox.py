"""The daemon inside a sandbox: commands and files."""

from __future__ import annotations

import re
import shutil
import subprocess
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any
from urllib.parse import quote

from servers.daytona.boxes import PENDING, ApiError, Box, Boxes, Json, iso
from servers.daytona.guest import ExecTimeoutError, Guest
from servers.daytona.sessions import Sessions
from servers.http import Request, Response

BOUNDARY = "DAYTONA-FILE-BOUNDARY"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Toolbox:
    """Answers what is below ``/toolbox/{sandbox id}``.

    Attributes:
        commands: Every command as it came in, for tests.
    """

    def __init__(self, boxes: Boxes) -> None:
        self.boxes = boxes
        self.commands: list[str] = []
        self._sessions: dict[str, Sessions] = {}

    def answer(self, request: Request, box: Box, path: str) -> Response:
        """Answer a request for a sandbox; ``path`` begins after its id."""
        guest = self._running(box)
        box.last_activity = self.boxes.now()
        if path.startswith("/process/session"):
            sessions = self._sessions.setdefault(box.id, Sessions())
            return sessions.answer(request, guest, path.removeprefix("/process/session"))
        match request.method, path:
            case "POST", "/process/execute":
                return self._execute(request, box)
            case "POST", "/files/bulk-upload":
                return self._upload(request, guest)
            case "POST", "/files/bulk-download":
                return self._download(request, guest)
            case "GET", "/files":
                folder = self._path(guest, request.query.get("path", ""))
                if not folder.is_dir():
                    raise ApiError(404, "no such directory", code="FILE_NOT_FOUND")
                return Response(200, [_info(file) for file in sorted(folder.iterdir())])
            case "GET", "/files/info":
                return Response(200, _info(self._path(guest, request.query["path"])))
            case "POST", "/files/folder":
                self._make(guest, self._path(guest, request.query["path"]))
                return Response(201)
            case "DELETE", "/files":
                return self._delete(request, guest)
            case "GET", "/work-dir" | "/user-home-dir":
                return Response(200, {"dir": str(guest.home)})
        raise ApiError(404, f"Cannot {request.method} {path}")

    def _running(self, box: Box) -> Guest:
        with self.boxes.lock:
            self.boxes.settle(box)
            if box.state in ("stopping", "destroying"):
                raise ApiError(502, "")
            if box.guest is None or box.state in ("destroyed", "archived"):
                raise ApiError(404, "sandbox container not found", code="NOT_FOUND")
            if box.state != "started" and (box.state in PENDING or box.state in STOPPED):
                raise ApiError(400, "no IP address found. Is the Sandbox started?")
            return box.guest

    def _execute(self, request: Request, box: Box) -> Response:
        body = request.json()
        command: str = body.get("command") or ""
        if not command.strip():
            raise ApiError(400, "command is required")
        env: dict[str, str] = body.get("envs") or {}
        if bad := [name for name in env if not _ENV_NAME.fullmatch(name)]:
            raise ApiError(400, f"invalid environment variable name: {bad[0]}")
        self.commands.append(command)
        # Whoever stops the sandbox waits for the lock, and then sees this process.
        with self.boxes.lock:
            guest = self._running(box)
            try:
                process = guest.start(command, cwd=body.get("cwd"), env=env)
            except OSError as error:
                return Response(200, {"exitCode": -1, "result": str(error)})
        try:
            code, output = self._finish(guest, process, command, body.get("timeout"))
        except ExecTimeoutError:
            raise ApiError(
                408, "request timeout: command execution timeout", code="REQUEST_TIMEOUT"
            ) from None
        finally:
            box.last_activity = self.boxes.now()
        if box.state != "started":
            raise ApiError(502, "")
        return Response(200, {"exitCode": code, "result": output})

    @staticmethod
    def _finish(
        guest: Guest, process: subprocess.Popen[bytes], command: str, timeout: Any
    ) -> tuple[int, str]:
        with process:
            return guest.finish(process, command, timeout or None)

    def _upload(self, request: Request, guest: Guest) -> Response:
        kind = request.headers["content-type"].encode("latin-1")
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind + b"\r\n\r\n")
        boundary = message.get_boundary()
        assert boundary is not None
        paths: dict[str, str] = {}
        for part in request.body.split(b"--" + boundary.encode())[1:-1]:
            head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            found = re.search(rb'name="files\[(\d+)\]\.(path|file)"', head)
            assert found is not None
            index, data = found.group(1).decode(), data.removesuffix(b"\r\n")
            if found.group(2) == b"path":
                paths[index] = data.decode().strip()
                continue
            target = self._path(guest, paths[index])
            if target.is_dir():
                raise ApiError(400, "is a directory", errors=[f"{target}: is a directory"])
            self._make(guest, target.parent)
            target.write_bytes(data)
            guest.own(target)
        return Response(200, {})

    def _download(self, request: Request, guest: Guest) -> Response:
        parts: list[bytes] = []
        for path in request.json()["paths"]:
            target = self._path(guest, path)
            kind, data = "file", b""
            if target.is_file():
                data = target.read_bytes()
            else:
                kind = "error"
                code = "INVALID_FILE_PATH" if target.is_dir() else "FILE_NOT_FOUND"
                status = 400 if target.is_dir() else 404
                data = (
                    f'{{"statusCode":{status},"code":"{code}","message":"{code.lower()}",'
                    '"source":"DAYTONA_DAEMON"}'
                ).encode()
            head = (
                f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{kind}"; '
                f"filename=\"{path}\"; filename*=utf-8''{quote(path)}\r\n"
                f"Content-Type: application/{'octet-stream' if kind == 'file' else 'json'}\r\n\r\n"
            )
            parts.append(head.encode() + data + b"\r\n")
        body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
        return Response(200, body, f"multipart/form-data; boundary={BOUNDARY}")

    def _delete(self, request: Request, guest: Guest) -> Response:
        target = self._path(guest, request.query["path"])
        if not target.exists():
            raise ApiError(404, "no such file", code="FILE_NOT_FOUND")
        if target.is_dir():
            if request.query.get("recursive") != "true":
                raise ApiError(400, "cannot delete directory without recursive flag")
            shutil.rmtree(target)
        else:
            target.unlink()
        return Response(204)

    @staticmethod
    def _path(guest: Guest, path: str) -> Path:
        return guest.home / path

    @staticmethod
    def _make(guest: Guest, folder: Path) -> None:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=0o755)
            guest.own(one)


STOPPED = ("stopped", "error", "build_failed", "paused")


def _info(path: Path) -> Json:
    if not path.exists():
        raise ApiError(404, "no such file", code="FILE_NOT_FOUND")
    facts = path.stat()
    return {
        "name": path.name,
        "size": facts.st_size,
        "isDir": path.is_dir(),
        "mode": "drwxr-xr-x" if path.is_dir() else "-rw-r--r--",
        "modTime": iso(facts.st_mtime),
        "modifiedAt": iso(facts.st_mtime),
        "permissions": f"{facts.st_mode & 0o7777:04o}",
        "owner": str(facts.st_uid),
        "group": str(facts.st_gid),
        "path": str(path),
    }
