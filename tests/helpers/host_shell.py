"""A sandbox that is a folder on this machine, reached through the shell under test.

``HostShell`` runs scripts as a provider would; ``Faults`` wraps any connection and makes its
calls fail in chosen ways.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.exceptions import ProviderTimeoutError, ProviderUnavailableError
from ekairos_sandbox.jobs.prepare import prepare
from ekairos_sandbox.jobs.runner import JobRunner
from ekairos_sandbox.jobs.spec import JobSpec, new_command_id
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.results import CommandResult
from ekairos_sandbox.retry import RetryPolicy

ShellName = Literal["dash", "bash", "busybox"]
SHELLS: tuple[ShellName, ...] = ("dash", "bash", "busybox")
MOST_SHELLS = ("dash", pytest.param("bash", marks=pytest.mark.slow), "busybox")
DASH_FIRST = (
    "dash",
    pytest.param("bash", marks=pytest.mark.slow),
    pytest.param("busybox", marks=pytest.mark.slow),
)
"""For what depends little on the shell: the others only in the long run."""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def install_shell(name: ShellName, folder: Path) -> str:
    """Fill a folder so that ``sh`` is the given shell; return the PATH to use.

    With busybox all its other programs come first too, as on Alpine.
    """
    folder.mkdir(parents=True)
    if name == "busybox":
        subprocess.run(["/usr/bin/busybox", "--install", "-s", str(folder)], check=True)
    else:
        (folder / "sh").symlink_to(f"/usr/bin/{name}")
    return f"{folder}:{SYSTEM_PATH}"


class HostShell(Connection):
    """Runs each script on this machine, in a session of its own.

    Args:
        home: Home directory of the sandbox.
        path: PATH of the scripts; its first ``sh`` is used.
        env: Further variables of the scripts.
        prefix: Program and arguments to run the shell under, e.g. ``setpriv``.
        by_stdin: Whether the script goes to the shell's standard input instead of its argument.
    """

    def __init__(
        self,
        home: Path,
        *,
        path: str = SYSTEM_PATH,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        by_stdin: bool = False,
        max_script_bytes: int | None = 131_071,
    ) -> None:
        self.external_id = "host"
        self.home = str(home)
        self.path = path
        self.env = {"PATH": path, "HOME": str(home), **(env or {})}
        self.prefix = prefix
        self.by_stdin = by_stdin
        self.max_script_bytes = max_script_bytes
        self.calls = 0
        self.uploads: list[str] = []

    @property
    def sh(self) -> str:
        """Path of the shell under test."""
        return next(
            f"{folder}/sh" for folder in self.path.split(":") if os.access(f"{folder}/sh", os.X_OK)
        )

    def popen(self, script: bytes) -> subprocess.Popen[bytes]:
        """Start a script as ``shell`` does and return at once."""
        words = [self.sh, "-s"] if self.by_stdin else [self.sh, "-c", os.fsdecode(script)]
        process = subprocess.Popen(
            [*self.prefix, *words],
            stdin=subprocess.PIPE if self.by_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.env,
            cwd="/",
            start_new_session=True,
        )
        if process.stdin:
            with process.stdin as pipe:
                pipe.write(script)
            process.stdin = None
        return process

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        assert self.max_script_bytes is None or len(script) <= self.max_script_bytes
        self.calls += 1
        with self.popen(script) as process:
            try:
                output, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise ProviderTimeoutError("no answer in time", outcome="unknown") from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if len(output) > max_bytes:
            raise ProviderUnavailableError("too much output", outcome="unknown", retryable=False)
        return output

    def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
        self.uploads.append(path)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{threading.get_ident()}")
        part.touch(mode)
        with part.open("wb") as file:
            size = sum(file.write(chunk) for chunk in chunks)
        part.replace(target)
        return size

    def read_file(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        with Path(path).open("rb") as file:
            file.seek(offset)
            yield from iter(lambda: file.read(1 << 16), b"")


Fault = Callable[[Callable[[], bytes]], bytes]
"""Takes the real call, which it may make or not, and answers in its place."""


def refused(call: Callable[[], bytes]) -> bytes:
    """The request never arrived, and the client knows."""
    del call
    raise ProviderUnavailableError("connection refused")


def lost_before(call: Callable[[], bytes]) -> bytes:
    """The request never arrived, and the client cannot know."""
    del call
    raise ProviderTimeoutError("no answer", outcome="unknown")


def lost_after(call: Callable[[], bytes]) -> bytes:
    """The script ran, the answer was lost."""
    call()
    raise ProviderUnavailableError("connection reset", outcome="unknown")


def cut(call: Callable[[], bytes]) -> bytes:
    """The answer lacks its end."""
    output = call()
    return output[: len(output) // 2]


def garbage(call: Callable[[], bytes]) -> bytes:
    """Something else was answered."""
    call()
    return b"<html>502 Bad Gateway</html>" + bytes(range(256))


def noisy(call: Callable[[], bytes]) -> bytes:
    """Banners around the answer, line ends and control bytes in it."""
    output = call().replace(b"\n", b"\r\n").replace(b"@EK1", b"\x01@E\x02K1")
    return b"sh: warning: @EK1: no job control\n" + output + b"logout\n"


class Faults(Connection):
    """A connection whose calls fail as told, one fault per call; without faults left it works."""

    def __init__(self, inner: HostShell, *faults: Fault) -> None:
        self.inner = inner
        self.external_id = inner.external_id
        self.home = inner.home
        self.max_script_bytes = inner.max_script_bytes
        self.faults = deque(faults)

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        def call() -> bytes:
            return self.inner.shell(script, timeout_s=timeout_s, max_bytes=max_bytes)

        return self.faults.popleft()(call) if self.faults else call()

    def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
        return self.inner.write_file(path, chunks, mode=mode)


EPOCH = "epoch-1"
QUICK = RetryPolicy(attempts=4, budget_s=30, base_s=0.01, cap_s=0.05)


@dataclass
class Box:
    """A prepared sandbox on this machine.

    Attributes:
        shell: The way into it.
        runner: Runs commands in it.
        home: Its home directory.
    """

    shell: HostShell
    runner: JobRunner
    home: Path

    @property
    def root(self) -> Path:
        return self.home / ".local/state/ekairos-sandbox"

    def job(self, command_id: str) -> Path:
        """The directory of a job."""
        return self.root / "jobs" / command_id

    def run(self, *argv: str, **fields: Any) -> CommandResult:
        """Run a command to its end."""
        return self.runner.run(spec(*argv, **fields))

    def faulty(self, *faults: Fault) -> JobRunner:
        """Return another runner of the same sandbox whose next calls fail."""
        return JobRunner(
            Faults(self.shell, *faults), home=str(self.home), epoch=EPOCH, policy=QUICK
        )


def spec(*argv: str, command_id: str = "", **fields: Any) -> JobSpec:
    """Return a command to run."""
    return JobSpec(command_id or new_command_id(), argv, **fields)


def sh(line: str, **fields: Any) -> JobSpec:
    """Return a line of shell to run."""
    return spec("sh", "-c", line, **fields)


def drop_to() -> tuple[tuple[str, ...], int]:
    """Return what to run programs under as an ordinary user, and that user's id."""
    if os.geteuid() != 0:
        return (), os.geteuid()
    user = next(u for name in ("cloudsdk", "nobody") for u in pwd.getpwall() if u.pw_name == name)
    ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return ("/usr/bin/setpriv", *ids), user.pw_uid


@contextlib.contextmanager
def open_box(
    name: ShellName = "dash",
    *,
    env: Mapping[str, str] | None = None,
    ordinary_user: bool = False,
    **options: Any,
) -> Iterator[Box]:
    """Prepare a sandbox in a new folder; afterwards end its commands and delete it.

    Args:
        name: Which shell.
        env: Environment of every command.
        ordinary_user: Whether commands run without privileges even if the tests have them.
        options: As ``HostShell`` takes them.
    """
    folder = Path(tempfile.mkdtemp(prefix="ekairos-test-"))
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    prefix: tuple[str, ...] = ()
    if ordinary_user:
        prefix, uid = drop_to()
        os.chown(home, uid, -1)
    try:
        shell = HostShell(home, path=install_shell(name, folder / "bin"), prefix=prefix, **options)
        prepare(shell, epoch=EPOCH, env=env or {}, clock=SystemClock())
        box = Box(shell, JobRunner(shell, home=str(home), epoch=EPOCH, policy=QUICK), home)
        yield box
        for command_id, state in box.runner.list().items():
            if state in ("created", "running"):
                box.runner.kill(command_id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], object], *, within_s: float = 10) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: It does not hold in that time.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
