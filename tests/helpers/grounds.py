"""Arenas of races and kills, and the services that they need, which run in this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.arenas import Arena
from helpers.local_sandboxes import Local
from servers.daytona.server import DaytonaServer
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer
from servers.loopback import LoopbackService
from servers.sprites.server import SpritesServer
from servers.vercel.server import VercelServer

LEFT_S = 120.0
HOUR_S = 3600.0


@dataclass(frozen=True)
class Ground:
    """An arena and the services that it needs.

    Attributes:
        arena: For the other processes.
        services: What they talk to.
        pass_time: Lets an hour pass there, in which sandboxes that nobody uses fall asleep.
    """

    arena: Arena
    services: tuple[LoopbackService, ...] = ()
    pass_time: Callable[[], None] = lambda: None

    def wait_until_left(self) -> None:
        """Block until what processes that are gone have asked for has been carried out."""
        for service in self.services:
            service.wait_until_left(LEFT_S)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that every user may pass through and whose ``effects`` all may write to."""
    path = Path(tempfile.mkdtemp(prefix="ekairos-arena-"))
    path.chmod(0o711)
    (path / "effects").touch()
    (path / "effects").chmod(0o666)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def local_ground() -> Iterator[Ground]:
    """The local provider without isolation, so that commands can leave a mark outside; SQLite."""
    with scratch_folder() as folder:
        state = folder / "state"
        arena = Arena(
            name="local",
            store=(
                "ekairos_sandbox.repository.sqlite:SqliteSandboxRepository",
                {"path": folder / "records.db"},
            ),
            provider="ekairos_sandbox_local.provider:LocalProvider",
            environ={"PATH": os.environ["PATH"], "EKAIROS_SANDBOX_LOCAL_STATE": str(state)},
            folder=folder,
            options={"isolation": "none"},
        )
        try:
            yield Ground(arena)
        finally:
            if state.exists():
                Local(state).destroy_all()


@contextmanager
def _remote_ground(
    name: str,
    cls: str,
    service: LoopbackService,
    environ: Mapping[str, str],
    options: Mapping[str, Any],
    pass_time: Callable[[], None] = lambda: None,
) -> Iterator[Ground]:
    """A provider on its loopback service, with records in InstantDB."""
    with scratch_folder() as folder, InstantServer() as instant:
        instant.recording = False
        app = instant.create_app(schema=SANDBOX_SCHEMA)
        arguments = {"url": instant.url, "app_id": app.id, "token": app.admin_token}
        arena = Arena(
            name=name,
            store=("helpers.arenas:instant_repository", arguments),
            provider=f"ekairos_sandbox_{name}.provider:{cls}",
            environ=environ,
            folder=folder,
            options=options,
        )
        yield Ground(arena, (instant, service), pass_time)
        assert instant.internal_errors == []


@contextmanager
def sprites_ground() -> Iterator[Ground]:
    with SpritesServer() as server:
        environ = {"SPRITES_API_TOKEN": server.token, "SPRITES_API_BASE_URL": server.url}
        options = {"delete_on_stop": False}
        with _remote_ground(
            "sprites",
            "SpritesProvider",
            server,
            environ,
            options,
            lambda: server.advance(HOUR_S),
        ) as ground:
            yield ground
        assert server.internal_errors == []


@contextmanager
def vercel_ground() -> Iterator[Ground]:
    with VercelServer() as server:
        server.recording = False
        environ, options = server.environ(), {"persistent": True}
        with _remote_ground("vercel", "VercelProvider", server, environ, options) as ground:
            yield ground
        assert server.internal_errors == []


@contextmanager
def daytona_ground() -> Iterator[Ground]:
    with DaytonaServer() as server:
        environ, options = server.environ(), {"ephemeral": False, "auto_stop_interval_min": 0}
        with _remote_ground("daytona", "DaytonaProvider", server, environ, options) as ground:
            yield ground
        assert server.internal_errors == []


GROUNDS = {
    "local": local_ground,
    "sprites": sprites_ground,
    "vercel": vercel_ground,
    "daytona": daytona_ground,
}
