"""How the suite for providers runs on the loopback Daytona."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from ekairos_sandbox_daytona.provider import DaytonaProvider
from servers.daytona.server import DaytonaServer, Organisation

from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing.base import Suite
from ekairos_sandbox.testing.faults import HastyClock

FOR_EVER = 10**9


def provider_for(
    server: DaytonaServer, organisation: Organisation | None = None, /, **environ: str
) -> DaytonaProvider:
    """Return a provider for a server, whose repetitions come at once."""
    variables = server.environ(organisation, **environ)
    return DaytonaProvider(ProviderContext(environ=variables, clock=HastyClock()))


@contextmanager
def server_process() -> Iterator[dict[str, str]]:
    """Run a server in a process of its own; yields the variables that lead to it."""
    root = Path(__file__).parents[1]
    argv = [sys.executable, "-m", "servers.daytona"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=root, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            environ: dict[str, str] = json.loads(process.stdout.readline())
            yield environ
        finally:
            process.stdin.close()


class DaytonaFixtures(Suite):
    """A server of its own for each class, without mistakes of its own at the end."""

    provider_factory: ClassVar[str | None] = "ekairos_sandbox_daytona.provider:DaytonaProvider"

    @classmethod
    def configure(cls, server: DaytonaServer) -> None:
        """Set the server's switches."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[DaytonaServer]:
        with DaytonaServer() as server:
            cls.configure(server)
            yield server
            assert server.internal_errors == []
            assert server.alive() == []

    @pytest.fixture(scope="class")
    @classmethod
    def provider(cls, server: DaytonaServer) -> DaytonaProvider:
        return provider_for(server)

    @pytest.fixture(scope="class")
    @classmethod
    def other_account(cls, server: DaytonaServer) -> DaytonaProvider:
        return provider_for(server, server.add_organisation())

    @pytest.fixture(scope="class")
    @classmethod
    def make_untagged(cls, server: DaytonaServer) -> Callable[[str], None]:
        def make(name: str) -> None:
            server.boxes.create(server.organisation.id, {"name": name, "labels": {"mine": "1"}})

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def unreachable(cls, server: DaytonaServer) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def cut_off() -> Iterator[None]:
            server.faults.add("drop", "*", ".*", times=FOR_EVER)
            try:
                yield
            finally:
                server.faults.clear()

        return cut_off
