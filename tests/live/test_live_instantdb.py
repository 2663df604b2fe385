"""A real InstantDB server: the hosted one, or the one that ``INSTANT_API_URI`` names.

An app of one's own is used when its variables are set; otherwise a temporary app is made, which
the server deletes by itself after two weeks.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.live import instant_client

from ekairos_sandbox import SandboxService
from ekairos_sandbox.exceptions import IdConflictError, RecordConflictError
from ekairos_sandbox.models import RecordQuery, SandboxRecord
from ekairos_sandbox.repository.instantdb import InstantClient, InstantSandboxRepository

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def client() -> Iterator[InstantClient]:
    client = instant_client()
    yield client
    client.close()


def test_records_are_kept_fenced_and_listed(client: InstantClient) -> None:
    repository = InstantSandboxRepository(client)
    repository.check()
    purpose = f"live-{uuid.uuid4()}"
    ids = [str(uuid.uuid4()) for _ in range(3)]
    try:
        for number, sandbox_id in enumerate(ids):
            repository.create(
                SandboxRecord(
                    id=sandbox_id,
                    provider="local",
                    status="creating",
                    created_at=1_700_000_000_000 + number // 2,
                    purpose=purpose,
                    params={"ekairos": {"v": 1, "rev": 0}, "text": "línea 漢字"},
                )
            )
        with pytest.raises(IdConflictError):
            repository.create(repository.get(ids[0]))
        changed = repository.transition(ids[0], 0, {"status": "active"})
        other = InstantSandboxRepository(client)
        assert other.get(ids[0]) == changed
        with pytest.raises(RecordConflictError):
            other.transition(ids[0], 0, {"status": "error"})
        listed = repository.iterate(RecordQuery(purpose=purpose, limit=1))
        assert sorted(record.id for record in listed) == sorted(ids)
    finally:
        for sandbox_id in ids:
            repository.delete(sandbox_id)
    assert repository.list(RecordQuery(purpose=purpose)).records == ()


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder that everybody may pass through, as sandboxes of root need it."""
    path = Path(tempfile.mkdtemp(prefix="ekairos-live-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the provider local is for Linux")
def test_a_sandbox_lives_by_its_record(client: InstantClient, state: Path) -> None:
    environ = {**os.environ, "EKAIROS_SANDBOX_LOCAL_STATE": str(state / "local")}
    repository = InstantSandboxRepository(client)
    sandbox_id = str(uuid.uuid4())
    with SandboxService(repository, environ=environ) as service:
        verbs = service.raising
        try:
            made = service.create_sandbox(
                provider="local", params={"live": True}, sandbox_id=sandbox_id
            )
            if not made.ok:
                pytest.skip(f"no local sandbox here: {made.error}")
            result = verbs.run_command(sandbox_id, "sh", ["-c", "echo out; echo err >&2; exit 3"])
            assert (result.output, result.error, result.exit_code) == ("out\n", "err\n", 3)
            with SandboxService(InstantSandboxRepository(client), environ=environ) as other:
                record = other.raising.get_record(sandbox_id)
                assert (record.status, record.user_params["live"]) == ("active", True)
                assert other.raising.run_command(sandbox_id, "true").success
            verbs.destroy_sandbox(sandbox_id)
            assert verbs.get_record(sandbox_id).status == "shutdown"
        finally:
            service.destroy_sandbox(sandbox_id)
            repository.delete(sandbox_id)


def test_files_are_kept(client: InstantClient) -> None:
    path = f"ekairos-live/{uuid.uuid4()}.txt"
    client.files.upload(path, b"hello", content_type="text/plain")
    try:
        assert b"".join(client.files.download(path)) == b"hello"
    finally:
        assert client.files.delete([path]) == 1
