"""Output is whole also where the processes that store it get no time until the command is over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from helpers.host_shell import Box, ShellName, open_box


@pytest.fixture(params=["dash", "bash"])
def late(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A sandbox whose ``cat`` stands still for a while before it reads anything."""
    name: ShellName = request.param
    with open_box(name) as box:
        cat = box.home.parent / "bin" / "cat"
        cat.unlink(missing_ok=True)
        cat.write_text(
            "#!/bin/sh\n(sleep 0.7; kill -CONT $$) </dev/null >/dev/null &\nkill -STOP $$\n"
            f'exec {shutil.which("cat")} "$@"\n'
        )
        cat.chmod(0o755)
        yield box


def test_a_short_command_loses_nothing(late: Box) -> None:
    result = late.run("sh", "-c", "echo out; echo err >&2")

    assert (result.exit_code, result.stdout, result.stderr) == (0, b"out\n", b"err\n")


def test_nor_does_one_that_leaves_a_child_with_its_streams(late: Box) -> None:
    result = late.run("sh", "-c", "sleep 30 & echo out; echo err >&2")

    assert (result.exit_code, result.stdout, result.stderr) == (0, b"out\n", b"err\n")
