"""Large files by a service's own way: parts that scripts join, downloads that scripts check."""

from __future__ import annotations

import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.tmp_shell import SHELLS, FakeClock, TmpShell, lost

from ekairos_sandbox.exceptions import (
    ProviderUnavailableError,
    RemoteFileError,
    RemoteFileNotFoundError,
    SandboxGoneError,
    TransferError,
)
from ekairos_sandbox.shell import files, writing
from ekairos_sandbox.shell.chunks import Pieces

LARGE = os.urandom(20_000)
OLD = b"old"


class Disk:
    """Moves files by the file system, as a service would, with mistakes on demand.

    Attributes:
        part_bytes, private: As in ``FileApi``.
        puts: The paths written to.
        modes: Of each part and of its folder, once it was written.
        gets: How many files were asked for.
        before: Called with the number of each ``put``, 0 for the first.
        ends: Where the next downloads end; the last of them forever.
        breaks: Whether a download that ends early says so.
        refuses: Whether the service has no file for anybody.
    """

    def __init__(self, *, private: bool = True, part_bytes: int = 8_000) -> None:
        self.part_bytes = part_bytes
        self.private = private
        self.puts: list[str] = []
        self.modes: list[tuple[int, int]] = []
        self.gets = 0
        self.before: Callable[[int], None] = lambda number: None
        self.ends: list[int | None] = [None]
        self.breaks = False
        self.refuses = False

    def put(self, path: str, part: Pieces) -> None:
        self.before(len(self.puts))
        assert 0 < len(part) <= self.part_bytes
        self.puts.append(path)
        target = Path(path)
        target.touch(0o600 if self.private else 0o644)
        with target.open("wb") as file:
            for piece in part:
                file.write(piece)
        self.modes.append((mode_of(target), mode_of(target.parent)))

    def get(self, path: str) -> Iterator[bytes]:
        self.gets += 1
        if self.refuses:
            raise RemoteFileError("not for the service")
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        content = Path(path).read_bytes()
        yield from (content[at : at + 3_000] for at in range(0, len(content[:end]), 3_000))
        if end is not None and self.breaks:
            raise ProviderUnavailableError("the connection was lost", outcome="unknown")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _small_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SCRIPT_BYTES", 3_000)
    monkeypatch.setattr(files, "SCRIPT_BYTES", 3_000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o755)
    return tmp_path / "home"


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, home: Path) -> TmpShell:
    return TmpShell(home, request.param)


