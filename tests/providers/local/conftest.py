"""Fixtures of the local provider's tests. All of them work for root and for ordinary users."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox.provider import Connection, CreateSpec, ProviderContext, SandboxRef, Tags
from ekairos_sandbox_local.options import LocalOptions
from ekairos_sandbox_local.provider import LocalProvider

if sys.platform != "linux":
    collect_ignore_glob = ["test_local_*.py"]

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
        from socket import SO_PEERCRED, SOL_SOCKET

        from ekairos_sandbox_local import client

        with client.connect(self.state / ref.name, 5) as connection:
            data = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        return int.from_bytes(data[:4], sys.byteorder)

    def destroy_all(self) -> None:
        for name in os.listdir(self.state):
            if (self.state / name / "meta.json").exists():
                self.provider.destroy(SandboxRef(name))


def sh(connection: Connection, script: str, *, timeout_s: float = 30.0) -> str:
    """Run a script and return its output without the last line end."""
    output = connection.shell(script.encode(), timeout_s=timeout_s, max_bytes=1 << 20)
    return output.decode(errors="replace").rstrip("\n")


@pytest.fixture()
def scratch() -> Iterator[Path]:
    """A folder that everybody may pass through, unlike ``tmp_path`` of root."""
    path = Path(tempfile.mkdtemp(prefix="ekairos-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture()
def make_local(scratch: Path) -> Iterator[Callable[..., Local]]:
    """Make providers, each on a state folder of its own unless told which."""
    made: list[Local] = []

    def make(*, path: str | None = None, state: Path | None = None) -> Local:
        if state is None:
            state = scratch / f"state-{secrets.token_hex(4)}"
        made.append(Local(state, path))
        return made[-1]

    yield make
    for local in made:
        if local.state.is_dir():
            Local(local.state).destroy_all()


@pytest.fixture()
def local(make_local: Callable[..., Local]) -> Local:
    return make_local()
