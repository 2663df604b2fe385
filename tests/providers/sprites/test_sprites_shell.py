"""Scripts over ``POST exec``: what comes back is what was written, however it travelled."""

from __future__ import annotations

import base64
import contextlib
import sys
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from ekairos_sandbox_sprites.options import SpritesSettings
from ekairos_sandbox_sprites.provider import SpritesProvider
from helpers.sprites import QuickClock, Sprites, environ, provider_for, say
from servers.sprites.server import SpritesServer
from servers.sprites.switches import Chunking

from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsupportedOperationError,
)
from ekairos_sandbox.provider import ProviderContext, SandboxRef

CHUNKINGS: tuple[Chunking, ...] = ("exact", "merge", "random")
LINES = "i=0; while [ $i -lt 3000 ]; do echo line $i; echo error $i >&2; i=$((i+1)); done"


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("code", [0, 1, 2, 3, 10, 65, 255])
def test_only_standard_output_comes_back_whatever_becomes_of_the_chunks(
    sprites: Sprites, server: SpritesServer, chunking: Chunking, code: int
) -> None:
    server.switches.chunking = chunking
    server.switches.odd_sizes = True
    connection, _ = sprites.create()
    output = connection.shell(f"{LINES}; exit {code}".encode(), timeout_s=60, max_bytes=1 << 20)
    assert output == b"".join(b"line %d\n" % number for number in range(3000))


def test_the_script_is_in_the_body_and_nowhere_else(
    sprites: Sprites, server: SpritesServer
) -> None:
    connection, _ = sprites.create("one")
    server.clear_requests()
    assert say(connection, "echo 'a secret of 4711'") == "a secret of 4711"
    (request,) = server.requests
    assert parse_qs(urlsplit(request.target).query) == {"cmd": ["/bin/sh"], "stdin": ["true"]}
    assert b"a secret of 4711" in request.body


def test_a_missing_exit_code_does_not_matter(sprites: Sprites, server: SpritesServer) -> None:
    connection, _ = sprites.create()
    server.switches.once("no_exit_frame")
    assert say(connection, "echo all") == "all"


def test_an_answer_that_stays_open_after_the_exit_code_is_not_waited_for(
    sprites: Sprites, server: SpritesServer
) -> None:
    server.switches.hold_exec_s = 60.0
    connection, _ = sprites.create()
    assert say(connection, "echo all; exit 7", timeout_s=20.0) == "all"
    server.switches.hold_exec_s = 0.0
    assert say(connection, "echo again") == "again"


def test_too_much_output_is_given_up(sprites: Sprites) -> None:
    connection, _ = sprites.create()
    with pytest.raises(ProviderError, match="more than 1000 bytes") as caught:
        say(connection, LINES, max_bytes=1000)
    assert caught.value.outcome == "unknown"


def test_a_deadline_holds_though_output_trickles_in(sprites: Sprites) -> None:
    connection, _ = sprites.create()
    with pytest.raises(ProviderTimeoutError) as caught:
        say(connection, "while :; do echo on; sleep 0.1; done", timeout_s=1.0)
    assert caught.value.outcome == "unknown"


@pytest.mark.parametrize(
    ("rule", "error", "outcome"),
    [
        ({"kind": "before"}, ProviderUnavailableError, "unknown"),
        ({"kind": "after"}, ProviderUnavailableError, "unknown"),
        ({"kind": "html", "status": 502}, ProviderUnavailableError, "unknown"),
        ({"kind": "status", "status": 500}, ProviderUnavailableError, "unknown"),
        ({"kind": "status", "status": 413}, ProviderError, "failed"),
        ({"kind": "status", "status": 400}, ProviderError, "failed"),
        ({"kind": "status", "status": 429}, ProviderRateLimitedError, "failed"),
    ],
    ids=str,
)
def test_a_script_is_never_sent_twice_and_its_outcome_is_told(
    sprites: Sprites,
    server: SpritesServer,
    rule: dict[str, Any],
    error: type[ProviderError],
    outcome: str,
) -> None:
    connection, _ = sprites.create()
    server.clear_requests()
    server.switches.add(method="POST", path="exec", **rule)
    with pytest.raises(error) as caught:
        say(connection, "true")
    assert caught.value.outcome == outcome
    assert server.counts() == {"POST exec": 1}


def test_nobody_listening_means_that_nothing_ran(server: SpritesServer) -> None:
    provider = provider_for(server, SPRITES_API_BASE_URL="http://127.0.0.1:9")
    connection = provider.attach(SandboxRef("one", "one"))
    with pytest.raises(ProviderUnavailableError) as caught:
        say(connection, "true")
    assert caught.value.outcome == "failed"


def test_a_connection_that_was_cut_while_idle_is_opened_anew(
    sprites: Sprites, server: SpritesServer
) -> None:
    connection, _ = sprites.create("one")
    assert say(connection, "echo first") == "first"
    server.advance(40)
    assert server.machine("one").status == "warm"
    assert say(connection, "echo second") == "second"
    server.advance(40)
    server.advance(300)
    assert server.machine("one").status == "cold"
    assert say(connection, "echo third") == "third"


@pytest.mark.slow
def test_a_wake_of_twelve_seconds_is_waited_for(sprites: Sprites, server: SpritesServer) -> None:
    server.switches.wake_s = 12.0
    sandbox = sprites.service(SystemClock()).create_sandbox(provider="sprites")
    assert sandbox.run_command("echo", ["woke"]).output == "woke\n"
    (sprite,) = server.world.all()
    sprite.machine.go_cold()
    assert sandbox.run_command("echo", ["again"]).output == "again\n"


