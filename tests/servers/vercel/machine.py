"""What stands for a virtual machine: a folder, real processes in it, and an end for all of them."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import secrets
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import IO

from servers.processes import Processes

MARK = "VERCEL_SERVER_MACHINE"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MachineError(Exception):
    """A call is refused: HTTP status, code, message and further fields of the error."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more


class Process:
    """A running or ended command and the text it wrote, in order of arrival.

    Attributes:
        records: Pairs of stream and text.
        exit_code: None while it runs.
    """

    def __init__(self, popen: subprocess.Popen[bytes], kill_after_s: float | None) -> None:
        self.records: list[tuple[str, str]] = []
        self.exit_code: int | None = None
        self.duration_ms = 0
        self.changed = threading.Condition()
        self._popen = popen
        self._started = time.monotonic()
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("stdout", popen.stdout), ("stderr", popen.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self._timer: threading.Timer | None = None
        if kill_after_s is not None:
            self._timer = threading.Timer(kill_after_s, self.signal, (signal.SIGKILL,))
            self._timer.daemon = True
            self._timer.start()
        threading.Thread(target=self._wait, daemon=True).start()

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with pipe:
            while True:
                data = os.read(pipe.fileno(), 32 * 1024)
                text = decoder.decode(data, final=not data)
                if text:
                    with self.changed:
                        self.records.append((name, text))
                        self.changed.notify_all()
                if not data:
                    return

    def _wait(self) -> None:
        code = self._popen.wait()
        if self._timer is not None:
            self._timer.cancel()
        # A child left in the background may hold the pipes open; the command has ended anyway.
        end = time.monotonic() + 0.3
        for reader in self._readers:
            reader.join(max(0.0, end - time.monotonic()))
        with self.changed:
            self.exit_code = 128 - code if code < 0 else code
            self.duration_ms = int((time.monotonic() - self._started) * 1000)
            self.changed.notify_all()

    def signal(self, number: int) -> None:
        """Send a signal to the process itself, not to its group."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)


class Machine:
    """The files and processes of one sandbox. The folder stays the same for every session."""

    def __init__(self, top: Path, number: int, folder: str) -> None:
        self.root = top / f"{number}-{secrets.token_hex(4)}"
        self.cwd = self.root / folder
        self._processes = Processes((MARK, self.root.name), user=True)

    def boot(self, image: Path | None) -> None:
        """Begin with the files of a snapshot, or with none."""
        self.wipe()
        self.root.mkdir(mode=0o755)
        if image is None:
            self.cwd.mkdir(parents=True)
        else:
            subprocess.run(["cp", "-a", f"{image}/.", str(self.root)], check=True)
            self.cwd.mkdir(parents=True, exist_ok=True)
        uid = self._processes.uid
        if uid is not None:
            subprocess.run(["chown", "-R", f"{uid}:{uid}", str(self.root)], check=True)

    def save(self, image: Path) -> int:
        """Copy all files to a new folder and return their size."""
        image.mkdir()
        subprocess.run(["cp", "-a", f"{self.root}/.", str(image)], check=True)
        return sum(path.lstat().st_size for path in image.rglob("*") if path.is_file())

    def wipe(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def start(
        self,
        command: str,
        args: list[str],
        *,
        cwd: str | None,
        env: dict[str, str],
        kill_after_s: float | None,
    ) -> Process:
        """Start a program, found in the PATH that it gets itself, in a session of its own."""
        environment = {"PATH": PATH, "HOME": str(self.cwd), "USER": "vercel-sandbox", **env}
        if shutil.which(command, path=environment["PATH"]) is None:
            raise MachineError(
                400,
                "executable_not_found",
                f"[invalid_argument] executable file not found in $PATH: {command}",
            )
        where = self.inside(cwd or ".")
        if not where.is_dir():
            raise MachineError(400, "bad_request", f"[invalid_argument] no such directory: {cwd}")
        try:
            popen = self._processes.start(
                [command, *args], cwd=where, env=environment, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            raise MachineError(400, "bad_request", f"[invalid_argument] {error.strerror}") from None
        return Process(popen, kill_after_s)

    def end(self) -> None:
        """Kill every process that belongs to the sandbox, until none is left."""
        self._processes.end()

    def inside(self, path: str, base: str | None = None) -> Path:
        """The real path of a path that a client gave; refuses what lies outside the folder."""
        start = self.cwd if base is None else self.inside(base)
        found = Path(os.path.normpath(start / path))
        if found != self.root and self.root not in found.parents:
            raise MachineError(400, "file_error", f"path is outside of the sandbox: {path}")
        return found

    def extract(self, body: bytes, base: str | None) -> None:
        """Unpack a gzipped tar; every entry belongs to the default user."""
        start = Path("/") if base == "/" else self.inside(base or ".")
        try:
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(body))) as archive:
                for member in archive:
                    self._put(archive, member, start)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
            raise MachineError(400, "bad_request", f"not a gzipped tar: {error}") from None
        except OSError as error:
            raise MachineError(
                400, "file_error", f"error writing files: {error.strerror}"
            ) from None

    def _put(self, archive: tarfile.TarFile, member: tarfile.TarInfo, start: Path) -> None:
        target = self.inside(str(start / member.name))
        if member.isdir():
            self._make(target)
            return
        content = archive.extractfile(member)
        if content is None:
            raise MachineError(400, "file_error", f"not a regular file: {member.name}")
        self._make(target.parent)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(member.mode & 0o777)
        self._processes.own(target)

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir()
            self._processes.own(folder)

    def read(self, path: str, base: str | None) -> IO[bytes]:
        found = self.inside(path, base)
        if not found.exists():
            raise MachineError(404, "not_found", "File not found.")
        if not found.is_file():
            raise MachineError(400, "file_error", f"error reading file: {path}: not a regular file")
        uid = self._processes.uid
        if uid is not None and not _readable(found, uid):
            raise MachineError(400, "file_error", f"error reading file: {path}: Permission denied")
        try:
            return found.open("rb")
        except OSError as error:
            text = f"error reading file: {path}: {error.strerror}"
            raise MachineError(400, "file_error", text) from None

    def mkdir(self, path: str, base: str | None, *, recursive: bool) -> None:
        found = self.inside(path, base)
        try:
            if recursive:
                self._make(found)
            else:
                found.mkdir()
                self._processes.own(found)
        except OSError as error:
            text = f"error creating directory: {path}: {error.strerror}"
            raise MachineError(400, "file_error", text) from None


def _readable(path: Path, uid: int) -> bool:
    found = path.stat()
    return bool(found.st_mode & (0o400 if found.st_uid == uid else 0o004))