@pytest.fixture(params=[True, False], ids=["private", "open"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return Disk(private=request.param)


def write(shell: TmpShell, path: str, disk: Disk, *chunks: bytes, mode: int = 0o644) -> int:
    return files.write_file(shell, path, chunks, mode=mode, clock=FakeClock(), api=disk)


def read(shell: TmpShell, path: str, disk: Disk, offset: int = 0) -> bytes:
    opened = files.read_file(shell, path, offset=offset, clock=FakeClock(), api=disk)
    return b"".join(opened)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["f", "new\nline", "-rf $HOME 'x'", "n" * 255, "\udcff"])
def test_parts_are_joined_whatever_the_file_is_called(
    shell: TmpShell, home: Path, disk: Disk, name: str
) -> None:
    path = f"{home}/{name}"
    assert write(shell, path, disk, LARGE[:7], b"", LARGE[7:], mode=0o640) == 20_000
    assert Path(path).read_bytes() == LARGE
    assert mode_of(Path(path)) == 0o640
    assert names(home) == [name]
    assert len(disk.puts) == 3
    assert shell.calls == (1 if disk.private else 2)


def test_nobody_else_can_read_a_part(shell: TmpShell, home: Path, disk: Disk) -> None:
    write(shell, f"{home}/f", disk, LARGE)
    expected = (0o600, 0o755) if disk.private else (0o644, 0o700)
    assert disk.modes == [expected] * 3


@pytest.mark.parametrize("size", [7_999, 8_000, 8_001, 16_000])
def test_sizes_at_the_edge_of_a_part(shell: TmpShell, home: Path, disk: Disk, size: int) -> None:
    assert write(shell, f"{home}/f", disk, LARGE[:size]) == size
    assert (home / "f").read_bytes() == LARGE[:size]


def test_what_fits_into_a_script_is_no_matter_for_the_service(
    shell: TmpShell, home: Path, disk: Disk
) -> None:
    assert write(shell, f"{home}/f", disk, LARGE[:3_000]) == 3_000
    assert (disk.puts, shell.calls) == ([], 1)
    assert read(shell, f"{home}/f", disk) == LARGE[:3_000]
    assert (disk.gets, shell.calls) == (0, 2)


@pytest.mark.parametrize("folder", ["caf\udce9", "new\nline", ""])
def test_a_service_hears_of_plain_paths_only(
    shell: TmpShell, home: Path, disk: Disk, folder: str
) -> None:
    path = f"{home}/{folder}/f" if folder else "relative"
    assert write(shell, path, disk, LARGE) == 20_000
    assert read(shell, path, disk) == LARGE
    assert (disk.puts, disk.gets) == ([], 0)


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "cut"])
@pytest.mark.parametrize("call", [0, 1])
def test_a_lost_answer_changes_nothing_in_the_outcome(
    home: Path, disk: Disk, kind: str, call: int
) -> None:
    shell = TmpShell(home, faults=lost(kind, call))
    (home / "f").write_bytes(OLD)
    assert write(shell, f"{home}/f", disk, LARGE) == 20_000
    assert (home / "f").read_bytes() == LARGE
    assert names(home) == ["f"]
    assert read(shell, f"{home}/f", disk) == LARGE


def test_a_link_is_followed_and_kept(shell: TmpShell, home: Path, disk: Disk) -> None:
    (home / "there").mkdir()
    (home / "there" / "old").write_bytes(OLD)
    (home / "link").symlink_to("there/old")
    write(shell, f"{home}/link", disk, LARGE)
    assert (home / "link").readlink() == Path("there/old")
    assert (home / "there" / "old").read_bytes() == LARGE
    assert (names(home), names(home / "there")) == (["link", "there"], ["old"])
    assert read(shell, f"{home}/link", disk) == LARGE


