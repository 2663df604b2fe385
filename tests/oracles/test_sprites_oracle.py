"""The official clients of Sprites at work on the loopback service.

What they make of its answers shows that the answers are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from oracles import oracle_env
from servers.sprites.server import SpritesServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(420)]

PYTHON = "sprites-py==0.7.2"
NPM = "@fly/sprites@0.1.0"


def _run(script: Callable[[dict[str, str]], Any]) -> Iterator[dict[str, Any]]:
    with SpritesServer() as server:
        server.switches.odd_sizes = True
        settings = {
            "url": server.url,
            "token": server.token,
            # The first sprite's home, before it is made.
            "home": str(server.world.folder / "1" / "home"),
        }
        yield script(settings)
        assert server.internal_errors == []


@pytest.fixture(scope="module")
def python_sdk() -> Iterator[dict[str, Any]]:
    packages = oracle_env.python_packages(PYTHON)
    yield from _run(
        lambda settings: oracle_env.run_python(packages, "sprites_python_sdk.py", settings)
    )


@pytest.fixture(scope="module")
def npm_sdk() -> Iterator[dict[str, Any]]:
    packages = oracle_env.npm_packages(NPM)
    node = oracle_env.newer_node()
    yield from _run(
        lambda settings: oracle_env.run_node(packages, "sprites_npm_sdk.mjs", settings, node=node)
    )


def test_python_makes_finds_and_deletes_a_sprite(python_sdk: dict[str, Any]) -> None:
    name, status, labels, url = python_sdk["created"]
    assert (name, status, labels) == ("oracle", "cold", ["a", "b"])
    assert url.endswith("/at/acme/oracle")
    assert python_sdk["listed"] == ["oracle"]
    assert python_sdk["missing"] == python_sdk["deleted"] == "NotFoundError"


def test_python_runs_commands(python_sdk: dict[str, Any]) -> None:
    assert python_sdk["run"] == [3, "out\n", "err\n"]
    assert python_sdk["stdin"] == "given"
    assert python_sdk["sessions"] == 0


def test_python_reads_and_writes_files(python_sdk: dict[str, Any]) -> None:
    assert python_sdk["read"] is True
    assert python_sdk["names"] == ["file"]
    assert python_sdk["moved"] == [True, False]
    assert python_sdk["no file"] == "FileNotFoundError_"


def test_python_makes_and_restores_a_checkpoint(python_sdk: dict[str, Any]) -> None:
    assert python_sdk["checkpoint"][-1] == ["complete", "Checkpoint v1 created successfully"]
    assert ["v1", "from the oracle"] in python_sdk["checkpoints"]
    assert python_sdk["restore"][-1] == "complete"
    assert python_sdk["restored"] is True


def test_the_native_object_of_our_provider_works(python_sdk: dict[str, Any]) -> None:
    assert python_sdk["native"] == "native\n"


def test_npm_makes_finds_and_deletes_a_sprite(npm_sdk: dict[str, Any]) -> None:
    assert npm_sdk["created"] == ["oracle", "cold", ["a", "b"], "sprite"]
    assert npm_sdk["duplicate"] == 409
    assert npm_sdk["listed"] == ["oracle"]
    assert npm_sdk["missing"] == npm_sdk["deleted"] == 404


def test_npm_runs_commands_over_both_ways(npm_sdk: dict[str, Any]) -> None:
    assert npm_sdk["run"] == [3, "out\n", "err\n"]
    assert npm_sdk["run over http"] == [3, "", ""]
    assert npm_sdk["stdin"] == [0, "given"]
    assert npm_sdk["sessions"] == 0


def test_npm_reads_and_writes_files(npm_sdk: dict[str, Any]) -> None:
    assert npm_sdk["read"] is True
    assert npm_sdk["names"] == ["file"]
    assert npm_sdk["moved"] == [True, False]
    assert npm_sdk["no file"] == "ENOENT"


def test_npm_makes_and_restores_a_checkpoint(npm_sdk: dict[str, Any]) -> None:
    assert npm_sdk["checkpoint"][-1] == ["complete", "Checkpoint v1 created successfully"]
    assert ["v1", "from the oracle"] in npm_sdk["checkpoints"]
    assert npm_sdk["restore"] == "complete"
    assert npm_sdk["restored"] is True
