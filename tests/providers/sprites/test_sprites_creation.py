"""Sprites are made once, found by name, and known by their labels."""

from __future__ import annotations

import json
import re

import pytest
from ekairos_sandbox_sprites.options import SpritesOptions
from ekairos_sandbox_sprites.provider import SpritesProvider
from helpers.sprites import ID, OWNER, TAGS, QuickClock, Sprites, provider_for, ref_of, say
from servers.sprites.server import SpritesServer
from servers.sprites.switches import Rule

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderUnavailableError,
    UnsupportedOperationError,
)
from ekairos_sandbox.provider import SandboxRef


def test_the_request_says_what_the_options_say(sprites: Sprites, server: SpritesServer) -> None:
    connection, _ = sprites.create("one", labels=("team-a",), delete_on_stop=False)
    made = server.sprite("one")
    assert (connection.external_id, connection.url) == ("one", made.url)
    assert connection.data == {
        "id": made.id,
        "name": "one",
        "url": made.url,
        "urlSettings": {"auth": "sprite", "private_access": "admins"},
        "deleteOnStop": False,
    }
    (request,) = [one for one in server.requests if one.method == "POST"]
    assert json.loads(request.body) == {
        "name": "one",
        "url_settings": {"auth": "sprite"},
        "labels": [
            f"ekairos-owner-{OWNER}",
            f"ekairos-id-{ID}",
            "ekairos-incarnation-1",
            "team-a",
        ],
        "wait_for_capacity": True,
    }


def test_public_must_be_asked_for(sprites: Sprites, server: SpritesServer) -> None:
    sprites.create("open", url_settings={"auth": "public"}, wait_for_capacity=False)
    assert server.sprite("open").auth == "public"
    (request,) = [one for one in server.requests if one.method == "POST"]
    assert json.loads(request.body)["wait_for_capacity"] is False


@pytest.mark.parametrize("status", [409, 400])
def test_an_existing_sprite_of_ours_is_adopted(
    sprites: Sprites, server: SpritesServer, status: int
) -> None:
    server.switches.duplicate_status = status
    first, _ = sprites.create("one")
    again, _ = sprites.create("one")
    assert (again.ownership, again.data["id"]) == ("adopted", first.data["id"])


def test_a_name_that_the_user_chose_is_borrowed_and_not_deleted_by_stop(
    sprites: Sprites, server: SpritesServer
) -> None:
    server.world.create("acme", "mine", "sprite", ["own"])
    spec = sprites.spec("mine", user_chosen=True)
    connection = sprites.provider.create(spec)
    assert (connection.ownership, connection.data["deleteOnStop"]) == ("borrowed", False)
    sprites.provider.stop(ref_of(spec, connection))
    assert server.sprite("mine").labels == ["own"]
    with pytest.raises(IdConflictError):
        sprites.create("mine")


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_creation_whose_answer_was_lost_is_found_or_made_once(
    sprites: Sprites, server: SpritesServer, kind: str
) -> None:
    server.switches.add(kind, "POST", "/v1/sprites$")  # type: ignore[arg-type]
    connection, _ = sprites.create("one")
    assert connection.data["id"] == server.sprite("one").id
    assert server.counts()["POST sprites"] == {"before": 2, "after": 1}[kind]
    assert say(connection, "echo on") == "on"


def test_a_creation_that_answers_502_after_its_effect_is_found_though_it_cannot_be_seen_at_once(
    sprites: Sprites, server: SpritesServer
) -> None:
    server.switches.add("after", "POST", "/v1/sprites$")
    server.switches.invisible_s = 2.0
    connection, _ = sprites.create("one")
    assert connection.data["id"] == server.sprite("one").id


def test_when_every_answer_is_lost_the_outcome_is_unknown(
    sprites: Sprites, server: SpritesServer
) -> None:
    server.switches.add("before", "POST", "/v1/sprites$", times=99)
    with pytest.raises(ProviderUnavailableError) as caught:
        sprites.create("one")
    assert caught.value.outcome == "unknown"


def test_a_quota_is_waited_for_and_the_error_says_which(
    sprites: Sprites, server: SpritesServer, clock: QuickClock
) -> None:
    server.switches.creations_per_minute = 1
    sprites.create("one")
    sprites.create("two")
    assert sum(clock.waits) >= 45
    with pytest.raises(ProviderRateLimitedError, match="limit is 1 per 60 s") as caught:
        sprites.create("three", timeout_s=5.0)
    assert (caught.value.outcome, caught.value.status) == ("failed", 429)
    assert sprites.provider.find("three") is None


def test_no_capacity_at_once_is_said(sprites: Sprites, server: SpritesServer) -> None:
    body = {"error": "concurrent_sprite_limit_exceeded", "limit": 3, "current_count": 3}
    server.switches.add("status", "POST", "/v1/sprites$", times=99, status=429, body=body)
    with pytest.raises(ProviderRateLimitedError, match="concurrent_sprite_limit") as caught:
        sprites.create("one")
    assert caught.value.hint == "the organisation's limit is 3"


def test_a_service_that_does_not_keep_labels_is_refused(
    sprites: Sprites, server: SpritesServer
) -> None:
    server.switches.keeps_labels = False
    with pytest.raises(ProviderError, match="labels") as caught:
        sprites.create("one")
    assert caught.value.outcome == "failed"
    assert server.world.all() == []


def test_a_refusal_is_told_with_the_services_own_words(
    sprites: Sprites, server: SpritesServer
) -> None:
    body = {"errors": ["invalid sprite name format"]}
    server.switches.add("status", "POST", status=400, body=body)
    with pytest.raises(ProviderError, match="HTTP 400: invalid sprite name format") as caught:
        sprites.create("one")
    assert (caught.value.outcome, caught.value.retryable) == ("failed", False)


