"""The filesystem API of a sprite."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

from servers.http import Exchange, Request, Response
from servers.sprites.machine import Machine
from servers.sprites.switches import Switches

WRITE_BYTES = 16 * 1024 * 1024
READ_CHUNK = 256 * 1024


class Files:
    """What is below ``/v1/sprites/{name}/fs/``."""

    def __init__(self, switches: Switches) -> None:
        self.switches = switches

    def answer(self, exchange: Exchange, machine: Machine, verb: str) -> Response | None:
        request = exchange.request
        if machine.status == "cold" and self.switches.cold_fs_hangs_s:
            self.switches.closing.wait(self.switches.cold_fs_hangs_s)
        act = {
            ("GET", "read"): lambda request, _: self._read(request, exchange),
            ("PUT", "write"): self._write,
            ("GET", "list"): self._list,
            ("DELETE", "delete"): self._delete,
            ("POST", "rename"): self._rename,
            ("POST", "copy"): self._copy,
            ("POST", "chmod"): self._chmod,
        }.get((request.method, verb))
        if act is None:
            return Response(404, {"error": "not found"})
        try:
            with machine.attached():
                return act(request, machine)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            name = errno.errorcode.get(error.errno or 0, "EIO")
            status = {"ENOENT": 404, "EACCES": 403, "EPERM": 403, "EEXIST": 409}.get(name, 400)
            text = (os.strerror(error.errno or errno.EIO)).lower()
            body = {"error": text, "code": name, "path": request.query.get("path", "")}
            return Response(status, body)

    def _read(self, request: Request, exchange: Exchange) -> None:
        path = _path(request.query)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        with path.open("rb") as file:
            left = self.switches.truncate_read_at or 1 << 60
            exchange.begin_chunks("application/octet-stream")
            while left and (data := file.read(min(READ_CHUNK, left))):
                exchange.chunk(data)
                left -= len(data)
                if self.switches.take("read_cut"):
                    exchange.drop(reset=True)
                    return
            exchange.end_chunks()

    def _write(self, request: Request, machine: Machine) -> Response:
        if len(request.body) > WRITE_BYTES:
            return Response(413, {"error": "request body too large", "code": "EINVAL"})
        path = _path(request.query)
        _may_write(machine, path)
        mode = int(request.query.get("mode", "0644"), 8)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(request.body)
        path.chmod(mode)
        return Response(200, {"path": str(path), "size": len(request.body), "mode": f"{mode:04o}"})

    def _list(self, request: Request, machine: Machine) -> Response:
        path = _path(request.query)
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        if not path.is_dir():
            path.lstat()
        entries = []
        for entry in found:
            with contextlib.suppress(FileNotFoundError):
                entries.append(_entry(entry))
        return Response(200, {"path": str(path), "entries": entries, "count": len(entries)})

    def _delete(self, request: Request, machine: Machine) -> Response:
        path = _path(request.query)
        _may_write(machine, path)
        path.lstat()
        if path.is_dir() and not path.is_symlink():
            if request.query.get("recursive") == "true":
                shutil.rmtree(path)
            else:
                path.rmdir()
        else:
            path.unlink()
        return Response(200, {"deleted": [str(path)], "count": 1})

    def _rename(self, request: Request, machine: Machine) -> Response:
        order = request.json()
        source = _path({**order, "path": order["source"]})
        target = _path({**order, "path": order["dest"]})
        _may_write(machine, source)
        _may_write(machine, target)
        source.rename(target)
        return Response(200, {"source": str(source), "dest": str(target)})

    def _copy(self, request: Request, machine: Machine) -> Response:
        order = request.json()
        source = _path({**order, "path": order["source"]})
        target = _path({**order, "path": order["dest"]})
        _may_write(machine, target)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        copied = [{"source": str(source), "dest": str(target)}]
        return Response(200, {"copied": copied, "count": 1, "totalBytes": target.stat().st_size})

    def _chmod(self, request: Request, machine: Machine) -> Response:
        order = request.json()
        path = _path(order)
        _may_write(machine, path)
        path.chmod(int(order["mode"], 8))
        return Response(200, {"affected": [str(path)], "count": 1})


def _path(query: dict[str, Any]) -> Path:
    path = os.path.join(str(query.get("workingDir") or "/"), str(query.get("path") or ""))  # noqa: PTH118
    if not path.startswith("/"):
        raise OSError(errno.EINVAL, "")
    return Path(path)


def _may_write(machine: Machine, path: Path) -> None:
    """Only below the machine's own home: the rest belongs to the machine we run on."""
    real = os.path.realpath(path.parent)
    home = os.path.realpath(machine.home)
    if os.path.commonpath((real, home)) != home:
        raise PermissionError(errno.EACCES, "")


def _entry(path: Path) -> dict[str, Any]:
    found = path.lstat()
    kind = "symlink" if path.is_symlink() else "directory" if path.is_dir() else "file"
    return {
        "name": path.name,
        "path": str(path),
        "type": kind,
        "size": found.st_size,
        "mode": f"{found.st_mode & 0o7777:04o}",
        "modTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.st_mtime)),
        "isDir": kind == "directory",
    }
