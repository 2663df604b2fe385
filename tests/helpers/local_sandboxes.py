"""Local sandboxes on a scratch state folder, for root and ordinary users alike."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ekairos_sandbox_local.options import LocalOptions
from ekairos_sandbox_local.provider import LocalProvider

from ekairos_sandbox.provider import Connection, CreateSpec, ProviderContext, SandboxRef, Tags

OWNER = "owner-a"


class Local:
    """A provider on a scratch state folder, and short ways to use it."""

    def __init__(self, state: Path, path: str | None = None) -> None:
        self.state = state
        environ = {
            "PATH": path or os.environ["PATH"],
            "EKAIROS_SANDBOX_LOCAL_STATE": str(state),
        }
        self.provider = LocalProvider(ProviderContext(environ=environ))

    def spec(
        self, *, name: str | None = None, owner: str = OWNER, timeout_s: float = 30.0, **given: Any
    ) -> CreateSpec[LocalOptions]:
        fields = {key: given.pop(key) for key in ("runtime", "timeout_ms", "vcpus") if key in given}
        return CreateSpec(
            name=name or f"ekairos-{uuid.uuid4()}",
            tags=Tags(owner, "7a1c2a52-8d5c-4a53-9d6a-4d1f6f2d8f11", 1),
            options=LocalOptions(**given),
            timeout_s=timeout_s,
            **fields,
        )

    def create(self, **given: Any) -> tuple[Connection, SandboxRef[LocalOptions]]:
        spec = self.spec(**given)
        connection = self.provider.create(spec)
        return connection, SandboxRef(spec.name, connection.external_id, spec.tags)

    def holder_pid(self, ref: SandboxRef[LocalOptions]) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(self.state / ref.name / "sock"))
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", data)[0])

    def destroy_all(self) -> None:
        for folder in self.state.iterdir():
            if not folder.name.startswith(".") and (folder / "meta.json").exists():
                self.provider.destroy(SandboxRef(folder.name))


def sh(connection: Connection, script: str, *, timeout_s: float = 30.0) -> str:
    """Run a script and return its output without the last line end."""
    output = connection.shell(script.encode(), timeout_s=timeout_s, max_bytes=1 << 20)
    return output.decode(errors="replace").rstrip("\n")


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Poll until a condition holds."""
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, "it did not come about in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def host_processes(argument: str) -> list[int]:
    """Return the live processes of this machine that have this argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in arguments:
                found.append(int(entry.name))
    return found


def in_another_process(local: Local, body: str) -> subprocess.Popen[str]:
    """Run Python that has ``local``, ``ref`` and ``sh`` at hand; killed by us, not by itself."""
    code = f"""
import sys, time
from pathlib import Path
sys.path[:0] = {sys.path!r}
from ekairos_sandbox.provider import SandboxRef
from helpers.local_sandboxes import Local, sh
local = Local(Path({str(local.state)!r}))
{body}
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
