"""A sprite's machine: a folder, real processes, and how it falls asleep and wakes up."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from servers.clock import ServerClock
from servers.processes import Processes

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
MARK = "SPRITE_LOOPBACK"
"""Environment variable that says to which machine a process belongs."""

IDLE_S = 30.0
COLD_S = 300.0

Status = Literal["cold", "warm", "running"]


class Machine:
    """The inside of one sprite.

    Attributes:
        home: Its home folder.
        status: As the API tells it.
        tasks: Names of what keeps it awake, and until when.
        ports: Where its ports really are on this machine.
        boots: How often it was started from cold.
    """

    def __init__(self, folder: Path, mark: str, tools: Path, clock: ServerClock) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.mark = mark
        self.clock = clock
        self.status: Status = "cold"
        self.tasks: dict[str, float] = {}
        self.task_log: list[str] = []
        self.ports: dict[int, int] = {}
        self.boots = 0
        self.last_running_at: float | None = None
        self._attached = 0
        self._last_used = clock.now()
        self._lock = threading.RLock()
        self.dead = False
        self.home.mkdir(parents=True)
        self.environment = {
            "HOME": str(self.home),
            "USER": "sprite",
            "LANG": "C.UTF-8",
            "PATH": f"{tools}:{SYSTEM_PATH}",
        }
        self._processes = Processes((MARK, mark))

    def popen(
        self, argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own. A given ``env`` replaces the default one."""
        with self._lock:
            if self.dead:
                raise FileNotFoundError("the machine is gone")
            return self._processes.start(argv, cwd=cwd or self.home, env=env or self.environment)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Count a request that keeps the machine awake; it wakes up for it."""
        with self._lock:
            self._attached += 1
            self.wake()
        try:
            yield
        finally:
            with self._lock:
                self._attached -= 1
                self._last_used = self.clock.now()

    def wake(self) -> None:
        with self._lock:
            if self.status == "cold":
                self.boots += 1
            if self.status == "warm":
                self._processes.signal(signal.SIGCONT)
            self.status = "running"
            self.last_running_at = self.clock.now()
            self._last_used = self.clock.now()

    def hold(self, name: str, seconds: float) -> None:
        """Keep the machine awake for a while."""
        self.tasks[name] = self.clock.now() + seconds
        self.task_log.append(f"PUT {name}")

    def let_go(self, name: str) -> bool:
        self.task_log.append(f"DELETE {name}")
        return self.tasks.pop(name, None) is not None

    def settle(self) -> bool:
        """Fall asleep if nobody needs the machine. True if it did."""
        with self._lock:
            now = self.clock.now()
            self.tasks = {name: end for name, end in self.tasks.items() if end > now}
            idle = now - self._last_used
            if self._attached or self.tasks or self.dead:
                if self.tasks:
                    self._last_used = now
                return False
            if self.status == "running" and idle >= IDLE_S:
                self.freeze()
                return True
            if self.status == "warm" and idle >= COLD_S:
                self.go_cold()
            return False

    def freeze(self) -> None:
        with self._lock:
            if self.status == "running":
                self._processes.signal(signal.SIGSTOP)
                self.status = "warm"

    def go_cold(self) -> None:
        """Lose memory and processes; the files stay."""
        with self._lock:
            self._processes.end()
            self.tasks.clear()
            self.status = "cold"

    def destroy(self) -> None:
        with self._lock:
            self.dead = True
            self._processes.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, target: Path) -> None:
        """Copy the files as a checkpoint."""
        target.mkdir(parents=True)
        if any(self.home.iterdir()):
            # What is removed meanwhile is not in it.
            copy = ["cp", "-a", f"{self.home}/.", str(target)]
            subprocess.run(copy, stderr=subprocess.DEVNULL, check=False)

    def load(self, source: Path) -> None:
        """End everything and return the files to a checkpoint."""
        with self._lock:
            self._processes.end()
            self.tasks.clear()
            for entry in self.home.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
            subprocess.run(["cp", "-a", f"{source}/.", str(self.home)], check=True)
            self.boots += 1
            self.status = "running"
            self._last_used = self.clock.now()
