"""A sprite that nobody is attached to freezes; a running command keeps it awake, and no longer."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import pytest
from helpers.sprites import Sprites
from servers.sprites.server import SpritesServer

from ekairos_sandbox.jobs import call_scripts
from ekairos_sandbox.provider import SandboxRef

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_scripts, "AWAKE_FIRST_S", "0.2")
    monkeypatch.setattr(call_scripts, "AWAKE_AGAIN_S", "0.2")


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def test_a_background_command_goes_on_while_nobody_is_attached(
    sprites: Sprites, server: SpritesServer
) -> None:
    sandbox = sprites.service().create_sandbox(provider="sprites", sprites={"name": "one"})
    machine = server.machine("one")
    script = 'until [ -e "$HOME/go" ]; do sleep 0.05; done; echo ended'
    command = sandbox.start_command(["sh", "-c", script])
    until(lambda: machine.tasks)
    for _ in range(3):
        server.advance(40)
        assert machine.status == "running"
        held = len(machine.task_log)
        until(lambda held=held: len(machine.task_log) > held)  # type: ignore[misc]
    # Without a request, so that nothing else wakes it.
    (machine.home / "go").touch()
    until(lambda: machine.task_log[-1].startswith("DELETE"))
    assert machine.tasks == {}
    server.advance(40)
    assert machine.status == "warm"
    assert command.wait(20).output == "ended\n"


def test_a_command_that_was_killed_keeps_nothing_awake(
    sprites: Sprites, server: SpritesServer
) -> None:
    sandbox = sprites.service().create_sandbox(provider="sprites", sprites={"name": "one"})
    machine = server.machine("one")
    command = sandbox.start_command(["sleep", "300"])
    until(lambda: machine.tasks)
    command.kill()
    until(lambda: not machine.tasks)
    server.advance(40)
    assert machine.status == "warm"


def test_stopping_ends_the_commands_that_would_keep_a_kept_sprite_awake(
    sprites: Sprites, server: SpritesServer
) -> None:
    options = {"name": "one", "delete_on_stop": False}
    sandbox = sprites.service().create_sandbox(provider="sprites", sprites=options)
    machine = server.machine("one")
    stubborn = "trap '' TERM; while :; do sleep 1; done"
    commands = [
        sandbox.start_command("sleep", ["300"]),
        sandbox.start_command(stubborn, shell=True),
    ]
    until(lambda: len(machine.tasks) == 2)
    sandbox.stop()
    until(lambda: not machine.tasks)
    server.advance(40)
    assert machine.status == "warm"
    # A sprite that sleeps is not woken.
    sprites.provider.stop(SandboxRef("one", "one", data={"deleteOnStop": False}))
    assert machine.status == "warm"
    sandbox.reconnect()
    assert [command.wait(20).exit_code for command in commands] == [143, 137]
    assert sandbox.run_command("echo", ["on"]).output == "on\n"


def test_a_sprite_without_commands_sleeps_and_wakes(
    sprites: Sprites, server: SpritesServer
) -> None:
    sandbox = sprites.service().create_sandbox(provider="sprites", sprites={"name": "one"})
    sandbox.run_command("true").check()
    server.advance(40)
    found = sprites.provider.find("one")
    assert found is not None
    assert found.state == "stopped"
    assert server.machine("one").status == "warm"
    assert sandbox.run_command("echo", ["on"]).output == "on\n"
