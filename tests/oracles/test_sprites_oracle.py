"""The official clients of Sprites at work on the loopback service.

What they make of its answers shows that the answers are right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from oracles import oracle_env
from servers.sprites.server import SpritesServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(420)]

PYTHON = "sprites-py==0.7.2"


@pytest.fixture(scope="module")
def python_sdk() -> Iterator[dict[str, Any]]:
    packages = oracle_env.python_packages(PYTHON)
    with SpritesServer() as server:
        server.switches.odd_sizes = True
        settings = {
            "url": server.url,
            "token": server.token,
            # The first sprite's home, before it is made.
            "home": str(server.world.folder / "1" / "home"),
        }
        yield oracle_env.run_python(packages, "sprites_python_sdk.py", settings)
        assert server.internal_errors == []


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
