"""Large files through the toolbox's forms, small ones by script; every byte or an error."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from ekairos_sandbox_daytona.files import ToolboxFiles
from ekairos_sandbox_daytona.options import DaytonaOptions
from ekairos_sandbox_daytona.provider import DaytonaProvider
from helpers.daytona import server_process
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.exceptions import (
    RemoteFileError,
    RemoteFileNotFoundError,
    SandboxGoneError,
    TransferError,
)
from ekairos_sandbox.provider import Connection, CreateSpec, ProviderContext, Tags

EXEC = "/toolbox/[^/]+/process/execute"
UPLOAD = "/toolbox/[^/]+/files/bulk-upload"
DOWNLOAD = "/toolbox/[^/]+/files/bulk-download"
BIG = os.urandom(2_500_000)
END = b"\r\n--DAYTONA-FILE-BOUNDARY--"
NASTY = {
    "empty": b"",
    "one byte": b"\0",
    "every byte": bytes(range(256)) * 7000,
    "the constant boundary": (b"a" + END + b"\r\nb") * 50_000,
    "an end like the answer's": b"a" * 1_500_000 + END + b"\r\n",
    "half a boundary at the end": b"a" * 1_500_000 + END[:-3],
    "line ends": b"\r\n" * 700_000,
    "no utf-8": b"\xff\xfe\xed\xa0\x80" * 300_000,
}
NAMES = (" spaces ", "new\nline", "ü€", "caf\udce9", "-n", "%2e#?&+")


@pytest.fixture
def connection(provider: DaytonaProvider) -> Connection:
    return create(provider)


@pytest.fixture
def home(server: DaytonaServer, connection: Connection) -> Path:
    guest = server.box(connection.external_id).guest
    assert guest is not None
    return guest.home


def create(provider: DaytonaProvider) -> Connection:
    options = DaytonaOptions(ephemeral=False)
    return provider.create(CreateSpec("ekairos-x", Tags("owner", "x", 1), options, 60))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToolboxFiles, "part_bytes", 1_000_000)


def names(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir())


def read(connection: Connection, path: Path | str) -> bytes:
    return b"".join(connection.read_file(str(path)))


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY)
def test_nasty_contents_survive_both_ways(
    server: DaytonaServer, connection: Connection, home: Path, data: bytes
) -> None:
    path = home / "folder of all/file"
    assert connection.write_file(str(path), [data[:7], data[7:]], mode=0o640) == len(data)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o7777 == 0o640
    server.clear_requests()
    assert read(connection, path) == data
    downloads = server.counts()["POST /toolbox/*/files/bulk-download"]
    assert downloads == (1 if len(data) > 1 << 20 else 0)
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("name", NAMES)
def test_nasty_names_survive_both_ways(connection: Connection, home: Path, name: str) -> None:
    path = home / f"folder of {name}/{name}"
    assert connection.write_file(str(path), [BIG]) == len(BIG)
    assert path.read_bytes() == BIG
    assert read(connection, path) == BIG
    assert names(path.parent) == [name]


def test_the_sdks_download_would_have_cut_such_a_file(connection: Connection, home: Path) -> None:
    (home / "cut").write_bytes(NASTY["the constant boundary"])
    native = connection.native()
    assert native.fs.download_file("cut") != NASTY["the constant boundary"]
    assert read(connection, home / "cut") == NASTY["the constant boundary"]


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_takes_few_requests(
    server: DaytonaServer, connection: Connection, home: Path
) -> None:
    server.clear_requests()
    connection.write_file(str(home / "big"), [BIG])
    assert server.counts() == {
        "POST /toolbox/*/files/bulk-upload": 3,
        "POST /toolbox/*/process/execute": 2,
    }
    server.clear_requests()
    assert read(connection, home / "big") == BIG
    assert server.counts() == {
        "POST /toolbox/*/files/bulk-download": 1,
        "POST /toolbox/*/process/execute": 2,
    }


def test_a_token_for_several_organisations_moves_files_too(server: DaytonaServer) -> None:
    one = server.organisation
    environ = {
        "DAYTONA_API_URL": server.api_url,
        "DAYTONA_JWT_TOKEN": one.jwt,
        "DAYTONA_ORGANIZATION_ID": one.id,
    }
    connection = create(DaytonaProvider(ProviderContext(environ=environ)))
    guest = server.box(connection.external_id).guest
    assert guest is not None
    connection.write_file(str(guest.home / "big"), [BIG])
    assert read(connection, guest.home / "big") == BIG


@pytest.mark.usefixtures("small_parts")
def test_parts_lie_in_a_folder_that_others_cannot_enter(
    server: DaytonaServer, connection: Connection, home: Path
) -> None:
    seen: list[tuple[int, int]] = []

    def pieces() -> Iterator[bytes]:
        yield BIG[:1_500_000]
        # Now that the first part is up.
        (folder,) = home.glob(".ekairos-*")
        seen.append((folder.stat().st_mode & 0o7777, len(list(folder.iterdir()))))
        yield BIG[1_500_000:]

    connection.write_file(str(home / "big"), pieces())
    assert seen == [(0o700, 1)]
    assert names(home) == ["big"]


@pytest.mark.usefixtures("small_parts")
def test_parts_may_be_sent_again(server: DaytonaServer, connection: Connection, home: Path) -> None:
    server.faults.add("drop", "POST", UPLOAD)
    server.faults.add("drop_after", "POST", UPLOAD, skip=1)
    server.faults.add("drop_after", "POST", EXEC, times=2)
    assert connection.write_file(str(home / "big"), [BIG]) == len(BIG)
    assert (home / "big").read_bytes() == BIG
    assert names(home) == ["big"]


@pytest.mark.parametrize("kind", ["drop", "drop_after", "cut"])
def test_a_download_that_is_cut_goes_on(
    server: DaytonaServer, connection: Connection, home: Path, kind: str
) -> None:
    (home / "big").write_bytes(BIG)
    server.faults.add(kind, "POST", DOWNLOAD, times=2)  # type: ignore[arg-type]
    assert read(connection, home / "big") == BIG


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + BIG,
        b'--y\r\nContent-Disposition: form-data; name="file"\r\n\r\nshort\r\n--y--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nshort\r\n--x--\r\n',
    ],
    ids=["empty", "no head", "no end", "another boundary", "short"],
)
def test_an_answer_that_is_not_the_whole_file_is_an_error(
    server: DaytonaServer, connection: Connection, home: Path, body: bytes
) -> None:
    (home / "big").write_bytes(BIG)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    server.faults.add("answer", "POST", DOWNLOAD, times=99, status=200, body=body, headers=kind)
    with pytest.raises(TransferError, match=r"cut short|changed"):
        read(connection, home / "big")


def test_a_file_that_changes_in_place_is_an_error(connection: Connection, home: Path) -> None:
    (home / "big").write_bytes(BIG)
    reading = connection.read_file(str(home / "big"))
    next(reading)
    with (home / "big").open("r+b") as file:
        file.write(b"other")
    with pytest.raises(TransferError, match="changed"):
        list(reading)


def test_a_missing_file_is_not_a_missing_sandbox(
    server: DaytonaServer, connection: Connection, home: Path
) -> None:
    (home / "big").write_bytes(BIG)
    with pytest.raises(RemoteFileNotFoundError):
        connection.read_file(str(home / "missing"))
    reading = connection.read_file(str(home / "big"))
    (home / "big").unlink()
    with pytest.raises(RemoteFileNotFoundError):
        list(reading)
    server.set_state(connection.external_id, "destroyed")
    for act in (
        lambda: connection.read_file(str(home / "missing")),
        lambda: connection.write_file(str(home / "big"), [BIG]),
    ):
        with pytest.raises(SandboxGoneError):
            act()


@pytest.mark.usefixtures("small_parts")
def test_a_sandbox_that_is_destroyed_between_parts_is_gone(
    server: DaytonaServer, connection: Connection, home: Path
) -> None:
    def pieces() -> Iterator[bytes]:
        yield BIG[:1_500_000]
        server.set_state(connection.external_id, "destroyed")
        yield BIG[1_500_000:]

    with pytest.raises(SandboxGoneError):
        connection.write_file(str(home / "big"), pieces())


@pytest.mark.usefixtures("small_parts")
def test_what_the_toolbox_cannot_store_is_a_file_error_and_leaves_nothing(
    server: DaytonaServer, connection: Connection, home: Path
) -> None:
    (home / "file").write_bytes(b"kept")
    body = {"errors": ["/x: no space left on device"], "files": []}
    server.faults.add("answer", "POST", UPLOAD, skip=1, status=400, body=body)
    with pytest.raises(RemoteFileError, match="no space left"):
        connection.write_file(str(home / "file"), [BIG])
    assert names(home) == ["file"]
    assert (home / "file").read_bytes() == b"kept"


@pytest.mark.usefixtures("small_parts")
def test_a_source_that_fails_leaves_the_old_file_and_nothing_else(
    connection: Connection, home: Path
) -> None:
    (home / "kept").write_bytes(b"old")

    def pieces() -> Iterator[bytes]:
        yield BIG
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="the source failed"):
        connection.write_file(str(home / "kept"), pieces())
    assert (home / "kept").read_bytes() == b"old"
    assert names(home) == ["kept"]


def test_a_big_transfer_needs_little_memory() -> None:
    piece = os.urandom(1 << 20)

    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield piece

    with server_process() as environ:
        connection = create(DaytonaProvider(ProviderContext(environ=environ)))
        home = connection.shell(b'printf %s "$HOME"', timeout_s=30, max_bytes=9999).decode()
        tracemalloc.start()
        try:
            assert connection.write_file(f"{home}/big", pieces()) == 64 << 20
            size = sum(map(len, connection.read_file(f"{home}/big")))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 24 << 20
