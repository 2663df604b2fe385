"""The tests for real InstantDB servers pass on the loopback server, so that they are right."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.instantdb.server import InstantServer

pytestmark = pytest.mark.slow

SUITE = Path(__file__).parents[1] / "live" / "test_live_instantdb.py"


@pytest.fixture
def server() -> Iterator[InstantServer]:
    with InstantServer() as server:
        yield server
        assert server.internal_errors == []


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if "INSTANT" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "live", str(SUITE)],
        cwd=SUITE.parents[2],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_with_a_temporary_app(server: InstantServer) -> None:
    done = run(INSTANT_API_URI=server.url)
    assert done.returncode == 0, done.stdout
    assert "no temporary" not in done.stdout
    assert len(server.seen("/dash/apps/ephemeral")) == 1


def test_with_an_app_of_ones_own_which_is_left_as_it_was(server: InstantServer) -> None:
    app = server.create_app()
    done = run(
        INSTANT_API_URI=server.url, INSTANT_APP_ID=app.id, INSTANT_APP_ADMIN_TOKEN=app.admin_token
    )
    assert done.returncode == 0, done.stdout
    for namespace in ("sandbox_sandboxes", "sandbox_fences", "$files"):
        assert server.rows(app.id, namespace) == []


@pytest.mark.parametrize("why", ["no server", "refused"])
def test_where_there_is_no_app_they_are_skipped_with_the_reason(
    server: InstantServer, why: str
) -> None:
    server.apps.ephemeral_enabled = False
    done = run(INSTANT_API_URI=server.url if why == "refused" else "http://127.0.0.1:1")
    assert done.returncode == 0, done.stdout
    assert "3 skipped" in done.stdout
    assert "no temporary InstantDB app: " in done.stdout
