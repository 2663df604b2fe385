"""What a sandbox really is here: a home folder and the processes that were started in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

MARK = "DAYTONA_LOOPBACK_SANDBOX"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def _first_uid() -> int:
    """Begin of a range of user ids for this process: ending a guest ends all that has its id."""
    if int(Path("/proc/self/uid_map").read_text().split()[2]) > 2**31:
        return 2**30 + (os.getpid() % 2**20) * 1024
    return 41_000 + (os.getpid() % 1000) * 10


_uids = itertools.count(_first_uid())


class ExecTimeoutError(Exception):
    """The command was still running at its timeout, and was killed."""


class Guest:
    """Runs commands in a folder, each call in a session of its own.

    For root every guest is an ordinary user with an id of its own.

    Args:
        folder: Where the home is made.
        name: Mark of its processes.
        env: Environment of every command.
        shell: The shell that commands are piped to.
    """

    def __init__(self, folder: Path, name: str, env: dict[str, str], shell: list[str]) -> None:
        self.home = folder / name
        self.home.mkdir(mode=0o700)
        self._mark = f"{MARK}={name}".encode()
        self._shell = shell
        self._uid = next(_uids) if os.getuid() == 0 else None
        if self._uid is not None:
            os.chown(self.home, self._uid, self._uid)
        self._env = {**env, "PATH": PATH, "HOME": str(self.home), MARK: name, "LANG": "C.UTF-8"}

    def start(
        self, command: str, *, cwd: str | None, env: dict[str, str], stderr: int = subprocess.STDOUT
    ) -> subprocess.Popen[bytes]:
        """Start a shell that reads ``command`` from its standard input."""
        return subprocess.Popen(
            self._shell,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=cwd or self.home,
            env={**self._env, **env},
            start_new_session=True,
            user=self._uid,
            group=self._uid,
            extra_groups=None if self._uid is None else [],
        )

    def finish(
        self, process: subprocess.Popen[bytes], command: str, timeout_s: float | None
    ) -> tuple[int, str]:
        """Return exit code and output; both streams are one, and invalid UTF-8 is replaced.

        Raises:
            ExecTimeoutError: It was killed, with its process group.
        """
        try:
            output, _ = process.communicate(command.encode("utf-8", "replace"), timeout_s)
        except subprocess.TimeoutExpired:
            self._kill_group(process)
            raise ExecTimeoutError from None
        code = process.returncode
        return (-1 if code < 0 else code), output.decode("utf-8", "replace")

    def own(self, path: Path) -> None:
        """Make the guest the owner of a file that was made from outside."""
        if self._uid is not None:
            os.chown(path, self._uid, self._uid)

    def end_all(self) -> None:
        """Kill every process of the guest, until none is left."""
        deadline = time.monotonic() + 20
        while found := [pid for pid in _pids() if self._is_ours(pid)]:
            if time.monotonic() > deadline:
                raise AssertionError(f"processes of {self.home.name} do not end: {found}")
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def remove(self) -> None:
        """End everything and remove the home."""
        self.end_all()
        shutil.rmtree(self.home, ignore_errors=True)

    def _kill_group(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _is_ours(self, pid: int) -> bool:
        folder = Path(f"/proc/{pid}")
        try:
            if b") Z " in (folder / "stat").read_bytes():
                return False
            if self._uid is not None and folder.stat().st_uid == self._uid:
                return True
            return self._mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
