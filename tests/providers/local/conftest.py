"""Fixtures of the local provider's tests. All of them work for root and for ordinary users."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.local_sandboxes import Local

if sys.platform != "linux":
    collect_ignore_glob = ["test_local_*.py"]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that everybody may pass through, unlike ``tmp_path`` of root."""
    path = Path(tempfile.mkdtemp(prefix="ekairos-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
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


@pytest.fixture
def local(make_local: Callable[..., Local]) -> Local:
    return make_local()


@pytest.fixture
def small_disk(scratch: Path, make_local: Callable[..., Local]) -> Iterator[Local]:
    """A provider whose state folder is on a file system of 3 MiB; skips where that cannot be."""
    mount = scratch / "small"
    mount.mkdir()
    options = ["-o", "size=3m,mode=0711"]
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", *options, "tmpfs", str(mount)], check=False
        ).returncode
    ):
        pytest.skip("needs root and mounts")
    try:
        local = make_local(state=mount / "state")
        yield local
        local.destroy_all()
    finally:
        subprocess.run(["umount", str(mount)], check=False)