@pytest.mark.parametrize("trouble", ["put", "source", "cut", "missing", "interrupt"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    shell: TmpShell, home: Path, disk: Disk, trouble: str
) -> None:
    (home / "f").write_bytes(OLD)

    def before(number: int) -> None:
        if number != 2:
            return
        if trouble == "put":
            raise ProviderUnavailableError("the upload failed")
        if trouble == "interrupt":
            raise KeyboardInterrupt
        if trouble == "cut":
            Path(disk.puts[1]).write_bytes(b"")
        if trouble == "missing":
            Path(disk.puts[0]).unlink()

    def chunks() -> Iterator[bytes]:
        yield LARGE
        if trouble == "source":
            raise OSError("the source failed")

    disk.before = before
    expected = (ProviderUnavailableError, OSError, TransferError, KeyboardInterrupt)
    with pytest.raises(expected):
        files.write_file(shell, f"{home}/f", chunks(), clock=FakeClock(), api=disk)
    assert (home / "f").read_bytes() == OLD
    assert names(home) == ["f"]


def test_a_directory_in_the_way_is_not_replaced(shell: TmpShell, home: Path, disk: Disk) -> None:
    (home / "f").mkdir()
    with pytest.raises(RemoteFileError, match="directory"):
        write(shell, f"{home}/f", disk, LARGE)
    assert (names(home), names(home / "f")) == (["f"], [])
    assert len(disk.puts) == (3 if disk.private else 0)


def test_a_sandbox_that_is_gone_is_not_tidied_up(home: Path) -> None:
    def before(number: int) -> None:
        raise SandboxGoneError("gone")

    disk, shell = Disk(), TmpShell(home)
    disk.before = before
    with pytest.raises(SandboxGoneError):
        write(shell, f"{home}/f", disk, LARGE)
    assert shell.calls == 0


def test_a_sandbox_without_base64_takes_large_files_all_the_same(home: Path, disk: Disk) -> None:
    shell = TmpShell(home, without=["base64"])
    write(shell, f"{home}/f", disk, LARGE)
    assert read(shell, f"{home}/f", disk) == LARGE


def test_one_part_is_in_memory_at_a_time(home: Path, disk: Disk) -> None:
    piece = os.urandom(1 << 20)
    disk.part_bytes = 4 << 20
    tracemalloc.start()
    try:
        write(TmpShell(home), f"{home}/f", disk, *([piece] * 16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


def test_a_large_file_is_one_download_between_two_scripts(
    shell: TmpShell, home: Path, disk: Disk
) -> None:
    (home / "f").write_bytes(LARGE)
    (home / "f").chmod(0o640)
    opened = files.read_file(shell, f"{home}/f", api=disk)
    assert (opened.size, opened.mode, disk.gets) == (20_000, 0o640, 0)
    assert b"".join(opened) == LARGE
    assert (disk.gets, shell.calls) == (1, 2)


def test_scripts_read_what_does_not_begin_at_the_beginning(
    shell: TmpShell, home: Path, disk: Disk
) -> None:
    (home / "f").write_bytes(LARGE)
    assert read(shell, f"{home}/f", disk, 9_000) == LARGE[9_000:]
    assert disk.gets == 0


@pytest.mark.parametrize("breaks", [True, False])
def test_a_download_that_is_cut_goes_on(
    shell: TmpShell, home: Path, disk: Disk, breaks: bool
) -> None:
    (home / "f").write_bytes(LARGE)
    disk.ends, disk.breaks = [0, 6_000, 15_000, None], breaks
    assert read(shell, f"{home}/f", disk) == LARGE


@pytest.mark.parametrize("breaks", [True, False])
def test_a_download_that_never_ends_well_is_an_error(home: Path, disk: Disk, breaks: bool) -> None:
    (home / "f").write_bytes(LARGE)
    disk.ends, disk.breaks = [6_000], breaks
    with pytest.raises(TransferError, match="cut short: 6000 of 20000 bytes"):
        read(TmpShell(home), f"{home}/f", disk)
    assert disk.gets == 4


@pytest.mark.parametrize("change", ["append", "in place", "replace", "truncate"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_file_that_changes_on_its_way_is_an_error(
    home: Path, disk: Disk, change: str, cut: bool
) -> None:
    file = home / "f"
    file.write_bytes(LARGE)
    disk.ends = [6_000, None] if cut else [None]
    pieces = files.read_file(TmpShell(home), str(file), clock=FakeClock(), api=disk)
    next(pieces)
    if change == "append":
        with file.open("ab") as handle:
            handle.write(b"more")
    elif change == "in place":
        with file.open("r+b") as handle:
            handle.write(b"other")
    elif change == "truncate":
        os.truncate(file, 10_000)
    else:
        (home / "new").write_bytes(LARGE)
        (home / "new").replace(file)
    with pytest.raises(TransferError, match="changed"):
        list(pieces)


def test_what_the_service_does_not_read_scripts_do(shell: TmpShell, home: Path, disk: Disk) -> None:
    (home / "f").write_bytes(LARGE)
    disk.refuses = True
    assert read(shell, f"{home}/f", disk) == LARGE
    (home / "f").unlink()
    with pytest.raises(RemoteFileNotFoundError):
        read(shell, f"{home}/f", disk)


def test_a_file_without_a_size_is_read_by_scripts(shell: TmpShell, disk: Disk) -> None:
    assert read(shell, "/proc/self/status", disk).startswith(b"Name:")
    assert disk.gets == 0
