"""A real Daytona account, with records in a temporary InstantDB app.

Needs ``DAYTONA_API_URL`` and ``DAYTONA_API_KEY`` (or a JWT and its organisation). Deletes what it
makes, also when it fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from ekairos_sandbox_daytona.options import DaytonaOptions
from ekairos_sandbox_daytona.provider import DaytonaProvider
from helpers.live import instant_client

from ekairos_sandbox import SandboxService
from ekairos_sandbox.exceptions import ConfigurationError, SandboxGoneError
from ekairos_sandbox.provider import SandboxRef
from ekairos_sandbox.raising import RaisingSandbox, RaisingService
from ekairos_sandbox.repository.instantdb import InstantSandboxRepository

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def provider() -> Iterator[DaytonaProvider]:
    provider = DaytonaProvider()
    try:
        provider.account()
    except ConfigurationError as error:
        pytest.skip(f"no Daytona account: {error}")
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def service(provider: DaytonaProvider) -> Iterator[RaisingService]:
    client = instant_client()
    with SandboxService(InstantSandboxRepository(client), providers=[provider]) as service:
        yield service.raising


@pytest.fixture
def sandbox(service: RaisingService) -> Iterator[RaisingSandbox]:
    sandbox = service.create_sandbox(
        provider="daytona",
        purpose="live-test",
        timeout_ms=1_800_000,
        daytona={"ephemeral": False, "labels": {"purpose": "live-test"}},
    )
    yield sandbox
    sandbox.destroy()


def test_the_main_job(
    service: RaisingService, provider: DaytonaProvider, sandbox: RaisingSandbox
) -> None:
    result = sandbox.run_command("python", ["-c", "print('sandbox-ok')"])
    assert (result.exit_code, result.output) == (0, "sandbox-ok\n")
    result = sandbox.run_command("sh", ["-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.output, result.error) == (3, "out\n", "err\n")
    data = os.urandom(9 << 20) + b"\r\n--DAYTONA-FILE-BOUNDARY--\r\n"
    sandbox.write_files({"data": data})
    assert sandbox.read_file("data") == data
    started = sandbox.start_command("sh", ["-c", "sleep 2; echo later"], timeout_s=60)
    again = service.get_sandbox(sandbox.sandbox_id)
    assert again.get_command(started.command_id).wait(60).output == "later\n"
    assert again.preview_url(8080).url.startswith("https://")
    assert again.native().id == sandbox.record().external_sandbox_id
    assert again.extend_timeout(3_600_000) is not None
    owner = (sandbox.record().state or pytest.fail("no state")).owner
    listed = [info.external_id for info in provider.list_owned(owner)]
    assert sandbox.record().external_sandbox_id in listed


def test_a_stopped_sandbox_comes_back_and_a_deleted_one_is_gone(
    provider: DaytonaProvider, sandbox: RaisingSandbox
) -> None:
    sandbox.write_files({"kept": b"1"})
    external_id = sandbox.record().external_sandbox_id
    assert sandbox.stop().status == "shutdown"
    sandbox.reconnect()
    assert sandbox.read_file("kept") == b"1"
    sandbox.destroy()
    ref: SandboxRef[DaytonaOptions] = SandboxRef(
        f"ekairos-{sandbox.sandbox_id}", external_id=external_id
    )
    with pytest.raises(SandboxGoneError):
        provider.inspect(ref)


def test_an_ephemeral_sandbox_is_gone_after_its_stop(
    service: RaisingService, provider: DaytonaProvider
) -> None:
    sandbox = service.create_sandbox(provider="daytona", purpose="live-test")
    try:
        assert sandbox.run_command("echo", ["on"]).output == "on\n"
        name = f"ekairos-{sandbox.sandbox_id}"
        sandbox.stop()
        deadline = time.monotonic() + 60
        while provider.find(name) is not None and time.monotonic() < deadline:
            time.sleep(1)
        assert provider.find(name) is None
    finally:
        sandbox.destroy()
