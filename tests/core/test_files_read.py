from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tmp_shell import SHELLS, FakeClock, Faults, TmpShell, lost

from ekairos_sandbox.exceptions import (
    ProviderTimeoutError,
    RemoteFileError,
    RemoteFileNotFoundError,
    TransferError,
)
from ekairos_sandbox.shell import reading
from ekairos_sandbox.shell.files import RemoteStat, read_file, stat
from ekairos_sandbox.shell.reading import PIECE_BYTES, read_head

EVERY_BYTE = bytes(range(256))


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> TmpShell:
    return TmpShell(tmp_path, request.param)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 100)


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A directory that an ordinary user owns, which the sandbox then runs as."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        os.chown(path, 65534, 65534)
        yield path


def read(shell: TmpShell, path: str, offset: int = 0) -> bytes:
    return b"".join(read_file(shell, path, offset=offset, clock=FakeClock()))


@pytest.mark.parametrize("content", [b"", b"x", b"\n", EVERY_BYTE * 300], ids=len)
def test_content_arrives_byte_for_byte_in_one_call(shell: TmpShell, content: bytes) -> None:
    Path(shell.home, "f").write_bytes(content)
    assert read(shell, "f") == content
    assert shell.calls == 1


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "it's",
        'a"b',
        "a\nb",
        "a\n",
        "-n",
        "--",
        "é 漢",
        "\udcff\udc80",
        "$x`y`\\",
        "a\rb",
        "*",
    ],
)
def test_odd_names(shell: TmpShell, name: str) -> None:
    Path(shell.home, name).write_bytes(b"content")
    assert read(shell, name) == b"content"
    assert read(shell, f"{shell.home}/{name}") == b"content"


def test_reading_begins_at_the_offset(shell: TmpShell) -> None:
    Path(shell.home, "f").write_bytes(b"0123456789")
    assert read(shell, "f", 3) == b"3456789"
    assert read(shell, "f", 9) == b"9"
    assert read(shell, "f", 10) == b""
    assert read(shell, "f", 11) == b""


def test_the_head_of_a_file_tells_its_size_and_which_file_it_is(shell: TmpShell) -> None:
    Path(shell.home, "f").write_bytes(b"0123456789")
    head = read_head(shell, "f", offset=2, limit=3)
    assert (head.data, head.size, head.is_last(2)) == (b"234", 10, False)
    rest = read_head(shell, "f", offset=5, limit=100)
    assert (rest.data, rest.is_last(5), rest.identity) == (b"56789", True, head.identity)
    Path(shell.home, "f").write_bytes(b"9876543210")
    assert read_head(shell, "f", limit=1).identity != head.identity
    assert shell.calls == 3
    made_up = read_head(shell, "/proc/self/status", limit=4)
    assert (made_up.size, made_up.is_last(0)) == (0, False)


@pytest.mark.usefixtures("small_pieces")
def test_a_long_file_comes_in_pieces(shell: TmpShell) -> None:
    Path(shell.home, "f").write_bytes(EVERY_BYTE)
    assert [len(p) for p in read_file(shell, "f")] == [100, 100, 56]
    assert [len(p) for p in read_file(shell, "f", offset=56)] == [100, 100]
    assert read(shell, "f", 7) == EVERY_BYTE[7:]


def test_bytes_around_the_answer_do_no_harm(tmp_path: Path) -> None:
    shell = TmpShell(tmp_path, noise=(b"Welcome!\r\n\x01\x02@EK1:", b"\n@logout\n"))
    (tmp_path / "f").write_bytes(EVERY_BYTE)
    assert read(shell, "f") == EVERY_BYTE


@pytest.mark.parametrize("sh", SHELLS)
def test_a_sandbox_without_base64_is_read_too(tmp_path: Path, sh: str) -> None:
    (tmp_path / "f").write_bytes(EVERY_BYTE)
    assert read(TmpShell(tmp_path, sh, without=["base64"]), "f") == EVERY_BYTE


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(RemoteFileError, match="'stat'"):
        read_file(TmpShell(tmp_path, without=["stat"]), "f")


def test_files_without_a_size_are_read_to_their_end(shell: TmpShell) -> None:
    assert read(shell, "/proc/version") == Path("/proc/version").read_bytes()
    assert read(shell, "/proc/self/status").startswith(b"Name:")


@pytest.mark.parametrize("path", ["nope", "nope/f", "file/f", "dangling"])
def test_a_missing_file_is_told_before_the_first_piece(shell: TmpShell, path: str) -> None:
    Path(shell.home, "file").write_bytes(b"")
    Path(shell.home, "dangling").symlink_to("nope")
    with pytest.raises(RemoteFileNotFoundError) as caught:
        read_file(shell, path)
    assert caught.value.path == path
    with pytest.raises(FileNotFoundError):
        read_file(shell, path)


