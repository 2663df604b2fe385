"""Checkpoints: their ids, their failures, and the way back."""

from __future__ import annotations

import pytest
from helpers.sprites import QuickClock, Sprites, say
from servers.sprites.server import SpritesServer

from ekairos_sandbox.exceptions import (
    CheckpointNotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from ekairos_sandbox_sprites import checkpoints


def test_ids_come_from_the_text_and_the_list_is_oldest_first(
    sprites: Sprites, server: SpritesServer
) -> None:
    connection, _ = sprites.create("one")
    made = [connection.create_checkpoint(comment) for comment in ("first", "second")]
    assert [one.id for one in made] == ["v1", "v2"]
    listed = connection.list_checkpoints()
    assert [(one.id, one.comment) for one in listed] == [
        ("v0", ""),
        ("v1", "first"),
        ("v2", "second"),
    ]
    assert connection.data["lastCheckpointId"] == "v2"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (['{"type":"complete","data":"Checkpoint v8 created"}'], "v8"),
        (['{"type":"info","data":"  ID: v3"}', '{"type":"complete","data":"done"}'], "v3"),
        (["noise", '{"type":"complete","data":"done"}'], "v0"),
    ],
)
def test_an_id_is_found_in_every_wording(
    sprites: Sprites, server: SpritesServer, events: list[str], expected: str
) -> None:
    connection, _ = sprites.create("one")
    server.switches.add(
        "status", "POST", "checkpoint$", status=200, body="\n".join(events), raw=True
    )
    assert connection.create_checkpoint().id == expected


def test_a_list_that_is_none_is_an_error(sprites: Sprites, server: SpritesServer) -> None:
    connection, _ = sprites.create("one")
    server.switches.add("status", "GET", "checkpoints$", status=200, body={"error": "busy"})
    with pytest.raises(ProviderUnavailableError, match="list_checkpoints"):
        connection.list_checkpoints()


def test_a_failure_with_status_200_is_an_error(sprites: Sprites, server: SpritesServer) -> None:
    connection, _ = sprites.create("one")
    server.switches.once("checkpoint_fails")
    with pytest.raises(ProviderError, match="storage busy") as caught:
        connection.create_checkpoint()
    assert caught.value.outcome == "failed"
    assert "lastCheckpointId" not in connection.data
    server.switches.once("restore_fails")
    with pytest.raises(ProviderError, match="storage busy"):
        connection.restore_checkpoint("v0")


@pytest.mark.parametrize("kind", ["before", "after", "html"])
def test_a_lost_answer_is_unknown_and_nothing_is_repeated(
    sprites: Sprites, server: SpritesServer, kind: str
) -> None:
    connection, _ = sprites.create("one")
    server.clear_requests()
    server.switches.add(kind, "POST", "checkpoint$")  # type: ignore[arg-type]
    with pytest.raises(ProviderUnavailableError) as caught:
        connection.create_checkpoint()
    assert caught.value.outcome == "unknown"
    assert server.counts() == {"GET one": 1, "POST checkpoint": 1}


def test_an_unknown_checkpoint_is_named(sprites: Sprites) -> None:
    connection, _ = sprites.create()
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint 'v77'") as caught:
        connection.restore_checkpoint("v77")
    assert (caught.value.retryable, caught.value.outcome) == (False, "failed")


def test_a_restore_ends_at_complete_and_waits_until_the_sprite_is_back(
    sprites: Sprites, server: SpritesServer, clock: QuickClock
) -> None:
    server.switches.restore_holds_s = 60.0
    server.switches.restore_unavailable_s = 20.0
    connection, _ = sprites.create("one")
    say(connection, 'echo old >"$HOME/data"')
    checkpoint = connection.create_checkpoint()
    say(connection, 'echo new >"$HOME/data"')
    connection.restore_checkpoint(checkpoint.id)
    assert say(connection, 'cat "$HOME/data"') == "old"
    assert 18 <= sum(clock.waits) <= 25
    assert connection.data["lastRestoredCheckpointId"] == checkpoint.id


def test_a_sprite_that_does_not_come_back_is_said(
    sprites: Sprites, server: SpritesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "RETURN_S", 5.0)
    server.switches.restore_unavailable_s = 100_000.0
    clock = server.clock
    connection, _ = sprites.create("one")
    sprites.clock.monotonic = clock.now  # type: ignore[method-assign]
    with pytest.raises(ProviderTimeoutError, match="does not come back") as caught:
        connection.restore_checkpoint("v0")
    assert caught.value.outcome == "unknown"


def test_the_record_keeps_the_last_checkpoints(sprites: Sprites, server: SpritesServer) -> None:
    server.switches.restore_unavailable_s = 20.0
    sandbox = sprites.service().create_sandbox(provider="sprites")
    first = sandbox.create_checkpoint("first")
    second = sandbox.create_checkpoint("second")
    sandbox.restore_checkpoint(first.id)
    kept = (sandbox.record().params or {})["sprites"]
    assert kept["lastCheckpointId"] == second.id
    assert kept["lastRestoredCheckpointId"] == first.id
    assert sandbox.run_command("echo", ["on"]).output == "on\n"
    sandbox.reconnect()
    assert (sandbox.record().params or {})["sprites"] == kept
