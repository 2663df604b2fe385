"""Volumes of a real Daytona account: a new one is made, mounted, judged and deleted."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from ekairos_sandbox_daytona.volumes import DaytonaVolumes, Volume

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.service import SandboxService

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

MOUNT = "/home/daytona/.ekairos"


@pytest.fixture(scope="module")
def volumes() -> Iterator[DaytonaVolumes]:
    missing = [v for v in ("DAYTONA_API_URL", "DAYTONA_API_KEY") if not os.environ.get(v)]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
    with DaytonaVolumes.from_env() as volumes:
        yield volumes


@pytest.fixture
def volume(volumes: DaytonaVolumes) -> Iterator[Volume]:
    name = f"ekairos-live-{uuid.uuid4().hex[:12]}"
    try:
        yield volumes.get_or_create(name)
    finally:
        volumes.delete(name)


def test_volume_outlives_the_sandbox_that_filled_it(
    volumes: DaytonaVolumes, volume: Volume, tmp_path: Path
) -> None:
    assert volumes.get_or_create(volume.name).id == volume.id
    mounts = {"volumes": [{"volume_name": volume.name, "mount_path": MOUNT}]}
    with SandboxService(SqliteSandboxRepository(tmp_path / "records.db")) as service:
        raising = service.raising
        first = raising.create_sandbox(provider="daytona", daytona=mounts)
        try:
            first.run_command(f"echo kept > {MOUNT}/note.txt", shell=True, timeout_s=60).check()
            with pytest.raises(ProviderError):
                volumes.delete(volume)
            (decision,) = volumes.collect(
                unused_for=timedelta(microseconds=1000), prefix=volume.name
            )
            assert (decision.action, decision.reason) == ("keep", "a sandbox mounts it")
        finally:
            first.destroy()
        second = raising.create_sandbox(provider="daytona", daytona=mounts)
        try:
            assert second.read_file(f"{MOUNT}/note.txt") == b"kept\n"
        finally:
            second.destroy()
