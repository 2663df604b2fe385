"""The Vercel provider on the loopback server, for tests and for the suite for providers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import pytest
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.provider import Connection, CreateSpec, ProviderContext, SandboxRef, Tags
from ekairos_sandbox.testing import HastyClock
from ekairos_sandbox.testing.base import Suite
from ekairos_sandbox_vercel import VercelOptions, VercelProvider

OWNER = "0f1e2d3c4b5a6978"


def provider_for(
    environ: Mapping[str, str], *, clock: Clock | None = None, **given: str
) -> VercelProvider:
    """Return a provider with these variables, on a clock that hardly waits."""
    context = ProviderContext(environ=environ, clock=clock or HastyClock())
    return VercelProvider(context, **given)


def new_spec(*, timeout_s: float = 60.0, **options: Any) -> CreateSpec[VercelOptions]:
    """Return what to create under a new name."""
    sandbox_id = str(uuid.uuid4())
    return CreateSpec(
        name=f"ekairos-{sandbox_id}",
        tags=Tags(OWNER, sandbox_id, 1),
        options=VercelOptions.model_validate(options),
        timeout_s=timeout_s,
    )


def ref_of(
    spec: CreateSpec[VercelOptions], connection: Connection | None = None
) -> SandboxRef[VercelOptions]:
    """Return what a record would know of it."""
    data = connection.data if connection else {}
    return SandboxRef(spec.name, external_id=spec.name, tags=spec.tags, data=data)


class VercelFixtures(Suite):
    """How the suite for providers runs on the loopback server."""

    provider_factory: ClassVar[str | None] = "ekairos_sandbox_vercel.provider:VercelProvider"
    keeps_files_after_stop = False
    restarts_after_stop = False
    config: ClassVar[Mapping[str, Any]] = {"ports": (8080,)}
    checkpoint_options: ClassVar[Mapping[str, Any]] = {"persistent": True}
    big_file_bytes = 20 * 1024 * 1024
    big_output_bytes = 10_000_000

    @classmethod
    def trouble(cls, server: VercelServer) -> None:
        """Set the server's switches."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[VercelServer]:
        with VercelServer() as server:
            server.recording = False
            cls.trouble(server)
            yield server
            server.faults.clear()
            assert server.internal_errors == []

    @pytest.fixture(scope="class")
    @classmethod
    def provider(cls, server: VercelServer) -> Iterator[VercelProvider]:
        provider = provider_for(server.environ())
        yield provider
        provider.close()

    @pytest.fixture(scope="class")
    @classmethod
    def other_account(cls, server: VercelServer) -> Iterator[VercelProvider]:
        team, project, token = server.add_project()
        provider = provider_for(
            {
                **server.environ(),
                "SANDBOX_VERCEL_TEAM_ID": team,
                "SANDBOX_VERCEL_PROJECT_ID": project,
                "SANDBOX_VERCEL_TOKEN": token,
            }
        )
        yield provider
        provider.close()

    @pytest.fixture(scope="class")
    @classmethod
    def make_untagged(cls, server: VercelServer) -> Callable[[str], None]:
        def make(name: str) -> None:
            server.make(name, persistent=True)

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def unreachable(cls, server: VercelServer) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def cut_off() -> Iterator[None]:
            server.faults.add(Fault.BAD_GATEWAY, times=None)
            try:
                yield
            finally:
                server.faults.clear()

        return cut_off
