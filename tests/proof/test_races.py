"""Many processes and threads on one durable id, some of them killed; see helpers.race."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.race import Arena, race, verdict
from servers.daytona.server import DaytonaServer
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer
from servers.sprites.server import SpritesServer
from servers.vercel.server import VercelServer

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


@contextmanager
def local_arena(folder: Path) -> Iterator[Arena]:
    """The local provider without isolation, so that commands can leave a mark outside; SQLite."""
    yield Arena(
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


@contextmanager
def remote_arena(
    folder: Path, name: str, cls: str, environ: Mapping[str, str], options: Mapping[str, Any]
) -> Iterator[Arena]:
    """A provider on its loopback service, with records in InstantDB."""
    with InstantServer() as instant:
        instant.recording = False
        app = instant.create_app(schema=SANDBOX_SCHEMA)
        arguments = {"url": instant.url, "app_id": app.id, "token": app.admin_token}
        yield Arena(
            name=name,
            store=("helpers.race:instant_repository", arguments),
            provider=f"ekairos_sandbox_{name}.provider:{cls}",
            environ=environ,
            effects=folder / "effects",
            said=folder / "said",
            options=options,
        )
        assert instant.internal_errors == []


@contextmanager
def sprites_arena(folder: Path) -> Iterator[Arena]:
    with SpritesServer() as server:
        environ = {"SPRITES_API_TOKEN": server.token, "SPRITES_API_BASE_URL": server.url}
        options = {"delete_on_stop": False}
        with remote_arena(folder, "sprites", "SpritesProvider", environ, options) as arena:
            yield arena
        assert server.internal_errors == []


@contextmanager
def vercel_arena(folder: Path) -> Iterator[Arena]:
    with VercelServer() as server:
        server.recording = False
        options = {"persistent": True}
        environ = server.environ()
        with remote_arena(folder, "vercel", "VercelProvider", environ, options) as arena:
            yield arena
        assert server.internal_errors == []


@contextmanager
def daytona_arena(folder: Path) -> Iterator[Arena]:
    with DaytonaServer() as server:
        options = {"ephemeral": False, "auto_stop_interval_min": 0}
        environ = server.environ()
        with remote_arena(folder, "daytona", "DaytonaProvider", environ, options) as arena:
            yield arena
        assert server.internal_errors == []


ARENAS = {
    "local": local_arena,
    "sprites": sprites_arena,
    "vercel": vercel_arena,
    "daytona": daytona_arena,
}


def seed_of_soak() -> int:
    return int(os.environ.get("SOAK_SEED") or random.randrange(10**6))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ARENAS)
def test_three_processes_with_three_threads_each_break_no_promise(name: str, folder: Path) -> None:
    with ARENAS[name](folder) as arena:
        said = race(arena, processes=3, threads=3, operations=24, seed=1)
        assert verdict(arena, said) == []
        assert ("success", "") in said.values()


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ARENAS)
def test_processes_that_are_killed_break_no_promise(name: str, folder: Path) -> None:
    seed = seed_of_soak()
    print(f"SOAK_SEED={seed} {name}")
    with ARENAS[name](folder) as arena:
        said = race(arena, processes=4, threads=3, operations=48, seed=seed, kills=20)
        assert verdict(arena, said) == [], f"SOAK_SEED={seed}"
