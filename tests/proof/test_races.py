"""Many processes and threads on one durable id, some of them killed; see helpers.race."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.race import Arena, race, verdict

SQLITE = "ekairos_sandbox.repository.sqlite:SqliteSandboxRepository"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user may pass through and write to."""
    path = Path(tempfile.mkdtemp(prefix="ekairos-race-"))
    path.chmod(0o711)
    (path / "effects").touch()
    (path / "effects").chmod(0o666)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def arena(folder: Path) -> Arena:
    """The local provider without isolation, so that commands can leave a mark outside."""
    return Arena(
        name="local",
        store=(SQLITE, {"path": folder / "records.db"}),
        provider="ekairos_sandbox_local.provider:LocalProvider",
        environ={
            "PATH": os.environ["PATH"],
            "EKAIROS_SANDBOX_LOCAL_STATE": str(folder / "state"),
        },
        effects=folder / "effects",
        said=folder / "said",
        options={"isolation": "none"},
    )


def seed_of_soak() -> int:
    return int(os.environ.get("SOAK_SEED") or random.randrange(10**6))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_three_processes_with_three_threads_each_break_no_promise(arena: Arena) -> None:
    said = race(arena, processes=3, threads=3, operations=36, seed=1)
    assert verdict(arena, said) == []
    assert ("success", "") in said.values()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_processes_that_are_killed_break_no_promise(arena: Arena) -> None:
    seed = seed_of_soak()
    print(f"SOAK_SEED={seed}")
    said = race(arena, processes=4, threads=3, operations=60, seed=seed, kills=20)
    assert verdict(arena, said) == [], f"SOAK_SEED={seed}"
