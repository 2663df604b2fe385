"""A connection whose sandbox is a temporary directory and the host's own sh."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ekairos_sandbox.exceptions import ProviderError, ProviderTimeoutError
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.results import CommandResult

SHELLS = ("dash", "bash", "busybox")


@dataclass
class Faults:
    """What goes wrong, by the number of the call, 0 for the first.

    Attributes:
        drop_before: The call never arrives; the caller sees a timeout.
        drop_after: The script runs; its answer is lost, the caller sees a timeout.
        cut: The script runs; only the first half of its answer arrives.
        before: Called with the number of each call before anything else.
    """

    drop_before: set[int] = field(default_factory=set)
    drop_after: set[int] = field(default_factory=set)
    cut: set[int] = field(default_factory=set)
    before: Callable[[int], None] | None = None


def lost(kind: str, call: int) -> Faults:
    """Faults of one kind at one call."""
    return Faults(**{kind: {call}})  # type: ignore[arg-type]


class TmpShell(Connection):
    """Runs scripts with one of the host's shells; HOME is ``root``.

    Args:
        root: The sandbox's home.
        sh: ``"dash"``, ``"bash"`` (as ``sh``, so in POSIX mode) or ``"busybox"`` (with nothing but
            busybox's own programs).
        max_script_bytes: As in ``Connection``; longer scripts fail the test.
        faults: What goes wrong.
        noise: Foreign bytes before and after each answer.
        without: Programs that this sandbox lacks.
        user: Run as this uid and gid (only root can).
    """

    def __init__(
        self,
        root: Path,
        sh: str = "dash",
        *,
        max_script_bytes: int | None = 131_071,
        faults: Faults | None = None,
        noise: tuple[bytes, bytes] = (b"", b""),
        without: Iterable[str] = (),
        user: int | None = None,
    ) -> None:
        self.external_id = "tmp"
        self.name = sh
        self.home: str = str(root)
        self.max_script_bytes = max_script_bytes
        self.faults = faults or Faults()
        self.calls = 0
        self._noise = noise
        self._user = user
        self._lock = threading.Lock()
        tools = _tools(sh, frozenset(without))
        self._sh = str(tools / "sh")
        self.env = {"HOME": str(root), "PATH": str(tools)}

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        assert self.max_script_bytes is None or len(script) <= self.max_script_bytes
        with self._lock:
            number = self.calls
            self.calls += 1
        if self.faults.before:
            self.faults.before(number)
        if number in self.faults.drop_before:
            raise ProviderTimeoutError("no answer in time", outcome="unknown")
        done = subprocess.run(
            [self._sh, "-s"],
            input=script,
            stdout=subprocess.PIPE,
            env=self.env,
            cwd="/",
            timeout=timeout_s,
            check=False,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )
        output = self._noise[0] + done.stdout + self._noise[1]
        if number in self.faults.drop_after:
            raise ProviderTimeoutError("no answer in time", outcome="unknown")
        if number in self.faults.cut:
            output = output[: len(output) // 2]
        if len(output) > max_bytes:
            raise ProviderError("more output than allowed", outcome="unknown")
        return output

    def run(self, argv: list[str]) -> CommandResult:
        """Run a command in the sandbox, as core's job runner would."""
        done = subprocess.run(
            [str(Path(self.env["PATH"], argv[0])), *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self.env,
            cwd=self.home,
            check=False,
            timeout=60,
        )
        return CommandResult("c", tuple(argv), done.returncode, done.stdout, done.stderr)


@functools.cache
def _tools(sh: str, without: frozenset[str]) -> Path:
    """Fill a directory with the programs that the sandbox shall have."""
    tools = Path(tempfile.mkdtemp(prefix=f"tools-{sh}-"))
    atexit.register(shutil.rmtree, tools, ignore_errors=True)
    tools.chmod(0o755)
    if sh == "busybox":
        subprocess.run([_program("busybox"), "--install", "-s", str(tools)], check=True)
    else:
        for folder in ("/bin", "/usr/bin"):
            for program in Path(folder).iterdir():
                if not (tools / program.name).is_symlink():
                    (tools / program.name).symlink_to(program)
        (tools / "sh").unlink(missing_ok=True)
        (tools / "sh").symlink_to(_program(sh))
    for name in without:
        (tools / name).unlink(missing_ok=True)
    return tools


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed"
    return found


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
