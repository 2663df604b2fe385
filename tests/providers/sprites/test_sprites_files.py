"""Large files through the file API, small ones by script; every byte or an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ekairos_sandbox_sprites.connection import SpritesConnection
from ekairos_sandbox_sprites.files import SpriteFiles
from helpers.sprites import Sprites
from servers.sprites.server import SpritesServer

from ekairos_sandbox.exceptions import (
    ProviderError,
    RemoteFileError,
    RemoteFileNotFoundError,
    TransferError,
)

BIG = os.urandom(2_500_000)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpriteFiles, "part_bytes", 1_000_000)


@pytest.fixture
def box(sprites: Sprites) -> SpritesConnection:
    return sprites.create("one")[0]


@pytest.fixture
def home(box: SpritesConnection, server: SpritesServer) -> Path:
    return server.machine("one").home


def names(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir())


def pieces(data: bytes, size: int = 70_000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def test_a_large_file_goes_up_in_parts_and_comes_down_in_one(
    box: SpritesConnection, home: Path, server: SpritesServer
) -> None:
    server.clear_requests()
    assert box.write_file(f"{home}/big", pieces(BIG), mode=0o640) == 2_500_000
    assert (home / "big").read_bytes() == BIG
    assert (home / "big").stat().st_mode & 0o7777 == 0o640
    assert names(home) == ["big"]
    assert server.counts() == {"PUT write": 3, "POST exec": 1}
    server.clear_requests()
    assert b"".join(box.read_file(f"{home}/big")) == BIG
    assert server.counts() == {"POST exec": 2, "GET read": 1}
    assert b"".join(box.read_file(f"{home}/big", offset=2_000_000)) == BIG[2_000_000:]


def test_a_small_file_takes_one_request_each_way(
    box: SpritesConnection, home: Path, server: SpritesServer
) -> None:
    for data in (b"", b"x", BIG[: 1 << 20]):
        server.clear_requests()
        assert box.write_file(f"{home}/small", [data]) == len(data)
        assert b"".join(box.read_file(f"{home}/small")) == data
        assert server.counts() == {"POST exec": 2}


def test_many_small_files_take_one_request(sprites: Sprites, server: SpritesServer) -> None:
    sandbox = sprites.service().create_sandbox(provider="sprites")
    server.clear_requests()
    sandbox.write_files({f"d/{number}": b"x" for number in range(50)})
    assert server.counts() == {"POST exec": 1}


@pytest.mark.parametrize("kind", ["before", "after", "html"])
@pytest.mark.parametrize("where", ["fs/write", "exec"])
def test_writing_survives_lost_answers(
    box: SpritesConnection, home: Path, server: SpritesServer, kind: str, where: str
) -> None:
    server.switches.add(kind, path=where, times=2)  # type: ignore[arg-type]
    assert box.write_file(f"{home}/big", pieces(BIG)) == len(BIG)
    assert (home / "big").read_bytes() == BIG
    assert names(home) == ["big"]


def test_reading_goes_on_after_a_cut(
    box: SpritesConnection, home: Path, server: SpritesServer
) -> None:
    (home / "big").write_bytes(BIG)
    server.switches.once("read_cut", 2)
    assert b"".join(box.read_file(f"{home}/big")) == BIG


def test_an_answer_that_ends_early_is_noticed(
    box: SpritesConnection, home: Path, server: SpritesServer
) -> None:
    (home / "big").write_bytes(BIG)
    server.switches.truncate_read_at = 1_000_000
    reading = box.read_file(f"{home}/big")
    assert next(reading)
    with pytest.raises(TransferError, match="1000000 of 2500000"):
        b"".join(reading)


def test_a_file_that_changes_on_its_way_is_an_error(
    box: SpritesConnection, home: Path, server: SpritesServer
) -> None:
    (home / "big").write_bytes(BIG)
    server.switches.once("read_cut")
    reading = box.read_file(f"{home}/big")
    next(reading)
    (home / "new").write_bytes(BIG[::-1])
    (home / "new").replace(home / "big")
    with pytest.raises(TransferError, match="changed"):
        b"".join(reading)


def test_a_file_that_grew_is_an_error(box: SpritesConnection, home: Path) -> None:
    (home / "big").write_bytes(BIG)
    reading = box.read_file(f"{home}/big")
    with (home / "big").open("ab") as file:
        file.write(b"more")
    with pytest.raises(TransferError, match="changed"):
        b"".join(reading)


def test_a_missing_file_is_not_a_missing_sprite(box: SpritesConnection, home: Path) -> None:
    with pytest.raises(RemoteFileNotFoundError):
        box.read_file(f"{home}/missing")


def test_a_refusal_of_the_file_api_is_a_file_error_and_leaves_nothing(
    box: SpritesConnection, home: Path
) -> None:
    (home / "file").write_bytes(b"kept")
    with pytest.raises(RemoteFileError) as caught:
        box.write_file(f"{home}/file/below", pieces(BIG))
    assert not isinstance(caught.value, ProviderError)
    with pytest.raises(RemoteFileError):
        box.write_file("/not/for/us", pieces(BIG))
    (home / "folder").mkdir()
    with pytest.raises(RemoteFileError, match="directory"):
        box.write_file(f"{home}/folder", pieces(BIG))
    assert names(home) == ["file", "folder"]
    assert (home / "file").read_bytes() == b"kept"


def test_a_source_that_breaks_off_leaves_nothing(
    box: SpritesConnection, home: Path, server: SpritesServer
) -> None:
    def broken() -> Iterator[bytes]:
        yield BIG
        raise InterruptedError

    (home / "big").write_bytes(b"old")
    with pytest.raises(InterruptedError):
        box.write_file(f"{home}/big", broken())
    assert names(home) == ["big"]
    assert (home / "big").read_bytes() == b"old"


def test_a_relative_path_belongs_to_the_home(box: SpritesConnection, home: Path) -> None:
    box.write_file("relative", pieces(BIG))
    assert (home / "relative").read_bytes() == BIG
    assert b"".join(box.read_file("relative")) == BIG


def test_a_file_without_a_size_is_read(box: SpritesConnection) -> None:
    assert b"".join(box.read_file("/proc/self/status")).startswith(b"Name:")


def test_a_write_that_hangs_because_the_sprite_sleeps_wakes_it(
    box: SpritesConnection, home: Path, server: SpritesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box._api.http, "_timeout_s", (5.0, 0.5))
    server.machine("one").go_cold()
    server.switches.cold_fs_hangs_s = 600
    assert box.write_file(f"{home}/big", pieces(BIG)) == 2_500_000
    assert (home / "big").read_bytes() == BIG
    assert names(home) == ["big"]
