"""Fixtures of the local provider's tests. All of them work for root and for ordinary users."""

from __future__ import annotations

import secrets
import shutil
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
