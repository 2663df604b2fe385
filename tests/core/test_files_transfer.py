from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from helpers.tmp_shell import SHELLS, Faults, TmpShell

from ekairos_sandbox.exceptions import (
    ProviderTimeoutError,
    RemoteFileError,
    RemoteFileNotFoundError,
    TransferError,
)
from ekairos_sandbox.files.archive import Limits
from ekairos_sandbox.files.transfer import download, upload
from ekairos_sandbox.results import CommandResult, TransferStats

STATE = ".local/state/ekairos-sandbox"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, home: Path) -> TmpShell:
    return TmpShell(home, request.param)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.mkdir()
    return path


def make_tree(root: Path) -> dict[str, bytes]:
    contents = {
        "f": b"",
        "d/run": bytes(range(256)) * 100,
        "long" * 60 + "/" + "name" * 60: b"1",
        "odd\nname ": b"2",
        "-n": b"3",
        "é漢" * 20: b"4",
        "\udcff\udc80": b"5",
        "closed/f": b"6",
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty").mkdir()
    (root / "empty").chmod(0o773)
    (root / "d/run").chmod(0o777)
    (root / "f").chmod(0o600)
    (root / "d/link").symlink_to("../f")
    (root / "closed").chmod(0o555)
    return contents


def check_tree(root: Path, contents: dict[str, bytes], closed: int = 0o555) -> None:
    assert {name: (root / name).read_bytes() for name in contents} == contents
    modes = {n: stat.S_IMODE((root / n).stat().st_mode) for n in ("empty", "d/run", "f", "closed")}
    assert modes == {"empty": 0o773, "d/run": 0o777, "f": 0o600, "closed": closed}
    assert (root / "d/link").readlink() == Path("../f")


def left_behind(home: Path) -> list[str]:
    return [
        p.name
        for p in home.rglob("*")
        if p.name.endswith(".tar") or (p.name.startswith(".") and "ekairos-" in p.name)
    ]


def test_a_file_goes_up_and_comes_down(shell: TmpShell, home: Path, local: Path) -> None:
    content = os.urandom(200_000)
    (local / "f").write_bytes(content)
    (local / "f").chmod(0o750)
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    sent = upload(shell, shell.home, local / "f", "d/f", run=shell.run, progress=progress)
    assert sent == TransferStats(files=1, bytes=200_000)
    assert (home / "d/f").read_bytes() == content
    assert stat.S_IMODE((home / "d/f").stat().st_mode) == 0o750
    assert seen[-1] == (200_000, 200_000)

    seen.clear()
    target = local / "new/folder/g"
    received = download(shell, shell.home, "d/f", target, run=shell.run, progress=progress)
    assert received == TransferStats(files=1, bytes=200_000)
    assert target.read_bytes() == content
    assert stat.S_IMODE(target.stat().st_mode) == 0o750
    assert seen[-1] == (200_000, 200_000)
    assert [p.name for p in target.parent.iterdir()] == ["g"]


def test_an_empty_file_goes_up_and_comes_down(shell: TmpShell, local: Path) -> None:
    (local / "f").write_bytes(b"")
    upload(shell, shell.home, local / "f", "f", run=shell.run)
    assert download(shell, shell.home, "f", local / "g", run=shell.run).bytes == 0
    assert (local / "g").read_bytes() == b""


def test_a_tree_goes_up(shell: TmpShell, home: Path, local: Path) -> None:
    contents = make_tree(local)
    stats = upload(shell, shell.home, local, "a/tree", run=shell.run)
    assert stats == TransferStats(files=8, bytes=25_606)
    # busybox's tar sets modes of directories that exist only as root.
    half = shell.name == "busybox" and os.getuid() != 0
    check_tree(home / "a/tree", contents, closed=0o755 if half else 0o555)
    assert left_behind(home) == []


def test_a_tree_comes_down(shell: TmpShell, home: Path, local: Path) -> None:
    (home / "tree").mkdir()
    contents = make_tree(home / "tree")
    seen: list[tuple[int, int | None]] = []
    stats = download(
        shell,
        shell.home,
        "tree",
        local / "here",
        run=shell.run,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert stats == TransferStats(files=8, bytes=25_606)
    check_tree(local / "here", contents)
    assert left_behind(home) == []
    assert seen[-1][0] == seen[-1][1]


def test_trees_are_merged_into_what_is_there(shell: TmpShell, home: Path, local: Path) -> None:
    for root in (local, home / "t"):
        (root / "d").mkdir(parents=True)
        (root / "d/same").write_bytes(str(root).encode())
        (root / f"d/only-{root.name}").write_bytes(b"1")
    upload(shell, shell.home, local, "t", run=shell.run)
    assert sorted(p.name for p in (home / "t/d").iterdir()) == ["only-local", "only-t", "same"]
    assert (home / "t/d/same").read_bytes() == str(local).encode()
    (home / "t/d/same").write_bytes(b"changed")
    download(shell, shell.home, "t", local, run=shell.run)
    assert sorted(p.name for p in (local / "d").iterdir()) == ["only-local", "only-t", "same"]
    assert (local / "d/same").read_bytes() == b"changed"


def test_the_home_comes_down_without_the_library_s_own_files(
    shell: TmpShell, home: Path, local: Path
) -> None:
    (home / STATE / "jobs").mkdir(parents=True)
    os.mkfifo(home / STATE / "jobs/live")
    (home / "f").write_bytes(b"1")
    stats = download(shell, shell.home, shell.home, local, run=shell.run)
    assert stats == TransferStats(files=1, bytes=1)
    assert sorted(str(p.relative_to(local)) for p in local.rglob("*")) == [
        ".local",
        ".local/state",
        "f",
    ]


def test_what_leads_outside_is_left_out_both_ways(shell: TmpShell, home: Path, local: Path) -> None:
    (local / "out").symlink_to("/etc/passwd")
    stats = upload(shell, shell.home, local, "t", run=shell.run)
    assert stats.skipped == ("out: a link that leads outside",)
    (home / "t/out").symlink_to("/etc/passwd")
    os.mkfifo(home / "t/fifo")
    stats = download(shell, shell.home, "t", local / "back", run=shell.run)
    assert sorted(stats.skipped) == [
        "fifo: neither a file nor a directory",
        "out: a link that leads outside",
    ]
    assert list((local / "back").iterdir()) == []


def test_nothing_is_sent_when_the_local_file_is_missing(home: Path, local: Path) -> None:
    shell = TmpShell(home)
    with pytest.raises(FileNotFoundError):
        upload(shell, shell.home, local / "nope", "f", run=shell.run)
    with pytest.raises(ValueError, match=r"'\.\.'"):
        upload(shell, shell.home, local, "a/../b", run=shell.run)
    os.mkfifo(local / "fifo")
    with pytest.raises(ValueError, match="not a regular file"):
        upload(shell, shell.home, local / "fifo", "f", run=shell.run)
    assert shell.calls == 0


def test_a_missing_remote_file_makes_nothing_here(shell: TmpShell, local: Path) -> None:
    with pytest.raises(RemoteFileNotFoundError):
        download(shell, shell.home, "nope", local / "d/f", run=shell.run)
    with pytest.raises(RemoteFileError, match="not a regular file"):
        download(shell, shell.home, "/dev/null", local / "d/f", run=shell.run)
    assert list(local.iterdir()) == []


def test_a_file_does_not_replace_a_directory(shell: TmpShell, home: Path, local: Path) -> None:
    (home / "d").mkdir()
    (home / "f").write_bytes(b"1")
    (local / "f").write_bytes(b"1")
    with pytest.raises(RemoteFileError, match="is a directory"):
        upload(shell, shell.home, local / "f", "d", run=shell.run)
    with pytest.raises(IsADirectoryError):
        download(shell, shell.home, "f", local, run=shell.run)
    with pytest.raises(NotADirectoryError):
        download(shell, shell.home, "d", local / "f", run=shell.run)
    with pytest.raises(RemoteFileError, match=r"exists|not a directory|Not a directory"):
        upload(shell, shell.home, local, "f", run=shell.run)
    assert left_behind(home) == []


def test_a_local_link_is_written_through(home: Path, local: Path) -> None:
    shell = TmpShell(home)
    (home / "f").write_bytes(b"new")
    (local / "real").write_bytes(b"old")
    (local / "link").symlink_to("real")
    download(shell, shell.home, "f", local / "link", run=shell.run)
    assert (local / "link").is_symlink()
    assert (local / "real").read_bytes() == b"new"


@pytest.mark.parametrize("sh", SHELLS)
def test_a_sandbox_without_tar_says_so(home: Path, local: Path, sh: str) -> None:
    shell = TmpShell(home, sh, without=["tar"])
    (home / "d").mkdir()
    with pytest.raises(RemoteFileError, match="no program 'tar'"):
        upload(shell, shell.home, local, "t", run=shell.run)
    with pytest.raises(RemoteFileError, match="no program 'tar'"):
        download(shell, shell.home, "d", local, run=shell.run)
    assert left_behind(home) == []


def test_a_tar_that_fails_is_told_with_its_words(home: Path, local: Path) -> None:
    def run(argv: list[str]) -> CommandResult:
        return CommandResult(
            "c", tuple(argv), 2, b"", b"tar: ./x: No space left\x1b[2J on device\n"
        )

    (home / "d").mkdir()
    shell = TmpShell(home)
    with pytest.raises(RemoteFileError, match=r"No space left\?\[2J on device"):
        upload(shell, shell.home, local, "t", run=run)
    with pytest.raises(RemoteFileError, match=r"No space left\?\[2J on device"):
        download(shell, shell.home, "d", local, run=run)
    assert left_behind(home) == []


class Native(TmpShell):
    """A provider whose own file API loses the end of what it reads."""

    def read_file(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        yield Path(path).read_bytes()[offset:-600]


def test_a_download_that_is_cut_is_an_error(home: Path, local: Path) -> None:
    (home / "d").mkdir()
    (home / "d/f").write_bytes(bytes(1_000))
    (local / "f").write_bytes(b"before")
    shell = Native(home)
    with pytest.raises(TransferError, match="400 of 1000 bytes"):
        download(shell, shell.home, "d/f", local / "f", run=shell.run)
    assert (local / "f").read_bytes() == b"before"
    with pytest.raises(TransferError, match="cut short"):
        download(shell, shell.home, "d", local / "t", run=shell.run)
    assert left_behind(home) == left_behind(local) == []


def test_an_upload_that_is_cut_is_an_error(home: Path, local: Path) -> None:
    class Forgetful(TmpShell):
        def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
            return len(b"".join(chunks)) - 1

    (local / "f").write_bytes(bytes(1_000))
    shell = Forgetful(home)
    for source in (local / "f", local):
        with pytest.raises(TransferError, match="cut short"):
            upload(shell, shell.home, source, "t", run=shell.run)


def test_a_provider_with_its_own_file_api_is_used_for_trees_too(home: Path, local: Path) -> None:
    written: list[str] = []

    class Recorder(TmpShell):
        def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
            written.append(path)
            return super().write_file(path, chunks, mode=mode)

    shell = Recorder(home)
    upload(shell, shell.home, local, "t", run=shell.run)
    assert len(written) == 1
    assert written[0].startswith(f"{home}/{STATE}/tmp/")


def test_limits_hold_for_files_and_trees(home: Path, local: Path) -> None:
    shell = TmpShell(home)
    (home / "d").mkdir()
    (home / "d/f").write_bytes(bytes(1_000))
    for remote in ("d", "d/f"):
        with pytest.raises(TransferError, match="more than 999 bytes"):
            download(
                shell,
                shell.home,
                remote,
                local / remote[-1],
                run=shell.run,
                limits=Limits(bytes=999),
            )


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "cut"])
def test_lost_answers_do_not_disturb_a_transfer(
    home: Path, local: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    contents = make_tree(local)
    shell = TmpShell(home)
    setattr(shell.faults, kind, {0, 2, 4, 6})
    upload(shell, shell.home, local, "t", run=shell.run)
    check_tree(home / "t", contents)
    shell.calls = 0
    download(shell, shell.home, "t", local.parent / "back", run=shell.run)
    check_tree(local.parent / "back", contents)


def test_a_sandbox_that_stops_answering_leaves_the_local_file(
    home: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (home / "f").write_bytes(b"new")
    (local / "f").write_bytes(b"before")
    shell = TmpShell(home, faults=Faults(drop_before=set(range(50))))
    with pytest.raises(ProviderTimeoutError):
        download(shell, shell.home, "f", local / "f", run=shell.run)
    assert (local / "f").read_bytes() == b"before"
    assert [p.name for p in local.iterdir()] == ["f"]
