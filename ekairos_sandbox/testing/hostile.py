"""A sandbox that lies: what comes out of it never reaches beyond the download's target."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ekairos_sandbox.exceptions import RemoteFileError, TransferError
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.testing.base import Lab, Suite, home_of, text

FAKE_TAR = b"""#!/bin/sh
# Whatever shall be packed, the archive is always the prepared one.
while [ $# -gt 0 ]; do
  case $1 in
  -f) cat "${0%/*}/archive" >"$2"; exit ;;
  esac
  shift
done
"""


class HostileSuite(Suite):
    """Archives and links made to escape."""

    @pytest.fixture(scope="class")
    @classmethod
    def liar(cls, lab: Lab) -> Iterator[RaisingSandbox]:
        """A sandbox whose ``tar`` packs what it likes; it put that into its own environment."""
        sandbox = lab.create()
        home = home_of(sandbox)
        sandbox.write_files({f"{home}/lies/tar": FAKE_TAR, f"{home}/tree/file": b"x"})
        text(
            sandbox,
            'chmod 755 "$1/lies/tar"; echo "export PATH=$1/lies:$PATH" '
            '>>"$1/.local/state/ekairos-sandbox/env"',
            home,
        )
        yield sandbox
        sandbox.destroy()

    @pytest.mark.parametrize(
        "build",
        ["dotdot", "deep_dotdot", "absolute", "through_link", "hard_link", "link_chain", "long"],
    )
    def test_an_archive_that_reaches_out_writes_nothing_outside(
        self, liar: RaisingSandbox, tmp_path: Path, build: str
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "victim").write_bytes(b"untouched")
        archive = BUILDERS[build](outside)
        liar.write_files({f"{home_of(liar)}/lies/archive": archive})
        with contextlib.suppress(TransferError):
            liar.download(f"{home_of(liar)}/tree", tmp_path / "target")
        assert {path.name for path in tmp_path.iterdir()} <= {"outside", "target"}
        assert [path.name for path in outside.iterdir()] == ["victim"]
        assert (outside / "victim").read_bytes() == b"untouched"
        assert _links_that_lead_outside(tmp_path / "target") == []

    def test_a_link_that_is_in_the_target_already_is_not_followed(
        self, liar: RaisingSandbox, tmp_path: Path
    ) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "sub").symlink_to(tmp_path / "outside")
        liar.write_files({f"{home_of(liar)}/lies/archive": _archive(("sub/escaped", b"x"))})
        with pytest.raises(TransferError):
            liar.download(f"{home_of(liar)}/tree", tmp_path / "target")
        assert list((tmp_path / "outside").iterdir()) == []

    @pytest.mark.parametrize("keep", [100, 700, 2_000])
    def test_a_cut_archive_is_an_error(
        self, liar: RaisingSandbox, tmp_path: Path, keep: int
    ) -> None:
        archive = _archive(("first", b"a" * 10), ("second", b"b" * 5_000))
        liar.write_files({f"{home_of(liar)}/lies/archive": archive[:keep]})
        with pytest.raises(TransferError):
            liar.download(f"{home_of(liar)}/tree", tmp_path / "target")

    def test_something_that_is_no_archive_is_an_error(
        self, liar: RaisingSandbox, tmp_path: Path
    ) -> None:
        liar.write_files({f"{home_of(liar)}/lies/archive": b"not an archive" * 1_000})
        with pytest.raises(TransferError):
            liar.download(f"{home_of(liar)}/tree", tmp_path / "target")

    def test_special_bits_and_outward_links_of_a_real_tree_do_not_come_out(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        text(
            shared,
            'cd "$1" && mkdir tree && cd tree && echo x >plain && echo s >suid && '
            "chmod 4755 suid && ln -s /etc/passwd absolute && ln -s ../../.. up && "
            "ln -s plain inside && mkfifo pipe",
            folder,
        )
        stats = shared.download(f"{folder}/tree", tmp_path / "copy")
        names = sorted(path.name for path in (tmp_path / "copy").iterdir())
        assert names == ["inside", "plain", "suid"]
        assert (tmp_path / "copy" / "suid").stat().st_mode & 0o7777 == 0o755
        assert sorted(entry.partition(":")[0] for entry in stats.skipped) == [
            "absolute",
            "pipe",
            "up",
        ]

    def test_a_fifo_does_not_hang_a_reader(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        text(shared, 'mkfifo "$1/pipe"', folder)
        with pytest.raises(RemoteFileError):
            shared.read_file(f"{folder}/pipe")
        with pytest.raises(RemoteFileError):
            shared.download(f"{folder}/pipe", tmp_path / "copy")
        assert list(tmp_path.iterdir()) == []


def _links_that_lead_outside(root: Path) -> list[str]:
    top = os.path.realpath(root)
    return [
        path
        for folder, folders, files in os.walk(root)
        for path in (os.path.join(folder, name) for name in folders + files)  # noqa: PTH118
        if os.path.commonpath((top, os.path.realpath(path))) != top
    ]


def _archive(*members: tuple[str, bytes | tuple[bytes, str]]) -> bytes:
    """Make an archive: contents by name; a link is its type and target, a directory its type."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(what, tuple):
                info.type, info.linkname = what
                archive.addfile(info)
            else:
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
    return made.getvalue()


def _link(target: str) -> tuple[bytes, str]:
    return tarfile.SYMTYPE, target


def _directory() -> tuple[bytes, str]:
    return tarfile.DIRTYPE, ""


def _overlong(outside: Path) -> bytes:
    """Links whose resolved path is longer than the system can resolve, then one step out."""
    part = "d" * 200
    members: list[tuple[str, bytes | tuple[bytes, str]]] = []
    where = ""
    for letter in "abcdefghijklmnopqrstuv":
        members.append((f"{where}{part}", _directory()))
        members.append((f"{where}{letter}", _link(part)))
        where += f"{part}/"
    short = "/".join("abcdefghijklmnopqrstuv")
    members.append((f"{short}/{'l' * 250}", _link("../" * 22)))
    members.append(("escape", _link(f"{short}/{'l' * 250}/../{outside.name}")))
    members.append(("escape/victim", b"changed"))
    return _archive(*members)


BUILDERS: dict[str, Callable[[Path], bytes]] = {
    "dotdot": lambda outside: _archive((f"../{outside.name}/victim", b"changed")),
    "deep_dotdot": lambda outside: _archive(
        ("a/b", b"x"), (f"a/../../{outside.name}/victim", b"changed")
    ),
    "absolute": lambda outside: _archive((str(outside / "victim"), b"changed")),
    "through_link": lambda outside: _archive(
        ("sub", _link(str(outside))), ("sub/victim", b"changed")
    ),
    "hard_link": lambda outside: _archive(
        ("name", (tarfile.LNKTYPE, f"../{outside.name}/victim")), ("name", b"changed")
    ),
    "link_chain": lambda outside: _archive(
        ("one", _directory()),
        ("two", _link("one/..")),
        ("three", _link(f"two/../{outside.name}")),
        ("three", _link("one/three")),
        ("one/three", _link(f"../../{outside.name}")),
    ),
    "long": _overlong,
}
