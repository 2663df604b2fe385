"""A record store and a provider for real, which processes find by their environment alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.arenas import LaterClock
from servers.daytona.server import DaytonaServer
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer
from servers.loopback import LoopbackService
from servers.sprites.server import SpritesServer
from servers.vercel.server import VercelServer

from ekairos_sandbox import RaisingService, SandboxRecord, SandboxService
from ekairos_sandbox.clock import Clock
from ekairos_sandbox.provider import Provider, SandboxInfo
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.repository.choice import open_repository
from ekairos_sandbox.settings import store_setting

TESTS = Path(__file__).resolve().parents[1]

PRELUDE = """
import atexit, json, os, signal, sys, threading, time
from ekairos_sandbox import *
service = SandboxService.from_env().raising
def tell(*what): print(json.dumps(what), flush=True)
"""


@dataclass(frozen=True)
class Site:
    """One record store and one provider.

    Attributes:
        environ: Leads to both.
        folder: For whatever a test writes; every user may pass through it.
    """

    environ: Mapping[str, str]
    folder: Path

    def service(
        self,
        clock: Clock | None = None,
        around_store: Callable[[SandboxRepository], Any] = lambda store: store,
        providers: tuple[Provider[Any], ...] = (),
    ) -> RaisingService:
        """Return a new service, as another process has it."""
        store = open_repository(store_setting(self.environ), self.environ)
        return SandboxService(
            around_store(store), environ=self.environ, clock=clock, providers=providers
        ).raising

    def program(self, body: str, *words: str) -> subprocess.Popen[str]:
        """Start Python with ``service`` and ``CONFIG`` at hand; its warnings are errors."""
        return subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                f"{PRELUDE}CONFIG = {self.config}\n{body}",
                *words,
            ],
            env=dict(self.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def owned(self) -> list[SandboxInfo]:
        """Return everything that the provider has of this record store."""
        with self.service() as service:
            ledger = service._operations.ledger
            return list(ledger.provider(self.provider).list_owned(ledger.repository.owner))

    @property
    def provider(self) -> str:
        return self.environ["SANDBOX_PROVIDER"]

    @property
    def config(self) -> dict[str, Any]:
        """What a sandbox is created with, so that it can do all that its provider can."""
        options = {"vercel": {"persistent": True}, "daytona": {"auto_stop_interval_min": 0}}
        return {self.provider: options.get(self.provider, {})}

    def settle(self) -> list[SandboxRecord]:
        """Reconcile when every deadline has passed; return all records, which must be true."""
        with self.service(LaterClock()) as service:
            service.reconcile(apply=True)
            assert service.reconcile(apply=True).actions == ()
            records = list(service.iter_sandboxes())
        found = {info.tags.sandbox_id: info for info in self.owned() if info.tags}
        assert len(found) == len(self.owned()), "two sandboxes for one id"
        assert set(found) <= {record.id for record in records}, "a sandbox without a record"
        for record in records:
            state = record.state
            assert state is not None
            assert state.release is None, "the provider was not told of its end"
            here = found.get(record.id)
            match record.status:
                case "active":
                    assert here is not None, "said to be active"
                case "error":
                    assert here is None, "its creation failed, yet it is there"
                case "shutdown":
                    assert here is None or here.state != "running", "it was stopped, yet it runs"
                case _:
                    raise AssertionError(f"left in {record.status}")
        return records

    def clear(self) -> None:
        """Destroy every sandbox and forget its record."""
        with self.service() as service:
            for record in service.iter_sandboxes():
                service.destroy_sandbox(record.id)
                service._operations.ledger.repository.delete(record.id)


@contextmanager
def _site(**environ: str) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="ekairos-site-"))
    folder.chmod(0o711)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ = {name: value.format(folder=folder) for name, value in environ.items()}
    site = Site({**kept, "PYTHONPATH": str(TESTS), **environ}, folder)
    try:
        yield site
        site.clear()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def local_site() -> Iterator[Site]:
    """The local provider, records in SQLite."""
    with _site(
        SANDBOX_PROVIDER="local",
        EKAIROS_SANDBOX_STORE="sqlite:///{folder}/records.db",
        EKAIROS_SANDBOX_LOCAL_STATE="{folder}/state",
    ) as site:
        yield site


@contextmanager
def _remote_site(name: str, service: LoopbackService, **environ: str) -> Iterator[Site]:
    """A provider on its loopback service, records in InstantDB; both run in this process."""
    with InstantServer() as instant:
        app = instant.create_app(schema=SANDBOX_SCHEMA)
        with _site(
            SANDBOX_PROVIDER=name,
            INSTANT_APP_ID=app.id,
            INSTANT_APP_ADMIN_TOKEN=app.admin_token,
            INSTANT_API_URI=instant.url,
            **environ,
        ) as site:
            yield site
        assert instant.internal_errors == []
    assert service.internal_errors == []


@contextmanager
def sprites_site() -> Iterator[Site]:
    """The Sprites provider."""
    with (
        SpritesServer() as server,
        _remote_site(
            "sprites", server, SPRITES_API_TOKEN=server.token, SPRITES_API_BASE_URL=server.url
        ) as site,
    ):
        yield site


@contextmanager
def vercel_site() -> Iterator[Site]:
    """The Vercel provider."""
    with VercelServer() as server, _remote_site("vercel", server, **server.environ()) as site:
        yield site


@contextmanager
def daytona_site() -> Iterator[Site]:
    """The Daytona provider."""
    with DaytonaServer() as server, _remote_site("daytona", server, **server.environ()) as site:
        yield site


SITES: Mapping[str, Callable[[], AbstractContextManager[Site]]] = {
    "local": local_site,
    "sprites": sprites_site,
    "vercel": vercel_site,
    "daytona": daytona_site,
}
SITE_PARAMS = [
    "local",
    pytest.param("sprites", marks=pytest.mark.slow),
    pytest.param("vercel", marks=pytest.mark.soak),
    pytest.param("daytona", marks=pytest.mark.soak),
]