def test_names_and_ports_are_checked_without_a_request(server: SpritesServer) -> None:
    provider = provider_for(server)
    sprites = Sprites.__new__(Sprites)
    with pytest.raises(ConfigurationError, match="lower-case"):
        provider.check_spec(sprites.spec("Not_A_Name"))
    spec = sprites.spec("fine")
    provider.check_spec(spec)
    with pytest.raises(UnsupportedOperationError, match="8080"):
        provider.check_spec(type(spec)("fine", spec.tags, spec.options, 1.0, ports=(8080, 3000)))
    assert server.requests == []


def test_a_config_with_another_port_is_refused_before_anything_is_recorded(
    sprites: Sprites, server: SpritesServer
) -> None:
    service = sprites.service()
    with pytest.raises(UnsupportedOperationError, match="8080"):
        service.create_sandbox(provider="sprites", ports=(3000,))
    assert list(service.iter_sandboxes()) == []
    assert server.requests == []


def test_a_name_that_leaves_no_room_for_an_incarnation_is_named_before_any_request(
    sprites: Sprites, server: SpritesServer
) -> None:
    name = "n" * 62
    sandbox = sprites.service().create_sandbox(provider="sprites", sprites={"name": name})
    server.world.delete(server.sprite(name))
    with pytest.raises(ConfigurationError, match=rf"'{name}-g2' is no name for a sprite"):
        sandbox.run_command("true")
    assert server.counts()["POST sprites"] == 1


def test_all_pages_are_listed(sprites: Sprites, server: SpritesServer) -> None:
    for number in range(205):
        owner = OWNER if number % 2 else "ffff"
        labels = [f"ekairos-owner-{owner}", f"ekairos-id-{ID}", f"ekairos-incarnation-{number}"]
        server.world.create("acme", f"s{number:03d}", "sprite", labels)
    found = list(sprites.provider.list_owned(OWNER))
    assert [info.name for info in found] == [
        f"s{number:03d}" for number in range(205) if number % 2
    ]
    assert found[1].tags is not None
    assert (found[1].tags.owner, found[1].tags.incarnation) == (OWNER, 3)
    assert server.counts() == {"GET sprites": 3}


def test_a_listing_that_fails_midway_raises(sprites: Sprites, server: SpritesServer) -> None:
    for number in range(101):
        server.world.create("acme", f"s{number:03d}", "sprite", [])
    pages = iter([False] + [True] * 99)
    server.switches.chance = lambda method, path: (
        Rule("status", status=503) if next(pages) else None
    )
    with pytest.raises(ProviderUnavailableError):
        list(sprites.provider.list_owned(OWNER))


def test_incomplete_or_doubled_labels_are_none_of_ours(
    sprites: Sprites, server: SpritesServer
) -> None:
    ours = [f"ekairos-owner-{OWNER}", f"ekairos-id-{ID}", "ekairos-incarnation-1"]
    server.world.create("acme", "partly", "sprite", ours[:2])
    server.world.create("acme", "twice", "sprite", [*ours, "ekairos-owner-other"])
    server.world.create("acme", "whole", "sprite", ours)
    names = {name: sprites.provider.find(name) for name in ("partly", "twice", "whole")}
    assert {name: info.tags if info else None for name, info in names.items()} == {
        "partly": None,
        "twice": None,
        "whole": TAGS,
    }


# Stopping


def test_stop_deletes_unless_that_was_not_wanted(sprites: Sprites, server: SpritesServer) -> None:
    _, kept = sprites.create("kept", delete_on_stop=False)
    _, deleted = sprites.create("deleted")
    for ref in (kept, deleted):
        sprites.provider.stop(ref)
        sprites.provider.stop(ref)
    assert [sprite.name for sprite in server.world.all()] == ["kept"]
    sprites.provider.destroy(kept)
    assert server.world.all() == []


def test_the_variable_decides_where_nothing_else_does(server: SpritesServer) -> None:
    provider: SpritesProvider = provider_for(server, SANDBOX_SPRITES_DELETE_ON_STOP="false")
    server.world.create("acme", "old", "sprite", [])
    provider.stop(SandboxRef("old", "old"))
    assert server.sprite("old").labels == []
    provider.stop(SandboxRef("old", "old", data={"deleteOnStop": True}))
    assert server.world.all() == []


def test_a_record_of_the_typescript_package_is_understood(
    sprites: Sprites, server: SpritesServer
) -> None:
    made = server.world.create("acme", "ekairos-from-elsewhere", "public", [])
    ref: SandboxRef[SpritesOptions] = SandboxRef(
        made.name, made.name, data={"id": made.id, "name": made.name, "lastCheckpointId": "v1"}
    )
    connection = sprites.provider.connect(ref)
    assert say(connection, "echo on") == "on"
    assert connection.data["lastCheckpointId"] == "v1"
    assert sprites.provider.inspect(ref).state == "running"


def test_the_account_is_address_and_organisation_and_costs_no_request(
    sprites: Sprites, server: SpritesServer
) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/acme/1000", sprites.provider.account())
    assert server.requests == []


def test_a_token_of_another_form_asks_for_the_organisation_once(server: SpritesServer) -> None:
    server.world.tokens["opaque-token-4711"] = "acme"
    provider = provider_for(server, SPRITES_API_TOKEN="opaque-token-4711")
    assert {provider.account() for _ in range(3)} == {f"{server.url}/acme"}
    assert server.counts() == {"GET sprites": 1}