def test_only_regular_files_can_be_read(shell: TmpShell) -> None:
    home = Path(shell.home)
    (home / "d").mkdir()
    os.mkfifo(home / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(home / "socket"))
        for path, why in [
            ("d", "is a directory"),
            ("fifo", "not a regular file"),
            ("socket", "not a regular file"),
            ("/dev/zero", "not a regular file"),
        ]:
            with pytest.raises(RemoteFileError, match=why) as caught:
                read_file(shell, path)
            assert caught.value.path == path
            assert not isinstance(caught.value, RemoteFileNotFoundError)


@pytest.mark.parametrize("sh", SHELLS)
def test_a_file_without_permission_is_refused(stranger: Path, sh: str) -> None:
    (stranger / "f").write_bytes(b"secret")
    (stranger / "f").chmod(0)
    (stranger / "d").mkdir(mode=0o700)
    shell = TmpShell(stranger, sh, user=65534)
    for path in ("f", "d/f"):
        with pytest.raises(RemoteFileError, match="permission denied") as caught:
            read_file(shell, path)
        assert not isinstance(caught.value, RemoteFileNotFoundError)


def test_a_link_is_followed(shell: TmpShell) -> None:
    Path(shell.home, "f").write_bytes(b"content")
    Path(shell.home, "link").symlink_to("f")
    assert read(shell, "link") == b"content"


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("change", ["append", "rewrite", "replace", "remove", "truncate"])
def test_a_file_that_changes_between_pieces_is_an_error(tmp_path: Path, change: str) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a" * 250)

    def before(call: int) -> None:
        if call != 1:
            return
        if change == "append":
            file.write_bytes(b"a" * 251)
        elif change == "rewrite":
            file.write_bytes(b"b" * 250)
        elif change == "truncate":
            os.truncate(file, 120)
        else:
            file.unlink()
            if change == "replace":
                file.write_bytes(b"a" * 250)

    shell = TmpShell(tmp_path, faults=Faults(before=before))
    pieces = read_file(shell, "f")
    assert next(pieces) == b"a" * 100
    with pytest.raises((TransferError, RemoteFileNotFoundError)):
        next(pieces)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("sh", SHELLS)
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "cut"])
@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_lost_or_cut_answer_is_asked_for_again(
    tmp_path: Path, sh: str, kind: str, call: int
) -> None:
    (tmp_path / "f").write_bytes(EVERY_BYTE)
    shell = TmpShell(tmp_path, sh, faults=lost(kind, call))
    assert read(shell, "f") == EVERY_BYTE
    assert shell.calls == 4


def test_a_sandbox_that_never_answers_is_given_up(tmp_path: Path) -> None:
    shell = TmpShell(tmp_path, faults=Faults(drop_before=set(range(100))))
    with pytest.raises(ProviderTimeoutError):
        read_file(shell, "f", clock=FakeClock())
    assert shell.calls == 6


def test_an_answer_that_is_always_cut_is_a_transfer_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(TransferError, match="cut short"):
        read_file(TmpShell(tmp_path, faults=Faults(cut=set(range(100)))), "f", clock=FakeClock())


@pytest.mark.parametrize(("path", "offset"), [("", 0), ("a\0b", 0), ("f", -1)])
def test_impossible_arguments_are_refused_before_any_call(
    tmp_path: Path, path: str, offset: int
) -> None:
    shell = TmpShell(tmp_path)
    with pytest.raises(ValueError, match=r"must|is empty|NUL"):
        read_file(shell, path, offset=offset)
    assert shell.calls == 0


def test_stat_tells_what_a_path_is(shell: TmpShell) -> None:
    home = Path(shell.home)
    (home / "f").write_bytes(b"12345")
    (home / "f").chmod(0o751)
    (home / "d").mkdir()
    (home / "d").chmod(0o700)
    (home / "link").symlink_to("f")
    assert stat(shell, "f") == RemoteStat("file", 5, 0o751)
    assert stat(shell, "link") == RemoteStat("file", 5, 0o751)
    assert (stat(shell, "d").kind, stat(shell, "d").mode) == ("directory", 0o700)
    assert stat(shell, "/dev/null").kind == "other"
    with pytest.raises(RemoteFileNotFoundError):
        stat(shell, "nope")


@pytest.mark.parametrize("sh", ["dash", "busybox"])
def test_several_full_pieces(tmp_path: Path, sh: str) -> None:
    content = os.urandom(PIECE_BYTES + 1)
    (tmp_path / "f").write_bytes(content)
    assert [len(p) for p in read_file(TmpShell(tmp_path, sh), "f")] == [PIECE_BYTES, 1]
    assert read(TmpShell(tmp_path, sh), "f", PIECE_BYTES // 2) == content[PIECE_BYTES // 2 :]
