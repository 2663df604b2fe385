from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers.tmp_shell import SHELLS, TmpShell

from ekairos_sandbox.exceptions import RemoteFileError
from ekairos_sandbox.files.content import FileWrite, normalise, remote_path, write_files
from ekairos_sandbox.results import TransferStats


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> TmpShell:
    home = tmp_path / "home"
    home.mkdir()
    return TmpShell(home, request.param)


def test_a_mapping_holds_bytes_text_and_local_files(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"from disk")
    assert normalise({"a": b"\xff", "b": "é", "c": bytearray(b"x"), "/d": local}, "/home/u") == [
        FileWrite("/home/u/a", content=b"\xff"),
        FileWrite("/home/u/b", content=b"\xc3\xa9"),
        FileWrite("/home/u/c", content=b"x"),
        FileWrite("/d", source=local),
    ]


def test_a_sequence_may_hold_base64_and_modes() -> None:
    files = [FileWrite("run", content_base64="aGVs\r\nbG8=\n", mode=0o755), FileWrite("e", "")]
    assert normalise(files) == [
        FileWrite("run", content=b"hello", mode=0o755),
        FileWrite("e", content=b""),
    ]


@pytest.mark.parametrize("path", ["", "a\0b", "../a", "a/../b", "..", ".", "/", "a/", "a/."])
def test_a_path_that_cannot_be_is_refused_with_its_number(path: str) -> None:
    with pytest.raises(ValueError, match="file 1: "):
        normalise([FileWrite("ok", b""), FileWrite(path, b"")])


@pytest.mark.parametrize(
    ("first", "second", "home"),
    [("a", "a", ""), ("a/b", "a//./b", ""), ("a", "/home/u/a", "/home/u"), ("/a", "//a", "")],
)
def test_a_path_given_twice_is_refused(first: str, second: str, home: str) -> None:
    with pytest.raises(ValueError, match=r"file 1: .* is given twice"):
        normalise([FileWrite(first, b"1"), FileWrite(second, b"2")], home)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"content": b"", "source": "x"},
        {"content": "", "content_base64": ""},
        {"content": b"", "content_base64": "", "source": "x"},
    ],
)
def test_exactly_one_content_must_be_given(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        FileWrite("a", **given)


@pytest.mark.parametrize("text", ["x", "aGVsbG8", "a=b=", "é", "aGVs*bG8="])
def test_bad_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="file 0: 'a': content_base64 is not base64"):
        normalise([FileWrite("a", content_base64=text)])


def test_other_mistakes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        normalise({"a": "\ud800"})
    with pytest.raises(ValueError, match="mode"):
        normalise([FileWrite("a", b"", mode=0o10000)])
    with pytest.raises(TypeError, match="int"):
        normalise({"a": 5})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="tuple"):
        normalise([("a", b"")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="bytes"):
        normalise({b"a": b""})  # type: ignore[dict-item]
    with pytest.raises(IsADirectoryError):
        normalise({"a": tmp_path})
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="not a regular file"):
        normalise({"a": tmp_path / "fifo"})


def test_remote_paths_are_simplified() -> None:
    assert remote_path("a//b/./c", "/home/u") == "/home/u/a/b/c"
    assert remote_path("/a/", "/home/u") == "/a"
    assert remote_path("//a", "/home/u") == "/a"
    assert remote_path("-n\n", "") == "-n\n"


def test_many_files_take_one_call(shell: TmpShell) -> None:
    home = Path(shell.home)
    files = {f"d/{i}": f"text {i}" for i in range(100)}
    assert write_files(shell, shell.home, files) == TransferStats(files=100, bytes=690)
    assert shell.calls == 1
    assert all((home / path).read_text() == text for path, text in files.items())


def test_all_kinds_of_content_arrive(shell: TmpShell, tmp_path: Path) -> None:
    shell.max_script_bytes = 20_000
    home = Path(shell.home)
    big, small = tmp_path / "big", tmp_path / "small"
    big.write_bytes(os.urandom(300_000))
    small.write_bytes(b"small")
    files = [
        FileWrite("text", "é"),
        FileWrite("bytes", os.urandom(50_000)),
        FileWrite("b64", content_base64="AAEC", mode=0o600),
        FileWrite("big", source=big, mode=0o755),
        FileWrite("small", source=str(small)),
        FileWrite(str(tmp_path / "elsewhere"), b""),
    ]
    stats = write_files(shell, shell.home, files)
    assert stats == TransferStats(files=6, bytes=2 + 50_000 + 3 + 300_000 + 5)
    assert (home / "text").read_bytes() == b"\xc3\xa9"
    assert (home / "bytes").read_bytes() == files[1].content
    assert (home / "b64").read_bytes() == b"\0\1\2"
    assert (home / "big").read_bytes() == big.read_bytes()
    assert (home / "small").read_bytes() == b"small"
    assert (tmp_path / "elsewhere").read_bytes() == b""
    modes = {n: stat.S_IMODE((home / n).stat().st_mode) for n in ("b64", "big", "small")}
    assert modes == {"b64": 0o600, "big": 0o755, "small": 0o644}


def test_a_batch_of_more_than_two_mib_is_split(tmp_path: Path) -> None:
    shell = TmpShell(tmp_path, max_script_bytes=None)
    content = bytes(200_000)
    write_files(shell, shell.home, {str(i): content for i in range(15)})
    assert shell.calls == 2
    assert all((tmp_path / str(i)).read_bytes() == content for i in range(15))


def test_nothing_is_sent_when_a_local_file_is_missing(tmp_path: Path) -> None:
    shell = TmpShell(tmp_path)
    with pytest.raises(FileNotFoundError):
        write_files(shell, shell.home, {"a": b"1", "b": tmp_path / "nope"})
    assert shell.calls == 0
    assert list(tmp_path.iterdir()) == []


def test_no_files_take_no_call(tmp_path: Path) -> None:
    shell = TmpShell(tmp_path)
    assert write_files(shell, shell.home, {}) == TransferStats(files=0, bytes=0)
    assert shell.calls == 0


def test_the_file_that_failed_is_named(shell: TmpShell) -> None:
    Path(shell.home, "d").mkdir()
    with pytest.raises(RemoteFileError) as caught:
        write_files(shell, shell.home, {"a": b"", "d": b"", "z": b""})
    assert caught.value.path == f"{shell.home}/d"


def test_a_provider_with_its_own_file_api_gets_every_file(tmp_path: Path) -> None:
    written: list[tuple[str, bytes, int]] = []

    class Native(TmpShell):
        def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
            data = b"".join(chunks)
            written.append((path, data, mode))
            return len(data)

    shell = Native(tmp_path)
    (tmp_path / "local").write_bytes(b"disk")
    stats = write_files(shell, "/h", {"a": "1", "b": tmp_path / "local"})
    assert stats == TransferStats(files=2, bytes=5)
    assert written == [("/h/a", b"1", 0o644), ("/h/b", b"disk", 0o644)]
    assert shell.calls == 0
