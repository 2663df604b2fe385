"""Gone, unreachable, mistaken, replaced: four things that are never confused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.sprites import QuickClock, Sprites, say
from servers.sprites.server import SpritesServer
from servers.sprites.switches import Rule

from ekairos_sandbox.exceptions import (
    ProviderAuthError,
    ProviderError,
    ProviderUnavailableError,
    SandboxGoneError,
)

MISSING = {"error": "sprite not found"}


def test_a_deleted_sprite_is_gone_after_three_answers(
    sprites: Sprites, server: SpritesServer, clock: QuickClock
) -> None:
    connection, ref = sprites.create("one")
    server.world.delete(server.sprite("one"))
    for act in (
        lambda: say(connection, "true"),
        lambda: sprites.provider.connect(ref),
        lambda: sprites.provider.inspect(ref),
        lambda: connection.list_checkpoints(),
        lambda: list(connection.read_file("/etc/hostname")),
        lambda: connection.write_file("/tmp/big", [b"x" * 300_000]),
        lambda: connection.write_file("/tmp/big", [b"x" * 2_000_000]),
        lambda: connection.preview_url(8080),
    ):
        server.clear_requests()
        clock.waits.clear()
        with pytest.raises(SandboxGoneError) as caught:
            act()
        assert caught.value.outcome == "failed"
        assert clock.waits == [1.5]
        assert server.counts()["GET sprites"] == 1
    sprites.provider.stop(ref)
    sprites.provider.destroy(ref)


def test_one_not_found_answer_proves_nothing(sprites: Sprites, server: SpritesServer) -> None:
    connection, ref = sprites.create("one")
    server.switches.add("status", "POST", "exec", status=404, body=MISSING)
    with pytest.raises(ProviderUnavailableError) as caught:
        say(connection, "true")
    assert (caught.value.outcome, caught.value.retryable) == ("failed", True)
    server.switches.add("status", "GET", "/v1/sprites/one$", status=404, body=MISSING)
    assert sprites.provider.connect(ref).external_id == "one"


def test_an_incident_that_hides_all_sprites_is_noticed_by_the_list(
    sprites: Sprites, server: SpritesServer
) -> None:
    connection, ref = sprites.create("one")
    server.switches.chance = lambda method, path: (
        Rule("status", status=404, body=MISSING) if "/one" in path else None
    )
    for act in (
        lambda: say(connection, "true"),
        lambda: sprites.provider.connect(ref),
        lambda: sprites.provider.stop(ref),
        lambda: sprites.provider.destroy(ref),
    ):
        with pytest.raises(ProviderUnavailableError):
            act()
    server.switches.clear()
    assert say(connection, "echo on") == "on"


def test_a_not_found_answer_to_a_deletion_proves_nothing(
    sprites: Sprites, server: SpritesServer
) -> None:
    _, ref = sprites.create("one")
    server.switches.add("status", "DELETE", status=404, body=MISSING)
    with pytest.raises(ProviderUnavailableError):
        sprites.provider.stop(ref)
    assert server.sprite("one").id == ref.data["id"]


def test_a_deletion_whose_answer_was_lost_is_a_success(
    sprites: Sprites, server: SpritesServer, clock: QuickClock
) -> None:
    _, ref = sprites.create("one")
    server.switches.add("after", "DELETE")
    sprites.provider.destroy(ref)
    assert server.world.all() == []
    assert 1.5 in clock.waits


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_not_found_without_a_working_token_proves_nothing(
    sprites: Sprites, server: SpritesServer, status: int
) -> None:
    connection, ref = sprites.create("one")

    def chance(method: str, path: str) -> Rule:
        if path == "/v1/sprites":
            return Rule("status", status=status, body={"error": "failed to list"})
        return Rule("status", status=404, body=MISSING)

    server.switches.chance = chance
    for act in (lambda: say(connection, "true"), lambda: sprites.provider.connect(ref)):
        with pytest.raises(ProviderError) as caught:
            act()
        assert not isinstance(caught.value, SandboxGoneError)
        assert isinstance(caught.value, ProviderAuthError) == (status in (401, 403))


@pytest.mark.parametrize(
    "rule",
    [
        Rule("html", status=404),
        Rule("status", status=404, body={"error": "not found"}),
        Rule("status", status=404, body=["sprite not found"]),
        Rule("status", status=500, body={"error": "failed to retrieve sprite"}),
        Rule("status", status=401, body={"error": "authentication failed"}),
        Rule("before"),
    ],
    ids=["a proxy's page", "another path", "odd JSON", "500", "401", "cut"],
)
def test_what_only_resembles_a_not_found_answer_is_none(
    sprites: Sprites, server: SpritesServer, rule: Rule
) -> None:
    connection, ref = sprites.create("one")
    server.switches.chance = lambda method, path: rule
    for act in (
        lambda: say(connection, "true"),
        lambda: sprites.provider.connect(ref),
        lambda: sprites.provider.inspect(ref),
        lambda: sprites.provider.find("one"),
        lambda: sprites.provider.destroy(ref),
    ):
        with pytest.raises(ProviderError) as caught:
            act()
        assert not isinstance(caught.value, SandboxGoneError)


def test_the_same_name_with_another_id_is_another_machine(
    sprites: Sprites, server: SpritesServer
) -> None:
    connection, ref = sprites.create("one")
    server.world.delete(server.sprite("one"))
    new = server.world.create("acme", "one", "sprite", [])
    assert new.id != ref.data["id"]
    for act in (lambda: sprites.provider.connect(ref), lambda: sprites.provider.inspect(ref)):
        with pytest.raises(SandboxGoneError):
            act()
    sprites.provider.stop(ref)
    sprites.provider.destroy(ref)
    assert server.sprite("one") is new
    # Without a stored id, name and labels decide.
    assert sprites.provider.connect(replace(ref, data={})).data["id"] == new.id
    server.switches.add("status", "POST", "exec", status=404, body=MISSING)
    with pytest.raises(SandboxGoneError):
        say(connection, "true")


def test_a_command_notices_that_its_sprite_was_replaced(
    sprites: Sprites, server: SpritesServer
) -> None:
    service = sprites.service()
    sandbox = service.create_sandbox(provider="sprites", sprites={"name": "chosen"})
    sandbox.write_files({"old": b"1"})
    server.world.delete(server.sprite("chosen"))
    server.world.create("acme", "chosen", "sprite", [])
    result = sandbox.run_command("ls")
    assert (result.output, result.recreated) == ("", True)
    assert {sprite.name for sprite in server.world.all()} == {"chosen", "chosen-g2"}


def test_another_sprite_of_the_same_name_is_neither_saved_nor_restored_nor_shown(
    sprites: Sprites, server: SpritesServer
) -> None:
    connection, _ = sprites.create("one")
    server.world.delete(server.sprite("one"))
    server.world.create("acme", "one", "sprite", [])
    server.clear_requests()
    for act in (
        connection.create_checkpoint,
        connection.list_checkpoints,
        lambda: connection.restore_checkpoint("v0"),
        lambda: connection.preview_url(8080),
    ):
        with pytest.raises(SandboxGoneError):
            act()
    assert server.counts() == {"GET one": 4}


def test_a_refused_token_is_told_without_showing_it(
    sprites: Sprites, server: SpritesServer
) -> None:
    connection, _ = sprites.create("one")
    body = {"error": f"bad token {server.token}"}
    server.switches.add("status", "POST", "exec", status=401, body=body)
    with pytest.raises(ProviderAuthError, match=r"bad token \*\*\*") as caught:
        say(connection, "true")
    assert "check SPRITES_API_TOKEN" in str(caught.value)
    assert server.token not in repr(caught.value.__dict__)
