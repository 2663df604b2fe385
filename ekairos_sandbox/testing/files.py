"""Files and trees in both directions: byte-exact, in one step, modes kept."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ekairos_sandbox.exceptions import (
    RemoteFileError,
    RemoteFileNotFoundError,
    TransferError,
)
from ekairos_sandbox.files.content import FileWrite
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.testing.base import Lab, Suite, home_of, sh, text

ODD_NAMES = [
    "two words",
    "línea 漢字 \U0001f600",
    "'single' \"double\"",
    "$HOME `id`",
    "-rf",
    "new\nline",
    "back\\slash",
    "*",
    "a=b;c&d|e",
    "~",
    " leading and trailing ",
    "x" * 200,
]

CONTENTS = {
    "binary": bytes(range(256)) * 300,
    "crlf": b"\r\n\r\n",
    "empty": b"",
    "frame": b"@EK1:0:job:0@\n",
    "newline": b"\n",
    "nul": b"\0",
    "text": b"no newline",
}


class FileSuite(Suite):
    """``write_files``, ``read_file``, ``upload``, ``download``."""

    def test_contents_come_back_exactly(self, shared: RaisingSandbox, folder: str) -> None:
        files = {f"{folder}/{name}": data for name, data in CONTENTS.items()}
        stats = shared.write_files(files)
        assert (stats.files, stats.bytes) == (len(CONTENTS), sum(map(len, CONTENTS.values())))
        assert {name: shared.read_file(f"{folder}/{name}") for name in CONTENTS} == CONTENTS
        sizes = text(shared, 'cd "$1" && for n in *; do wc -c <"$n"; done', folder).split()
        assert sizes == [str(len(CONTENTS[name])) for name in sorted(CONTENTS)]

    def test_a_command_and_a_file_see_the_same_content(
        self, shared: RaisingSandbox, folder: str
    ) -> None:
        shared.write_files({f"{folder}/in": "línea\n"})
        text(shared, 'tr a-z A-Z <"$1/in" >"$1/out"', folder)
        assert shared.read_file(f"{folder}/out").startswith(b"L")
        assert text(shared, 'cat "$1/in"', folder) == "línea\n"

    def test_odd_names_work(self, shared: RaisingSandbox, folder: str) -> None:
        shared.write_files({f"{folder}/{name}": f"in {name}" for name in ODD_NAMES})
        for name in ODD_NAMES:
            assert shared.read_file(f"{folder}/{name}") == f"in {name}".encode()
        script = 'cd "$1" && shift && for n do cat -- "$n" && printf "\\000"; done; ls -A | wc -l'
        *contents, lines = sh(shared, script, folder, *ODD_NAMES).check().stdout.split(b"\0")
        assert [content.decode() for content in contents] == [f"in {name}" for name in ODD_NAMES]
        assert int(lines) == sum(1 + name.count("\n") for name in ODD_NAMES)

    def test_relative_paths_belong_to_the_home(self, shared: RaisingSandbox, folder: str) -> None:
        relative = folder.removeprefix(home_of(shared) + "/")
        shared.write_files({f"{relative}/file": b"relative"})
        assert shared.read_file(f"{folder}/file") == b"relative"
        assert shared.read_file(f"{relative}/file") == b"relative"

    def test_many_files_and_missing_parents_are_written_in_one_go(
        self, shared: RaisingSandbox, folder: str
    ) -> None:
        files = {f"{folder}/a/{number % 7}/{number}": b"%d" % number for number in range(60)}
        stats = shared.write_files(files)
        assert stats.files == 60
        assert text(shared, 'find "$1" -type f | wc -l', folder).strip() == "60"
        assert shared.read_file(f"{folder}/a/3/59") == b"59"

    def test_contents_may_be_given_in_several_ways(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        (tmp_path / "local").write_bytes(b"\xffsource")
        stats = shared.write_files(
            [
                FileWrite(f"{folder}/bytes", content=b"\xfe"),
                FileWrite(f"{folder}/text", content="é"),
                FileWrite(f"{folder}/base64", content_base64="AAEC"),
                FileWrite(f"{folder}/source", source=tmp_path / "local"),
            ]
        )
        assert stats.files == 4
        names = ("bytes", "text", "base64", "source")
        assert [shared.read_file(f"{folder}/{name}") for name in names] == [
            b"\xfe",
            "é".encode(),
            b"\0\1\2",
            b"\xffsource",
        ]

    def test_modes_are_set_whatever_the_umask(self, shared: RaisingSandbox, folder: str) -> None:
        modes = ["400", "600", "644", "755", "777"]
        shared.write_files(
            [FileWrite(f"{folder}/{mode}", content=b"x", mode=int(mode, 8)) for mode in modes]
        )
        assert text(shared, 'cd "$1" && stat -c %a *', folder).split() == modes

    def test_a_missing_file_is_not_found_and_never_empty(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        for path in (f"{folder}/missing", f"{folder}/no/such/folder/file"):
            with pytest.raises(RemoteFileNotFoundError) as caught:
                shared.read_file(path)
            assert isinstance(caught.value, FileNotFoundError)
            with pytest.raises(RemoteFileNotFoundError):
                shared.download(path, tmp_path / "copy")
        assert list(tmp_path.iterdir()) == []

    def test_a_directory_is_no_file(self, shared: RaisingSandbox, folder: str) -> None:
        text(shared, 'mkdir "$1/dir"; echo x >"$1/dir/kept"', folder)
        with pytest.raises(RemoteFileError) as caught:
            shared.read_file(f"{folder}/dir")
        assert not isinstance(caught.value, RemoteFileNotFoundError)
        with pytest.raises(RemoteFileError):
            shared.write_files({f"{folder}/dir": b"no"})
        assert text(shared, 'cat "$1/dir/kept"', folder) == "x\n"

    def test_a_file_on_the_way_is_an_error(self, shared: RaisingSandbox, folder: str) -> None:
        shared.write_files({f"{folder}/file": b"kept"})
        with pytest.raises(RemoteFileError):
            shared.write_files({f"{folder}/file/below": b"no"})
        assert shared.read_file(f"{folder}/file") == b"kept"

    def test_a_file_is_replaced_in_one_step(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        """A reader that has the old file open keeps it whole: the new one is another file."""
        shared.write_files({f"{folder}/file": b"old" * 50_000})
        script = (
            'exec 3<"$1/file"; echo open; until [ -e "$1/go" ]; do sleep 0.1; done; cat <&3 | wc -c'
        )
        command = shared.start_command(["sh", "-c", script, "sh", folder])
        lab.until(lambda: b"".join(command.output()) == b"open\n", "the reader to have it open")
        shared.write_files({f"{folder}/file": b"new"})
        shared.write_files({f"{folder}/go": b""})
        assert command.wait(60).output.split() == ["open", "150000"]
        assert shared.read_file(f"{folder}/file") == b"new"

    def test_a_write_that_breaks_off_replaces_nothing(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            yield b"x" * 100_000
            raise InterruptedError("the source broke off")

        shared.write_files({f"{folder}/file": b"old"})
        connection = lab.connect(shared)
        with pytest.raises(InterruptedError):
            connection.write_file(f"{folder}/file", broken())
        assert shared.read_file(f"{folder}/file") == b"old"
        lab.until(lambda: text(shared, "ls -A $1", folder) == "file\n", "no rest to be left")

    def test_reading_can_begin_anywhere(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        shared.write_files({f"{folder}/file": b"0123456789"})
        connection = lab.connect(shared)
        parts = [b"".join(connection.read_file(f"{folder}/file", offset=n)) for n in (0, 4, 10)]
        assert parts == [b"0123456789", b"456789", b""]

    def test_a_big_file_survives_the_way_up_and_down(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        source, copy = tmp_path / "big", tmp_path / "copy"
        digest = hashlib.sha256()
        with source.open("wb") as file:
            left = self.big_file_bytes + 12_345
            while left:
                piece = os.urandom(min(left, 1 << 20))
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
        moved: list[int] = []
        stats = shared.upload(source, f"{folder}/big", progress=lambda done, _: moved.append(done))
        assert (stats.files, stats.bytes) == (1, self.big_file_bytes + 12_345)
        assert moved[-1] == self.big_file_bytes + 12_345
        assert text(shared, 'wc -c <"$1/big"', folder).strip() == str(stats.bytes)
        assert shared.download(f"{folder}/big", copy).bytes == stats.bytes
        with copy.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest()

    def test_a_file_keeps_its_mode_in_both_directions(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        source, copy = tmp_path / "tool", tmp_path / "copy"
        source.write_bytes(b"#!/bin/sh\necho works\n")
        source.chmod(0o750)
        shared.upload(source, f"{folder}/tool")
        assert shared.run_command(f"{folder}/tool").check().output == "works\n"
        shared.download(f"{folder}/tool", copy)
        assert copy.stat().st_mode & 0o7777 == 0o750

    def test_a_tree_comes_back_with_modes_and_links(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        source = _make_tree(tmp_path / "source")
        stats = shared.upload(source, f"{folder}/tree")
        assert stats.files == 5
        assert text(shared, 'cat "$1/tree/link"; ls -A "$1/tree/empty"', folder) == "plain\n"
        assert text(shared, '"$1/tree/sub/tool"', folder) == "works\n"
        down = shared.download(f"{folder}/tree", tmp_path / "copy")
        assert (down.files, down.skipped) == (5, ())
        assert _described(tmp_path / "copy") == _described(source)

    def test_a_tree_is_merged_into_what_is_there(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        shared.write_files({f"{folder}/tree/old": b"old", f"{folder}/tree/plain": b"before"})
        shared.upload(_make_tree(tmp_path / "source"), f"{folder}/tree")
        assert shared.read_file(f"{folder}/tree/old") == b"old"
        assert shared.read_file(f"{folder}/tree/plain") == b"plain\n"
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "mine").write_bytes(b"mine")
        shared.download(f"{folder}/tree", tmp_path / "copy")
        assert (tmp_path / "copy" / "mine").read_bytes() == b"mine"
        assert (tmp_path / "copy" / "old").read_bytes() == b"old"

    def test_a_file_that_shrinks_on_its_way_is_an_error(
        self, shared: RaisingSandbox, folder: str, tmp_path: Path
    ) -> None:
        source = tmp_path / "shrinking"
        source.write_bytes(b"x" * 3_000_000)

        def shrink(done: int, total: int | None) -> None:
            del done, total
            os.truncate(source, 10)

        with pytest.raises(TransferError):
            shared.upload(source, f"{folder}/file", progress=shrink)
        assert sh(shared, 'ls -A "$1"', folder).output == ""


def _make_tree(root: Path) -> Path:
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "plain").write_bytes(b"plain\n")
    (root / "empty file").write_bytes(b"")
    (root / "sub" / "binary").write_bytes(bytes(range(256)) * 100)
    (root / "sub" / "tool").write_bytes(b"#!/bin/sh\necho works\n")
    (root / "sub" / "tool").chmod(0o755)
    (root / "sub" / "deeper" / "línea 漢字").write_bytes(b"odd")
    (root / "link").symlink_to("plain")
    (root / "sub" / "up").symlink_to("../plain")
    (root / "sub").chmod(0o750)
    return root


def _described(root: Path) -> dict[str, object]:
    """Everything below a directory: kinds, permission bits, contents, targets."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_dir():
            found[name] = oct(path.stat().st_mode & 0o7777)
        else:
            found[name] = (oct(path.stat().st_mode & 0o7777), path.read_bytes())
    return found
