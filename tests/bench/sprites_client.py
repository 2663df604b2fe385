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


def commands(order: dict[str, Any], folder: Path) -> dict[str, float]:
    """A short command: ours, theirs, our transport alone, and a bare request."""
    box, sprite = _box(order, folder), _sprite(order)
    live = box.service._operations.cache.get(box.sandbox_id)
    assert live is not None
    requests = importlib.import_module("requests")
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {order['token']}"
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


def our_files(order: dict[str, Any], folder: Path) -> dict[str, float]:
    box = _box(order, folder)
    source = _source(folder)
    before = begin_peak()
    up = _timed(lambda: box.upload(source, "big"))
    down = _timed(lambda: box.download("big", folder / "back"))
    extra = peak_mib() - before
    assert (folder / "back").stat().st_size == FILE_BYTES
    box.destroy()
    return {"up": up, "down": down, "extra": extra}


def raw_files(order: dict[str, Any], folder: Path) -> dict[str, float]:
    """The same with as few requests as the API allows, and nothing checked."""
    box = _box(order, folder)
    requests = importlib.import_module("requests")
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {order['token']}"
    name = box.record().external_sandbox_id
    home = box.run_command("pwd").output.strip()
    url = f"{order['url']}/v1/sprites/{name}/fs"
    source = _source(folder)

    def up() -> None:
        with source.open("rb") as file:
            for number in range(4):
                params = {"path": f"{home}/part{number}", "workingDir": "/"}
                session.put(f"{url}/write", params=params, data=file.read(16 << 20))

    def down() -> None:
        params = {"path": f"{home}/big", "workingDir": "/"}
        with (
            session.get(f"{url}/read", params=params, stream=True) as answer,
            (folder / "back").open("wb") as file,
        ):
            for piece in answer.iter_content(1 << 16):
                file.write(piece)

    up_ms = _timed(up)
    box.run_command("cat part0 part1 part2 part3 >big", shell=True).check()
    down_ms = _timed(down)
    assert (folder / "back").stat().st_size == FILE_BYTES
    box.destroy()
    return {"up": up_ms, "down": down_ms}


def our_output(order: dict[str, Any], folder: Path) -> dict[str, float]:
    box = _box(order, folder)
    before = begin_peak()
    size = 0

    def act() -> None:
        nonlocal size
        with box.stream_command(["head", "-c", str(OUTPUT_BYTES), "/dev/zero"]) as stream:
            size = sum(len(chunk.data) for chunk in stream)

    spent = _timed(act)
    extra = peak_mib() - before
    box.destroy()
    return {"ms": spent, "extra": extra, "size": size}


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
    act.__name__: act for act in (commands, our_files, raw_files, our_output, their_output)
}

if __name__ == "__main__":
    main()
