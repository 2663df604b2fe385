from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from ekairos_sandbox.exceptions import TransferError
from ekairos_sandbox.files.archive import TarStream, unpack
from ekairos_sandbox.files.names import link_stays_inside
from ekairos_sandbox.results import TransferStats


def modes(root: Path) -> dict[str, int]:
    return {
        os.fsdecode(p.relative_to(root)): stat.S_IMODE(p.lstat().st_mode)
        for p in sorted(root.rglob("*"))
        if not p.is_symlink()
    }


@pytest.mark.parametrize("dir_fd", [True, False])
def test_a_tree_comes_back_as_it_was(tmp_path: Path, dir_fd: bool) -> None:
    source = tmp_path / "source"
    for folder in ("d/e", "empty", "long" * 50 + "/" + "name" * 60):
        (source / folder).mkdir(parents=True)
    contents = {
        "f": b"",
        "d/e/all": bytes(range(256)) * 5,
        "d/exact": bytes(1024),
        "long" * 50 + "/" + "name" * 60 + "/f": b"deep",
        "odd\nname ": b"1",
        "-n": b"2",
        "é漢": b"3",
        "\udcff\udc80": b"4",
        "dots...": b"5",
    }
    for name, content in contents.items():
        (source / name).write_bytes(content)
    (source / "f").chmod(0o4751)
    (source / "d/exact").chmod(0o600)
    (source / "empty").chmod(0o750)
    (source / "link").symlink_to("d/e/all")
    (source / "d/e/up").symlink_to("../../f")
    (source / "d/nowhere").symlink_to("nothing")

    sent = TarStream(source)
    target = tmp_path / "target"
    received = unpack(iter(sent), target, dir_fd=dir_fd)

    expected = TransferStats(files=9, bytes=1280 + 1024 + 4 + 5)
    assert sent.stats == expected
    assert received == expected
    assert {n: (target / n).read_bytes() for n in contents} == contents
    assert modes(target) == {**modes(source), "f": 0o751}
    links = {n: str((target / n).readlink()) for n in ("link", "d/e/up", "d/nowhere")}
    assert links == {"link": "d/e/all", "d/e/up": "../../f", "d/nowhere": "nothing"}


def test_closed_directories_come_back_closed(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/f").write_bytes(b"x")
    (source / "a/b").chmod(0o555)
    (source / "a").chmod(0o500)
    unpack(iter(TarStream(source)), target)
    assert modes(target) == {"a": 0o500, "a/b": 0o555, "a/b/f": 0o644}


def test_an_independent_program_reads_the_archive(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"content")
    (tmp_path / "l").symlink_to("d/f")
    data = b"".join(TarStream(tmp_path))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {m.name: (m.type, m.linkname) for m in archive}
        file = archive.extractfile("d/f")
        assert file is not None
        assert file.read() == b"content"
    assert members == {
        "d": (tarfile.DIRTYPE, ""),
        "d/f": (tarfile.REGTYPE, ""),
        "l": (tarfile.SYMTYPE, "d/f"),
    }


def test_what_cannot_travel_is_left_out_and_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "upward").symlink_to("../x")
    (tmp_path / "f").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        stream = TarStream(tmp_path)
        data = b"".join(stream)
    assert stream.stats == TransferStats(
        files=1,
        bytes=1,
        skipped=(
            "absolute: a link that leads outside",
            "fifo: neither a file nor a directory",
            "socket: neither a file nor a directory",
            "upward: a link that leads outside",
        ),
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["f"]


@pytest.mark.parametrize("size", [0, 1_000_000, 3_000_001])
def test_a_file_that_changes_while_it_is_sent_is_an_error(tmp_path: Path, size: int) -> None:
    file = tmp_path / "f"
    file.write_bytes(bytes(3_000_000))
    blocks = iter(TarStream(tmp_path))
    assert len(next(blocks)) == 512
    if size:
        os.truncate(file, size)
    else:
        file.write_bytes(b"1" * 3_000_000)
    with pytest.raises(TransferError, match="changed while it was being read"):
        list(blocks)


def test_progress_counts_the_bytes_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(2_000_000))
    seen: list[tuple[int, int | None]] = []
    total = sum(map(len, TarStream(tmp_path, lambda done, all_: seen.append((done, all_)))))
    assert seen[-1] == (total, None)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_memory_does_not_grow_with_the_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        with (source / name).open("wb") as file:
            file.truncate(128 << 20)
    tracemalloc.start()
    try:
        unpack(iter(TarStream(source)), tmp_path / "target")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "target/b").stat().st_size == 128 << 20
    assert peak < 8 << 20


def test_only_links_that_go_up_first_and_then_down_stay_inside() -> None:
    inside = [
        ("l", "a"),
        ("l", "a/b"),
        ("l", "./a"),
        ("d/l", "../a"),
        ("d/l", ".."),
        ("d/e/l", "../../a"),
    ]
    outside = [
        ("l", "/a"),
        ("l", ".."),
        ("l", "../a"),
        ("d/l", "../../a"),
        ("l", "a/../b"),
        ("l", ""),
    ]
    for name, target in inside:
        assert link_stays_inside(tuple(name.split("/")), target)
    for name, target in outside:
        assert not link_stays_inside(tuple(name.split("/")), target)
    assert not link_stays_inside(("l",), "C:\\x", windows=True)
