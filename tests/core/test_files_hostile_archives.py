from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekairos_sandbox.exceptions import TransferError
from ekairos_sandbox.files.archive import Limits, unpack
from ekairos_sandbox.files.names import components
from ekairos_sandbox.results import TransferStats

SECRET = b"not yours"
Format = Literal[0, 1, 2]  # of tarfile


@dataclass(frozen=True)
class Entry:
    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    size: int | None = None


def directory(name: str) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=0o755)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, target=target)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, target=target)


def tar(*entries: Entry, form: Format = tarfile.PAX_FORMAT) -> bytes:
    out = bytearray()
    for entry in entries:
        info = tarfile.TarInfo(entry.name)
        info.type, info.linkname, info.mode = entry.kind, entry.target, entry.mode
        info.size = len(entry.data) if entry.size is None else entry.size
        out += info.tobuf(form, "utf-8", "surrogateescape")
        out += entry.data + bytes(-len(entry.data) % 512)
    return bytes(out) + bytes(1024)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the target that no archive may change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "f").write_bytes(SECRET)
    yield folder
    assert [p.name for p in folder.iterdir()] == ["f"]
    assert (folder / "f").read_bytes() == SECRET
    assert (folder / "f").stat().st_nlink == 1
    assert sorted(p.name for p in tmp_path.iterdir()) in (["outside", "target"], ["outside"])


@pytest.fixture
def target(outside: Path) -> Path:
    return outside.parent / "target"


