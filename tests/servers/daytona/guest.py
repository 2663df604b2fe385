"""What a sandbox really is here: a home folder and the processes that were started in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from servers.processes import Processes

MARK = "DAYTONA_LOOPBACK_SANDBOX"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


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
        self._shell = shell
        self._processes = Processes((MARK, name), user=True)
        self._processes.own(self.home)
        self._env = {**env, "PATH": PATH, "HOME": str(self.home), "LANG": "C.UTF-8"}

    def start(
        self, command: str, *, cwd: str | None, env: dict[str, str], stderr: int = subprocess.STDOUT
    ) -> subprocess.Popen[bytes]:
        """Start a shell that reads ``command`` from its standard input."""
        environment = {**self._env, **env}
        return self._processes.start(
            self._shell, cwd=cwd or self.home, env=environment, stderr=stderr
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
        self._processes.own(path)

    def end_all(self) -> None:
        """Kill every process of the guest, until none is left."""
        self._processes.end()

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
