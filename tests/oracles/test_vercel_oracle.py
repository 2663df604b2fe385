"""The official clients of Vercel Sandbox at work on the loopback server.

What they make of its answers shows that the answers are right; what they send shows what a client
is expected to send. They also use a sandbox that this library made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.vercel import provider_for
from oracles import oracle_env
from servers.vercel.server import VercelServer

from ekairos_sandbox import SandboxService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(420)]

PYTHON_SDK = "vercel-sandbox==0.10.0"
NPM_SDK = "@vercel/sandbox@3.5.0"


@dataclass(frozen=True)
class Run:
    """What a script printed, what the server saw, and what was left in our own sandbox."""

    out: dict[str, Any]
    server: VercelServer
    ours: str
    left: str


def _run(folder: Path, script: Callable[[dict[str, str]], Any]) -> Iterator[Run]:
    with VercelServer() as server:
        provider = provider_for(server.environ())
        repository = SqliteSandboxRepository(folder / "records.db")
        with SandboxService(repository, environ={}, providers=[provider]) as service:
            sandbox = service.raising.create_sandbox(provider="vercel")
            sandbox.write_files({"from-us": b"from us"})
            name = str(sandbox.record().external_sandbox_id)
            server.clear_requests()
            settings = {
                "url": server.url,
                "token": server.token,
                "team": server.team,
                "project": server.project,
                "ours": name,
            }
            out = script(settings)
            left = sandbox.run_command(["cat", "from-sdk"]).output
            yield Run(out, server, name, left)
        provider.close()
        assert server.internal_errors == []


@pytest.fixture(scope="module")
def python_sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    packages = oracle_env.python_packages(PYTHON_SDK)
    yield from _run(
        tmp_path_factory.mktemp("python"),
        lambda settings: oracle_env.run_python(packages, "vercel_python_sdk.py", settings),
    )


@pytest.fixture(scope="module")
def npm_sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    packages = oracle_env.npm_packages(NPM_SDK)
    yield from _run(
        tmp_path_factory.mktemp("npm"),
        lambda settings: oracle_env.run_node(packages, "vercel_npm_sdk.mjs", settings),
    )


def test_the_python_client_uses_a_sandbox_of_ours(python_sdk: Run) -> None:
    name, status, tags = python_sdk.out["ours"]
    assert (name, status) == (python_sdk.ours, "running")
    assert sorted(tags) == ["ekairos-id", "ekairos-incarnation", "ekairos-owner"]
    assert python_sdk.out["ours ran"] == [0, "from us", ""]
    assert python_sdk.left == "from the sdk\n"


def test_the_python_client_runs_commands_and_moves_files(python_sdk: Run) -> None:
    out = python_sdk.out
    assert out["created"] == ["sdk-python", True, "running"]
    assert out["ran"] == [3, "é漢\U0001f600\n", "no\n"]
    assert out["lines"] == [0, "a\u2028b\r\n", ""]
    assert (out["file"], out["mode"]) == (True, [0, "640\n", ""])
    assert out["exists"] == [True, False]
    assert out["listed"] == ["dir", "made"]
    assert out["killed"] == 137
    assert out["missing program"][0] == 400


def test_the_python_client_stops_resumes_and_saves(python_sdk: Run) -> None:
    out = python_sdk.out
    assert out["stopped"] == ["stopped"]
    assert out["resumed"] == ["running", True]
    assert out["kept"] == out["after snapshot"] == [0, "256\n", ""]
    assert out["snapshot"] is True
    assert out["duplicate"][0] == 400
    assert out["names"] == sorted([python_sdk.ours, "sdk-python"])
    assert out["gone"][0] == 404


def test_native_is_the_official_object_that_ends_nothing(tmp_path: Path) -> None:
    packages = oracle_env.python_packages(PYTHON_SDK)
    with VercelServer() as server:
        out = oracle_env.run_python(packages, "vercel_native.py", server.environ())
        assert server.internal_errors == []
    assert out == {
        "class": "SyncSandbox",
        "name": True,
        "ran": [4, "from us", ""],
        "ends it on leaving a with block": False,
        "lives on": "on\n",
    }


def test_the_npm_client_uses_a_sandbox_of_ours(npm_sdk: Run) -> None:
    assert npm_sdk.out["ours"] == [npm_sdk.ours, "running"]
    assert npm_sdk.out["ours ran"] == [0, "from us", ""]
    assert npm_sdk.left == "from the sdk\n"


def test_the_npm_client_runs_commands_and_moves_files(npm_sdk: Run) -> None:
    out = npm_sdk.out
    assert out["created"] == ["sdk-npm", True, "running"]
    assert out["domain"] is True
    assert out["ran"] == [3, "é漢\U0001f600\n", "no\n"]
    assert (out["file"], out["missing file"]) == (True, True)
    assert out["listed"] == [0, "dir\nmade\n", ""]
    assert out["killed"] == 143
    assert out["missing program"] == 400


def test_the_npm_client_stops_resumes_and_saves(npm_sdk: Run) -> None:
    out = npm_sdk.out
    assert out["stopped"] == "stopped"
    assert out["kept"] == [0, "256\n", ""]
    assert out["snapshot"] is True
    assert out["duplicate"] == 400
    assert out["names"] == sorted([npm_sdk.ours, "sdk-npm"])
    assert out["gone"] == 404
