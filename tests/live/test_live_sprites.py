"""The real Sprites service: what only it can show. Needs ``SPRITES_API_TOKEN``.

Everything that is made is deleted, also when a test fails. Costs a few cents and takes some
minutes.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.live import destroy_all

from ekairos_sandbox import RaisingSandbox, SandboxService
from ekairos_sandbox.exceptions import ConfigurationError, SandboxGoneError
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

pytest.importorskip("ekairos_sandbox_sprites.plugin")

import itertools

from ekairos_sandbox_sprites.options import SpritesSettings
from ekairos_sandbox_sprites.provider import SpritesProvider

from ekairos_sandbox.provider import ProviderContext

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]

OUTPUT = 5_000_000
SCRIPT = f"head -c {OUTPUT} /dev/urandom >blob; cat blob; sha256sum blob >&2"


@pytest.fixture(scope="module")
def provider() -> Iterator[SpritesProvider]:
    try:
        SpritesSettings.from_environ(os.environ)
    except ConfigurationError as error:
        pytest.skip(str(error))
    provider = SpritesProvider(ProviderContext(environ=os.environ))
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def service(
    provider: SpritesProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SandboxService]:
    repository = SqliteSandboxRepository(tmp_path_factory.mktemp("live") / "records.db")
    with SandboxService(repository, environ={}, providers=[provider]) as service:
        yield service
        destroy_all(service.raising)
        assert list(provider.list_owned(repository.owner)) == []


@pytest.fixture(scope="module")
def sandbox(service: SandboxService) -> RaisingSandbox:
    return service.raising.create_sandbox(provider="sprites", purpose="live-test")


def test_labels_are_kept_and_the_organisation_is_as_the_token_says(
    provider: SpritesProvider, sandbox: RaisingSandbox
) -> None:
    record = sandbox.record()
    state = record.state
    assert state is not None
    (info,) = provider.list_owned(state.owner)
    assert info.name == record.external_sandbox_id == state.name
    assert info.tags is not None
    assert info.tags.sandbox_id == sandbox.sandbox_id
    page = provider._api._page({"max_results": "1"}, operation="test")
    assert state.account == provider.account()
    assert page["name"] in provider.account().split("/")


def test_streams_and_exit_code_are_exact(sandbox: RaisingSandbox) -> None:
    for code in (0, 3, 10, 65):
        line = f"printf 'out\\001\\002\\003'; echo err >&2; exit {code}"
        result = sandbox.run_command(line, shell=True)
        assert (result.stdout, result.error) == (b"out\1\2\3", "err\n")
        assert result.exit_code == code


def test_five_megabytes_of_output_arrive_whole(sandbox: RaisingSandbox) -> None:
    digest, size = hashlib.sha256(), 0
    with sandbox.stream_command(["sh", "-c", SCRIPT]) as stream:
        for chunk in stream:
            if chunk.stream == "stdout":
                digest.update(chunk.data)
                size += len(chunk.data)
        result = stream.result()
    assert size == result.stdout_size == OUTPUT
    assert result.error.split()[0] == digest.hexdigest()


def test_files_survive_both_ways(sandbox: RaisingSandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(40 << 20))
    sandbox.upload(source, "data/big")
    sandbox.download("data/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    sandbox.write_files({"data/línea": b"\0\1\2", "data/empty": b""})
    assert sandbox.read_file("data/línea") == b"\0\1\2"
    assert sandbox.read_file("data/empty") == b""


def test_a_silent_command_of_40_seconds_is_waited_for(sandbox: RaisingSandbox) -> None:
    assert sandbox.run_command("sleep 40; echo over", shell=True).output == "over\n"


def test_a_background_command_goes_on_for_90_seconds_without_a_client(
    sandbox: RaisingSandbox,
) -> None:
    script = "i=0; while [ $i -lt 90 ]; do date +%s; sleep 1; i=$((i+1)); done"
    command = sandbox.start_command(["sh", "-c", script])
    time.sleep(100)
    result = command.wait(30).check()
    seconds = [int(line) for line in result.output.split()]
    assert len(seconds) == 90
    assert max(b - a for a, b in itertools.pairwise(seconds)) <= 5


def test_it_sleeps_when_nothing_runs_and_wakes_for_a_command(
    provider: SpritesProvider, sandbox: RaisingSandbox
) -> None:
    sandbox.run_command("true").check()
    name = str(sandbox.record().external_sandbox_id)
    end = time.monotonic() + 180
    while time.monotonic() < end:
        found = provider.find(name)
        assert found is not None
        if found.state == "stopped":
            break
        time.sleep(5)
    else:
        pytest.fail("it does not fall asleep: is something keeping it awake?")
    assert sandbox.run_command("echo", ["on"]).output == "on\n"


def test_a_checkpoint_is_made_and_restored(sandbox: RaisingSandbox) -> None:
    sandbox.write_files({"state": b"old"})
    checkpoint = sandbox.create_checkpoint("live test")
    assert checkpoint.id in [one.id for one in sandbox.list_checkpoints()]
    sandbox.write_files({"state": b"new"})
    sandbox.restore_checkpoint(checkpoint.id)
    assert sandbox.read_file("state") == b"old"
    assert sandbox.run_command("cat", ["state"]).output == "old"


def test_port_8080_can_be_seen_with_the_token_only(sandbox: RaisingSandbox) -> None:
    import requests

    server = sandbox.start_command(["python3", "-m", "http.server", "8080", "--directory", "data"])
    preview = sandbox.preview_url(8080)
    end = time.monotonic() + 60
    status = 0
    while status != 200 and time.monotonic() < end:
        time.sleep(2)
        answer = requests.get(
            preview.url, headers=dict(preview.headers), timeout=30, allow_redirects=False
        )
        status = answer.status_code
    assert status == 200
    stranger = requests.get(preview.url, timeout=30, allow_redirects=False)
    assert stranger.status_code in (302, 401, 403)
    server.kill()


def test_a_deleted_sprite_is_proven_gone(
    service: SandboxService, provider: SpritesProvider
) -> None:
    sandbox = service.raising.create_sandbox(provider="sprites", purpose="live-test")
    name = str(sandbox.record().external_sandbox_id)
    provider._api.delete(name, operation="test")
    with pytest.raises(SandboxGoneError):
        sandbox.run_command("true", on_gone="fail")
    assert provider.find(name) is None
