"""Vercel itself. Needs the variables of one level of credentials; deletes what it makes.

Also what only the real service can confirm: that it keeps no script where others could read it,
that files come back exactly, that a stopped sandbox starts again with its files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.live import destroy_all

from ekairos_sandbox import SandboxService
from ekairos_sandbox.exceptions import ConfigurationError, SandboxGoneError
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox_vercel import VercelProvider

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def provider() -> Iterator[VercelProvider]:
    provider = VercelProvider(ProviderContext(environ=os.environ))
    try:
        provider.account()
    except ConfigurationError as error:
        pytest.skip(str(error))
    yield provider
    provider.close()


@pytest.fixture
def service(provider: VercelProvider, tmp_path: Path) -> Iterator[RaisingService]:
    repository = SqliteSandboxRepository(tmp_path / "records.db")
    with SandboxService(repository, environ={}, providers=[provider]) as service:
        try:
            yield service.raising
        finally:
            destroy_all(service.raising)
            assert list(provider.list_owned(repository.owner)) == []


def commands_of(provider: VercelProvider, session: str) -> str:
    """What the service shows of a session's commands."""
    answer = provider._api()._in_session(
        "GET", session, "/cmd", operation="commands", repeat="always"
    )
    return str(answer)


@pytest.mark.parametrize("runtime", [None, "node24"])
def test_commands_and_files(
    provider: VercelProvider, service: RaisingService, runtime: str | None
) -> None:
    sandbox = service.create_sandbox(
        provider="vercel", runtime=runtime, timeout_ms=300_000, env={"AT_CREATE": "secret-4711"}
    )
    result = sandbox.run_command(
        ["sh", "-c", 'cat; echo "$AT_CREATE"; echo no >&2; exit 3'], stdin=b"secret-4712\n"
    )
    assert (result.exit_code, result.output) == (3, "secret-4712\nsecret-4711\n")
    assert result.error == "no\n"
    session = str(sandbox.record().user_params["vercel"]["session"])
    shown = commands_of(provider, session)
    assert "EKAIROS_SCRIPT_0" in shown
    assert "secret-47" not in shown
    data = os.urandom(20 * 1024 * 1024)
    sandbox.write_files({"small": b"\0\xff", "deep/large": data})
    assert sandbox.read_file("small") == b"\0\xff"
    assert sandbox.read_file("deep/large") == data
    assert sandbox.run_command("sleep", ["60"], timeout_s=1).timed_out
    sandbox.stop()
    with pytest.raises(SandboxGoneError):
        sandbox.reconnect()


def test_a_persistent_sandbox_and_its_checkpoints(service: RaisingService) -> None:
    options: dict[str, Any] = {"persistent": True}
    sandbox = service.create_sandbox(
        provider="vercel", timeout_ms=300_000, ports=[3000], vercel=options
    )
    sandbox.write_files({"file": b"old"})
    checkpoint = sandbox.create_checkpoint()
    sandbox.write_files({"file": b"new"})
    sandbox.stop()
    sandbox.reconnect()
    assert sandbox.read_file("file") == b"new"
    sandbox.restore_checkpoint(checkpoint.id)
    assert sandbox.read_file("file") == b"old"
    assert [found.id for found in sandbox.list_checkpoints()] == [checkpoint.id]
    assert sandbox.preview_url(3000).url.startswith("https://")
    assert sandbox.extend_timeout(400_000) is not None
