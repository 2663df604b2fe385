"""One client of Sprites in a process of its own: what it takes for what. Run by ``bench_sprites``.

Reads what to do from standard input as JSON, prints medians (ms) and memory (MiB) as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import begin_peak, in_turn, peak_mib

from ekairos_sandbox import RaisingSandbox, SandboxService
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

FILE_BYTES = 64 << 20
OUTPUT_BYTES = 100_000_000


def main() -> None:
    order = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        json.dump(ACTS[order["act"]](order, Path(folder)), sys.stdout)


def _box(order: dict[str, Any], folder: Path) -> RaisingSandbox:
    sprites = importlib.import_module("ekairos_sandbox_sprites")
    environ = {"SPRITES_API_TOKEN": order["token"], "SPRITES_API_URL": order["url"]}
    provider = sprites.SpritesProvider(ProviderContext(environ=environ))
    repository = SqliteSandboxRepository(folder / "bench.db")
    service = SandboxService(repository, environ={}, providers=[provider]).raising
    box = service.create_sandbox(provider="sprites")
    box.run_command("true").check()
    return box


def _sprite(order: dict[str, Any]) -> Any:
    sdk = importlib.import_module("sprites")
    client = sdk.SpritesClient(order["token"], base_url=order["url"])
    sprite = client.create_sprite("bench")
    sprite.run("true", capture_output=True)
    return sprite


def _session(order: dict[str, Any]) -> Any:
    """Requests without anything of ours."""
    session = importlib.import_module("requests").Session()
    session.headers["Authorization"] = f"Bearer {order['token']}"
    return session


def commands(order: dict[str, Any], folder: Path) -> dict[str, float]:
    """A short command: ours, theirs, our transport alone, and a bare request."""
    box, sprite = _box(order, folder), _sprite(order)
    live = box.service._operations.cache.get(box.sandbox_id)
    assert live is not None
    session = _session(order)
    url = f"{order['url']}/v1/sprites/bench/exec"
    bare, shell, ours, theirs = in_turn(
        order.get("times", 20),
        lambda: session.post(url, params={"cmd": "true"}).content,
        lambda: live.connection.shell(b"true", timeout_s=10, max_bytes=1000),
        lambda: box.run_command("true").check(),
        lambda: sprite.run("true", capture_output=True),
    )
    box.destroy()
    sprite.delete()
    return {"bare": bare, "shell": shell, "ours": ours, "theirs": theirs}


def files(order: dict[str, Any], folder: Path) -> dict[str, float]:
    """A large file both ways: ours, the same requests bare, and the one that reads it alone.

    A file of 64 MiB is there once four writes and a command that joins them are through, so the
    bare way does that too. Ours asks before and after a download what the file is: ``down_bare``
    does the same, ``down_once`` would not notice a file that is cut or changed meanwhile.
    """
    box = _box(order, folder)
    home = box.run_command("pwd").output.strip()
    session = _session(order)
    url = f"{order['url']}/v1/sprites/{box.record().external_sandbox_id}"
    source = _source(folder)

    def script(text: str) -> None:
        params = {"cmd": "/bin/sh", "stdin": "true"}
        session.post(f"{url}/exec", params=params, data=f"cd {home}; {text}").raise_for_status()

    def bare_up() -> None:
        with source.open("rb") as file:
            for number in range(4):
                params = {"path": f"{home}/part{number}", "workingDir": "/"}
                body = file.read(16 << 20)
                session.put(f"{url}/fs/write", params=params, data=body).raise_for_status()
        parts = "part0 part1 part2 part3"
        script(f"cat {parts} >bare.new && mv bare.new bare && rm {parts}")

    def down_once() -> None:
        params = {"path": f"{home}/bare", "workingDir": "/"}
        with (
            session.get(f"{url}/fs/read", params=params, stream=True) as answer,
            (folder / "bare").open("wb") as file,
        ):
            for piece in answer.iter_content(1 << 16):
                file.write(piece)

    def bare_down() -> None:
        script("stat bare")
        down_once()
        script("stat bare")

    def our_up() -> None:
        box.upload(source, "ours")

    def our_down() -> None:
        box.download("ours", folder / "ours")

    before = begin_peak()
    our_up()
    our_down()
    extra = peak_mib() - before
    bare_up()
    down_once()
    for name in ("ours", "bare"):
        assert (folder / name).stat().st_size == FILE_BYTES
    acts = (our_up, bare_up, our_down, bare_down, down_once)
    names = ("up", "up_bare", "down", "down_bare", "down_once")
    took = in_turn(order.get("transfers", 7), *acts)
    box.destroy()
    return {**dict(zip(names, took, strict=True)), "extra": extra}


def our_output(order: dict[str, Any], folder: Path) -> dict[str, float]:
    """Much output, of a command that ends with it and of one that runs on."""
    box = _box(order, folder)

    def read(script: str) -> int:
        size = 0
        with box.stream_command(script, shell=True) as stream:
            for chunk in stream:
                size += len(chunk.data)
                if size >= OUTPUT_BYTES:
                    break
        return size

    ends = f"head -c {OUTPUT_BYTES} /dev/zero"
    before = begin_peak()
    size = read(ends)
    extra = peak_mib() - before
    ended, going_on = in_turn(
        order.get("times", 5), lambda: read(ends), lambda: read(f"{ends}; exec sleep 60")
    )
    box.destroy()
    return {"ended": ended, "going_on": going_on, "extra": extra, "size": size}


def their_output(order: dict[str, Any], folder: Path) -> dict[str, float]:
    sprite = _sprite(order)
    before = begin_peak()
    with (folder / "out").open("wb") as sink:
        argv = ("head", "-c", str(OUTPUT_BYTES), "/dev/zero")
        spent = _timed(lambda: sprite.command(*argv, stdout=sink).run())
    extra = peak_mib() - before
    size = (folder / "out").stat().st_size
    sprite.delete()
    return {"ms": spent, "extra": extra, "size": size}


def _source(folder: Path) -> Path:
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(FILE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    return source


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1000


ACTS: dict[str, Callable[[dict[str, Any], Path], dict[str, float]]] = {
    act.__name__: act for act in (commands, files, our_output, their_output)
}

if __name__ == "__main__":
    main()