@pytest.fixture(params=[True, False], ids=["dir_fd", "paths"])
def dir_fd(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def tree(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("name", ["../outside/f", "a/../../outside/f", "..", "{}", "//x"])
def test_names_that_lead_outside_are_refused(
    target: Path, outside: Path, dir_fd: bool, kind: bytes, name: str
) -> None:
    name = name.format(outside / "f")
    data = tar(Entry(name, kind=kind, target="x"))
    with pytest.raises(TransferError, match="lead outside"):
        unpack([data], target, dir_fd=dir_fd)
    assert tree(target) == []


def test_links_that_lead_outside_are_left_out(target: Path, outside: Path, dir_fd: bool) -> None:
    data = tar(
        symlink("absolute", str(outside)),
        symlink("up", "../outside"),
        symlink("d/around", "../d/../../outside"),
        symlink("good", "d/x"),
    )
    stats = unpack([data], target, dir_fd=dir_fd)
    assert len(stats.skipped) == 3
    assert tree(target) == ["good"]


def test_a_file_through_a_link_of_the_archive_stays_inside(
    target: Path, outside: Path, dir_fd: bool
) -> None:
    data = tar(symlink("l", str(outside)), Entry("l/f", b"evil"))
    stats = unpack([data], target, dir_fd=dir_fd)
    assert stats.skipped == ("l: a link that leads outside",)
    assert (target / "l/f").read_bytes() == b"evil"
    assert not (target / "l").is_symlink()


def test_a_file_through_a_link_that_stays_inside_is_refused(
    target: Path, outside: Path, dir_fd: bool
) -> None:
    data = tar(directory("d"), symlink("l", "d"), Entry("l/f", b"evil"))
    with pytest.raises(TransferError, match="in the way"):
        unpack([data], target, dir_fd=dir_fd)
    assert tree(target) == ["d", "l", "l/f"]


def test_links_that_were_there_before_are_not_followed(
    target: Path, outside: Path, dir_fd: bool
) -> None:
    target.mkdir()
    (target / "folder").symlink_to(outside)
    (target / "file").symlink_to(outside / "f")
    for entry in (Entry("folder/f", b"evil"), directory("folder"), symlink("folder/l", "x")):
        with pytest.raises(TransferError, match="in the way"):
            unpack([tar(entry)], target, dir_fd=dir_fd)
    unpack([tar(Entry("file", b"evil"))], target, dir_fd=dir_fd)
    assert not (target / "file").is_symlink()
    assert (target / "file").read_bytes() == b"evil"
    assert (target / "folder").is_symlink()


def test_a_chain_of_overlong_links_does_not_lead_outside(
    target: Path, outside: Path, dir_fd: bool
) -> None:
    # Each step is a directory with a long name and a short link to it. The path through the long
    # names is longer than any path may be, so that a check by realpath gives up in the middle.
    step, entries, path = "d" * 247, [], ""
    for letter in "abcdefghijklmnop":
        entries.append(directory(f"{path}{step}"))
        entries.append(symlink(f"{path}{letter}", step))
        path += f"{step}/"
    short = "/".join("abcdefghijklmnop")
    entries += [
        symlink(f"{short}/{'l' * 254}", "../" * 16),
        symlink("escape", f"{short}/{'l' * 254}/../../outside"),
        hardlink("hard", "escape/f"),
        Entry("hard", b"evil"),
        Entry("escape/f", b"evil"),
    ]
    with pytest.raises(TransferError):
        unpack([tar(*entries)], target, dir_fd=dir_fd)
    assert (outside / "f").read_bytes() == SECRET
    assert not (target / "escape").is_symlink()


@pytest.mark.parametrize("name", ["../outside/f", "{}", "nothing", "d"])
def test_hard_links_to_anything_but_a_file_of_the_archive_are_refused(
    target: Path, outside: Path, dir_fd: bool, name: str
) -> None:
    name = name.format(outside / "f")
    data = tar(directory("d"), hardlink("evil", name), Entry("evil", b"evil"))
    with pytest.raises(TransferError, match=r"lead outside|is no file in it"):
        unpack([data], target, dir_fd=dir_fd)
    assert tree(target) == ["d"]


def test_hard_links_to_files_that_were_there_before_are_refused(
    target: Path, outside: Path, dir_fd: bool
) -> None:
    target.mkdir()
    (target / "mine").write_bytes(b"mine")
    with pytest.raises(TransferError, match="is no file in it"):
        unpack([tar(hardlink("evil", "mine"))], target, dir_fd=dir_fd)


def test_hard_links_within_the_archive_are_kept(target: Path, dir_fd: bool) -> None:
    data = tar(
        Entry("d/a", b"1", mode=0o600),
        hardlink("b", "./d/a"),
        symlink("d/s", "a"),
        hardlink("d/t", "d/s"),
        hardlink("d/a", "d/a"),
    )
    unpack([data], target, dir_fd=dir_fd)
    assert (target / "b").samefile(target / "d/a")
    assert (target / "d/t").readlink() == Path("a")


def test_hard_links_become_copies_where_there_are_none(
    target: Path, dir_fd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    unpack([tar(Entry("a", b"1", mode=0o640), hardlink("b", "a"))], target, dir_fd=dir_fd)
    assert (target / "b").read_bytes() == b"1"
    assert stat.S_IMODE((target / "b").stat().st_mode) == (0o640)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_devices_and_unknown_kinds_are_left_out(target: Path, dir_fd: bool, kind: bytes) -> None:
    stats = unpack([tar(Entry("dev", kind=kind), Entry("f", b"1"))], target, dir_fd=dir_fd)
    assert stats == TransferStats(1, 1, ("dev: neither a file nor a directory",))
    assert tree(target) == ["f"]


def test_setuid_setgid_and_sticky_bits_are_dropped(target: Path, dir_fd: bool) -> None:
    data = tar(Entry("f", b"1", mode=0o7755), Entry("d", kind=tarfile.DIRTYPE, mode=0o7777))
    unpack([data], target, dir_fd=dir_fd)
    assert stat.S_IMODE((target / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o777


def test_of_members_with_the_same_name_the_last_one_wins(target: Path, dir_fd: bool) -> None:
    data = tar(
        Entry("a", b"1"),
        Entry("a", b"2"),
        symlink("b", "a"),
        Entry("b", b"3"),
        Entry("c", b"4"),
        symlink("c", "a"),
    )
    unpack([data], target, dir_fd=dir_fd)
    assert (target / "a").read_bytes() == b"2"
    assert not (target / "b").is_symlink()
    assert (target / "b").read_bytes() == b"3"
    assert (target / "c").readlink() == Path("a")


@pytest.mark.parametrize(
    "entries",
    [
        (Entry("a", b"1"), Entry("a/b", b"2")),
        (directory("a"), Entry("a", b"1")),
        (Entry("a/b", b"1"), symlink("a", "x")),
    ],
)
def test_files_and_directories_do_not_replace_each_other(
    target: Path, dir_fd: bool, entries: tuple[Entry, ...]
) -> None:
    with pytest.raises(TransferError, match="in the way"):
        unpack([tar(*entries)], target, dir_fd=dir_fd)
    assert not [name for name in tree(target) if "ekairos" in name]


def test_what_exists_is_merged_and_replaced(target: Path, dir_fd: bool) -> None:
    (target / "d").mkdir(parents=True)
    (target / "d/old").write_bytes(b"old")
    (target / "d/same").write_bytes(b"before")
    unpack([tar(directory("d"), Entry("d/same", b"after"))], target, dir_fd=dir_fd)
    assert (target / "d/old").read_bytes() == b"old"
    assert (target / "d/same").read_bytes() == b"after"


@pytest.mark.parametrize(
    "name", ["a\nb", "\udcff\udc80", "dots...", "C:x", "a\\b", " ", "-n", "n" * 255]
)
def test_odd_names_are_kept(target: Path, dir_fd: bool, name: str) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        unpack([tar(Entry(name, b"1"), form=form)], target, dir_fd=dir_fd)
        assert tree(target) == [name]


@pytest.mark.parametrize(
    "name", ["C:x", "a\\b", "..\\x", "x.", "x ", "nul", "d/COM1.txt", "a:stream", "a\nb", "a?"]
)
def test_names_that_windows_would_understand_otherwise_are_refused_there(name: str) -> None:
    assert components(name, windows=False) == tuple(name.split("/"))
    with pytest.raises(TransferError, match="Windows"):
        components(name, windows=True)


@pytest.mark.parametrize("name", ["n" * 300, "d/" * 1_001 + "f", "n" * 40_000])
def test_names_of_absurd_length_are_refused(target: Path, dir_fd: bool, name: str) -> None:
    with pytest.raises(TransferError, match=r"absurd length|cannot have such a name"):
        unpack([tar(Entry(name, b"1"))], target, dir_fd=dir_fd)


def test_a_deep_tree_needs_few_open_directories(target: Path) -> None:
    name = "d/" * 900 + "f"
    unpack([tar(Entry(name, b"1"))], target)
    folder = os.open(target, os.O_RDONLY)
    for part in name.split("/")[:-1]:
        inner = os.open(part, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    assert [entry.name for entry in os.scandir(folder)] == ["f"]
    os.close(folder)


def test_five_thousand_members(target: Path) -> None:
    entries = [Entry(f"d{i % 50}/f{i}", b"%d" % i) for i in range(5_000)]
    data = tar(*entries)
    pieces = [data[i : i + 100_000] for i in range(0, len(data), 100_000)]
    assert unpack(pieces, target).files == 5_000
    assert (target / "d49/f4999").read_bytes() == b"4999"


def test_limits_stop_an_archive_that_is_too_large(target: Path, dir_fd: bool) -> None:
    data = tar(Entry("a", b"12345"), Entry("b", b"12345"))
    assert unpack([data], target, limits=Limits(2, 10), dir_fd=dir_fd).bytes == 10
    with pytest.raises(TransferError, match="more than 9 bytes"):
        unpack([data], target, limits=Limits(bytes=9), dir_fd=dir_fd)
    with pytest.raises(TransferError, match="more than 1 members"):
        unpack([data], target, limits=Limits(members=1), dir_fd=dir_fd)


def test_a_size_that_is_announced_and_not_sent_is_an_error(target: Path, dir_fd: bool) -> None:
    for size in (10**6, 10**13):
        data = tar(Entry("a", b"12345", size=size), form=tarfile.GNU_FORMAT)
        with pytest.raises(TransferError, match="cut short"):
            unpack([data], target, dir_fd=dir_fd)
        assert tree(target) == []


def endless(block: bytes) -> Iterator[bytes]:
    yield block
    while True:
        yield bytes(1 << 20)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_huge_header_is_refused_before_it_is_read(target: Path, kind: bytes) -> None:
    header = Entry("h", kind=kind, size=1 << 40)
    data = tar(header, form=tarfile.GNU_FORMAT)[:512]
    with pytest.raises(TransferError, match="header of 1099511627776 bytes"):
        unpack(endless(data), target)


def pax(records: bytes) -> Entry:
    return Entry("h", records, kind=tarfile.XHDTYPE)


@pytest.mark.parametrize(
    "records",
    [
        b"x",
        b"5 a=",
        b"9999 a=b\n",
        b"0 a=b\n",
        b"6 ab=\n6 ab=",
        b"-1 a=b\n",
        b"7 path\n",
        b" a=b\n",
    ],
)
def test_a_damaged_pax_header_is_refused(target: Path, records: bytes) -> None:
    with pytest.raises(TransferError, match="damaged pax header"):
        unpack([tar(pax(records), Entry("f"), form=tarfile.USTAR_FORMAT)], target)


def test_a_pax_header_may_not_smuggle_a_name_or_size(target: Path, outside: Path) -> None:
    for record, why in [
        (b"21 path=../outside/f\n", "lead outside"),
        (b"13 path=a\0bc\n", "lead outside"),
        (b"11 size=-1\n", "no valid size"),
        (b"12 size=0x1\n", "no valid size"),
        (b"32 size=99999999999999999999999\n", "no valid size"),
        (b"22 GNU.sparse.major=1\n", "sparse"),
    ]:
        assert int(record.split()[0]) == len(record)
        with pytest.raises(TransferError, match=why):
            unpack([tar(pax(record), Entry("f"), form=tarfile.USTAR_FORMAT)], target)
    assert tree(target) == []


def test_sparse_files_are_refused(target: Path) -> None:
    data = tar(Entry("f", kind=tarfile.GNUTYPE_SPARSE), form=tarfile.GNU_FORMAT)
    with pytest.raises(TransferError, match="sparse"):
        unpack([data], target)


def test_an_archive_that_is_cut_anywhere_is_an_error(target: Path) -> None:
    data = tar(directory("d"), Entry("d/f", b"x" * 700), symlink("l", "d/f"))
    assert len(data) == 512 * 6 + 512
    for length in range(0, len(data) - 1024, 64):
        with pytest.raises(TransferError, match="cut short"):
            unpack([data[:length]], target)
    unpack([data[:-512]], target)


def test_a_stream_that_fails_after_the_end_mark_is_noticed(target: Path) -> None:
    def stream() -> Iterator[bytes]:
        yield tar(Entry("f", b"1"))
        raise TransferError("the file changed")

    with pytest.raises(TransferError, match="the file changed"):
        unpack(stream(), target)


def test_an_error_of_the_stream_leaves_the_old_file(target: Path, dir_fd: bool) -> None:
    def stream() -> Iterator[bytes]:
        yield tar(Entry("f", bytes(5_000)))[:2_000]
        raise TransferError("lost")

    target.mkdir()
    (target / "f").write_bytes(b"before")
    with pytest.raises(TransferError, match="lost"):
        unpack(stream(), target, dir_fd=dir_fd)
    assert tree(target) == ["f"]
    assert (target / "f").read_bytes() == b"before"


def test_links_are_left_out_where_the_file_system_has_none(
    target: Path, dir_fd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    stats = unpack([tar(Entry("f", b"1"), symlink("l", "f"))], target, dir_fd=dir_fd)
    assert stats.skipped == ("l: the local file system has no links",)
    assert tree(target) == ["f"]


def test_what_is_no_archive_is_refused(target: Path) -> None:
    with pytest.raises(TransferError, match="not a tar archive"):
        unpack([b"x" * 10_000], target)


_ENTRIES = st.lists(
    st.builds(
        Entry,
        name=st.lists(
            st.sampled_from(["a", "b", "..", ".", "", "outside"]), min_size=1, max_size=4
        ).map("/".join),
        data=st.binary(max_size=600),
        kind=st.sampled_from(
            [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
        ),
        target=st.lists(st.sampled_from(["a", "b", "..", "outside", "f"]), max_size=5).map(
            "/".join
        ),
    ),
    max_size=8,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(entries=_ENTRIES, fds=st.booleans())
def test_no_archive_reaches_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], fds: bool
) -> None:
    root = tmp_path_factory.mktemp("t")
    (root / "outside").mkdir()
    (root / "outside/f").write_bytes(SECRET)
    clean = [
        e if e.kind == tarfile.REGTYPE else Entry(e.name, b"", e.kind, e.target) for e in entries
    ]
    with suppress(TransferError):
        unpack([tar(*clean)], root / "target", dir_fd=fds)
    assert sorted(p.name for p in root.iterdir()) in (["outside", "target"], ["outside"])
    assert (root / "outside/f").read_bytes() == SECRET
    assert (root / "outside/f").stat().st_nlink == 1
    for path in (root / "target").rglob("*"):
        if path.is_symlink():
            end = os.path.realpath(path)
            assert end.startswith(f"{root}/target")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_mangled_archive_is_unpacked_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    archive = bytearray(tar(directory("d"), Entry("d/f", b"x" * 700), symlink("l", "d/f")))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with suppress(TransferError):
        unpack(io.BytesIO(bytes(archive)), tmp_path / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) in (["target"], [])
