"""The processes of one sandbox among all of this machine, and an end for all of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def _first_uid() -> int:
    """Begin of a range of user ids for this process: ending a sandbox ends all that has its id."""
    if int(Path("/proc/self/uid_map").read_text().split()[2]) > 2**31:
        return 2**30 + (os.getpid() % 2**20) * 1024
    return 41_000 + (os.getpid() % 1000) * 10


_uids = itertools.count(_first_uid())


class Processes:
    """Starts processes that can be found again, wherever they and their children went.

    Args:
        mark: Name and value of a variable in the environment of each.
        user: Run them as an ordinary user with an id of its own, where this process is root.
    """

    def __init__(self, mark: tuple[str, str], *, user: bool = False) -> None:
        self.uid = next(_uids) if user and os.geteuid() == 0 else None
        self._mark = mark
        self._begun = False

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: str | Path,
        env: Mapping[str, str],
        stdin: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, its standard output a pipe."""
        self._begun = True
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env={**env, self._mark[0]: self._mark[1]},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
        )

    def own(self, path: Path) -> None:
        """Make their user the owner of a file that was made from outside."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    def alive(self) -> list[int]:
        """Every one that still runs, or is stopped."""
        if not self._begun:
            return []
        folders = (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return [int(folder.name) for folder in folders if self._is_ours(folder)]

    def signal(self, number: int) -> bool:
        """Send a signal to every one; False when there was none."""
        found = self.alive()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(found)

    def end(self) -> None:
        """Kill every one, until none is left."""
        if not self._begun:
            return
        deadline = time.monotonic() + 20
        quiet = 0
        while quiet < 3:
            if time.monotonic() > deadline:
                raise AssertionError(f"processes of {self._mark[1]} do not end: {self.alive()}")
            if self.uid is not None:
                # At once, so that nothing that forks and exits can slip through.
                kill = ["sh", "-c", "kill -KILL -1"]
                subprocess.run(kill, user=self.uid, group=self.uid, extra_groups=[], check=False)
            quiet = 0 if self.signal(signal.SIGKILL) else quiet + 1
            time.sleep(0.002)

    def _is_ours(self, folder: Path) -> bool:
        try:
            if (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return False
            if self.uid is not None and folder.stat().st_uid == self.uid:
                return True
            mark = "=".join(self._mark).encode()
            return mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            return False
