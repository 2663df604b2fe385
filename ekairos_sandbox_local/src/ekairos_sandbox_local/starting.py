"""Start the processes that serve a sandbox: its holder, and the copier of its files."""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ekairos_sandbox_local.client import is_alive, lock_is_free, timed_out

_LAUNCH = (
    "import sys; sys.path.append(sys.argv[1]); from ekairos_sandbox_local.{} import main; main()"
)


class HolderStartError(Exception):
    """A holder could not bring its sandbox up. ``kind`` says whose refusal it was."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def start(folder: Path, config: dict[str, Any], *, door: int, timeout_s: float) -> None:
    """Start a holder unless one is alive, and wait until it takes requests.

    Args:
        folder: The sandbox's folder.
        config: What the holder must know.
        door: Descriptor of the sandbox's door, locked by the caller.
        timeout_s: Seconds this may take.

    Raises:
        HolderStartError: It said why it could not.
        ProviderTimeoutError: It said nothing.
    """
    limit = time.monotonic() + timeout_s
    while not is_alive(folder):
        if lock_is_free(folder):
            _launch(folder, {**config, "door": door}, limit)
        if time.monotonic() > limit:
            raise timed_out("did not start in time")
        time.sleep(0.001)


def _launch(folder: Path, config: dict[str, Any], limit: float) -> None:
    with helper("holder", pass_fds=(config["door"],)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(marshal.dumps(config))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        answer = _read_all(process.stdout.fileno(), limit)
    if not answer:
        raise HolderStartError("system", _last_words(folder))
    report = marshal.loads(answer)  # noqa: S302 - from a process of our own
    if report and report[0] != "busy":
        raise HolderStartError(*report)


def helper(module: str, *, pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start ``main`` of a module of this package in a process with the standard library alone."""
    package = str(Path(__file__).parents[1])
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return subprocess.Popen(  # noqa: S603
        [_interpreter(), "-I", "-S", "-c", _LAUNCH.format(module), package],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=kept,
        cwd="/",
        start_new_session=True,
        pass_fds=pass_fds,
    )


def _read_all(fd: int, limit: float) -> bytes:
    data = b""
    while True:
        ready, _, _ = select.select([fd], [], [], max(limit - time.monotonic(), 0))
        if not ready:
            raise timed_out("did not start in time")
        piece = os.read(fd, 65536)
        if not piece:
            return data
        data += piece


def _last_words(folder: Path) -> str:
    log = folder / "holder.log"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return lines[-1] if lines else "its process ended without a word"


def _interpreter() -> str:
    """Return a Python; ``sys.executable`` is something else in programs that embed one."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(Path(sys.base_exec_prefix) / "bin" / version)