def test_commands_are_right_though_every_third_answer_loses_its_output(
    sprites: Sprites, server: SpritesServer
) -> None:
    server.switches.lose_every = 3
    sandbox = sprites.service().create_sandbox(provider="sprites")
    for number in range(9):
        line = f'echo {number} >>"$HOME/ran"; echo {number}; exit {number}'
        result = sandbox.run_command(line, shell=True)
        assert (result.output, result.exit_code) == (f"{number}\n", number)
    assert sandbox.read_file("ran") == b"".join(b"%d\n" % number for number in range(9))


def test_a_binary_result_survives_merged_chunks_and_lost_replies(
    sprites: Sprites, server: SpritesServer
) -> None:
    server.switches.chunking = "random"
    sandbox = sprites.service().create_sandbox(provider="sprites")
    data = bytes(range(256)) * 200
    server.switches.add("after", "POST", "exec", reset=True)
    server.switches.add("before", "POST", "exec")
    script = 'base64 -d | tee /dev/stderr; echo x >>"$HOME/count"'
    result = sandbox.run_command("sh", ["-c", script], stdin=base64.b64encode(data))
    assert (result.stdout, result.stderr) == (data, data)
    assert sandbox.read_file("count") == b"x\n"


def test_many_threads_share_a_connection(sprites: Sprites) -> None:
    connection, _ = sprites.create()
    got: dict[int, str] = {}

    def work(number: int) -> None:
        got[number] = say(connection, f"echo {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: str(number) for number in range(6)}


def test_threads_that_are_first_at_once_share_what_is_opened(
    server: SpritesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    both = threading.Barrier(2, timeout=0.2)

    class Slow(SpritesSettings):
        @classmethod
        def from_environ(cls, environ: Mapping[str, str]) -> SpritesSettings:
            opened.append("settings")
            # Two at once meet here; one alone gives up on the other.
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()
            return SpritesSettings.from_environ(environ)

    monkeypatch.setattr("ekairos_sandbox_sprites.provider.SpritesSettings", Slow)
    provider = provider_for(server)
    threads = [threading.Thread(target=provider.account) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == ["settings"]
    provider.close()


# Settings


def test_the_first_variable_that_is_set_counts(server: SpritesServer) -> None:
    variables = {
        "SPRITES_API_TOKEN": "",
        "SPRITES_TOKEN": server.token,
        "SPRITE_TOKEN": "wrong",
        "SPRITES_API_BASE_URL": server.url,
        "SPRITES_API_URL": "http://127.0.0.1:9",
    }
    provider = SpritesProvider(ProviderContext(environ=variables))
    assert provider.find("nothing") is None


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SPRITES_API_TOKEN": " "}, "no token for Sprites is set .*SPRITES_API_TOKEN"),
        ({"SPRITES_API_BASE_URL": "http://api.example"}, "SPRITES_API_BASE_URL would send"),
        ({"SANDBOX_SPRITES_DELETE_ON_STOP": "maybe"}, "SANDBOX_SPRITES_DELETE_ON_STOP"),
        ({"SPRITES_API_TOKEN": "two words"}, "SPRITES_API_TOKEN holds characters"),
    ],
)
def test_a_wrong_setting_is_named_at_the_first_use(
    server: SpritesServer, variables: dict[str, str], message: str
) -> None:
    context = ProviderContext(environ={**environ(server), **variables})
    provider = SpritesProvider(context)
    with pytest.raises(ConfigurationError, match=message):
        provider.find("one")


# What a sprite can do besides


def test_only_port_8080_can_be_seen(sprites: Sprites, server: SpritesServer) -> None:
    connection, _ = sprites.create("one")
    preview = connection.preview_url(8080)
    assert preview.url == server.sprite("one").url
    assert preview.headers == (("Authorization", f"Bearer {server.token}"),)
    assert server.token not in repr(preview)
    with pytest.raises(UnsupportedOperationError, match="8080"):
        connection.preview_url(3000)
    server.sprite("one").auth = "public"
    assert connection.preview_url(8080).headers == ()


def test_without_the_sdk_the_native_object_names_the_install_line(
    sprites: Sprites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sprites", None)
    connection, _ = sprites.create()
    with pytest.raises(UnsupportedOperationError, match=r"ekairos-sandbox-sprites\[sdk\]"):
        connection.native()


class SdkClient:
    opened: ClassVar[list[SdkClient]] = []

    def __init__(self, token: str, *, base_url: str) -> None:
        self.made_with = token, base_url
        self.closed = False
        self.opened.append(self)

    def sprite(self, name: str) -> tuple[SdkClient, str]:
        return self, name

    def close(self) -> None:
        self.closed = True


def test_all_native_objects_have_one_client_that_lives_as_long_as_the_provider(
    sprites: Sprites, server: SpritesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sprites", SimpleNamespace(SpritesClient=SdkClient))
    connections = [sprites.create(name)[0] for name in ("one", "two")]
    (client, first), (same, second) = [connection.native() for connection in connections]
    assert (first, second, same) == ("one", "two", client)
    assert client.made_with == (server.token, server.url)
    connections[0].close()
    assert not client.closed
    sprites.provider.close()
    assert client.closed
    assert len(SdkClient.opened) == 1


def test_pauses_are_taken_by_the_clock_that_was_handed_in(
    sprites: Sprites, server: SpritesServer, clock: QuickClock
) -> None:
    server.switches.add("status", "GET", times=2, status=503)
    assert sprites.provider.find("none") is None
    assert len(clock.waits) == 2
