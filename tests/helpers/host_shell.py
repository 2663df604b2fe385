"""A sandbox that is a folder on this machine, reached through the shell under test.

``HostShell`` runs scripts as a provider would; ``Faults`` wraps any connection and makes its
calls fail in chosen ways.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from ekairos_sandbox.exceptions import ProviderTimeoutError, ProviderUnavailableError
from ekairos_sandbox.provider import Connection

ShellName = Literal["dash", "bash", "busybox"]
SHELLS: tuple[ShellName, ...] = ("dash", "bash", "busybox")
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
