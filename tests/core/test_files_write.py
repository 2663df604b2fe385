from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tmp_shell import SHELLS, FakeClock, Faults, TmpShell, lost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekairos_sandbox.exceptions import (
    ProviderTimeoutError,
    RemoteFileError,
    SandboxGoneError,
    TransferError,
)
from ekairos_sandbox.shell import writing
from ekairos_sandbox.shell.files import SmallFile, read_file, write_file, write_small_files

EVERY_BYTE = bytes(range(256))


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> TmpShell:
    return TmpShell(tmp_path, request.param)


@pytest.fixture
def three_parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Content of three parts of 100 bytes, the last one short."""
    monkeypatch.setattr(writing, "PART_BYTES", 100)
    return EVERY_BYTE


def everything_in(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


@pytest.mark.parametrize("content", [b"", b"x", b"\n\n", b"\0", EVERY_BYTE * 300], ids=len)
def test_a_small_file_takes_exactly_one_call(shell: TmpShell, content: bytes) -> None:
    assert write_file(shell, "a/b/f", [content]) == len(content)
    assert Path(shell.home, "a/b/f").read_bytes() == content
    assert everything_in(Path(shell.home)) == ["a", "a/b", "a/b/f"]
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
        "n" * 255,
        "é" * 127,
    ],
)
def test_odd_names(shell: TmpShell, name: str) -> None:
    write_file(shell, f"{name}/{name}", [b"content"])
    assert Path(shell.home, name, name).read_bytes() == b"content"
    assert everything_in(Path(shell.home)) == [name, f"{name}/{name}"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o400, 0o4755])
def test_the_mode_is_exact(shell: TmpShell, mode: int) -> None:
    write_file(shell, "f", [b"x"], mode=mode)
    assert stat.S_IMODE(Path(shell.home, "f").stat().st_mode) == mode


def test_a_file_beyond_the_script_limit_goes_in_parts(shell: TmpShell) -> None:
    shell.max_script_bytes = 8_000
    content = os.urandom(20_000)
    assert write_file(shell, "f", [content[:7], b"", content[7:]], mode=0o640) == 20_000
    assert Path(shell.home, "f").read_bytes() == content
    assert stat.S_IMODE(Path(shell.home, "f").stat().st_mode) == 0o640
    assert everything_in(Path(shell.home)) == ["f"]


def test_a_limit_that_leaves_no_room_is_an_error(tmp_path: Path) -> None:
    shell = TmpShell(tmp_path, max_script_bytes=1_000)
    with pytest.raises(RemoteFileError, match="1000 bytes"):
        write_file(shell, "f", [b"x"])
    assert shell.calls == 0


@pytest.mark.parametrize("size", [99, 100, 101, 199, 200, 201, 300])
def test_sizes_around_the_part_size(tmp_path: Path, three_parts: bytes, size: int) -> None:
    shell = TmpShell(tmp_path, max_script_bytes=None)
    content = (three_parts * 2)[:size]
    assert write_file(shell, "f", (content[i : i + 33] for i in range(0, size, 33))) == size
    assert (tmp_path / "f").read_bytes() == content
    assert shell.calls == (1 if size <= 100 else 2 + (size - 1) // 100)


@pytest.mark.parametrize("sh", SHELLS)
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "cut"])
@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_a_lost_answer_changes_nothing_in_the_outcome(
    tmp_path: Path, three_parts: bytes, sh: str, kind: str, call: int
) -> None:
    shell = TmpShell(tmp_path, sh, max_script_bytes=None, faults=lost(kind, call))
    (tmp_path / "f").write_bytes(b"before")
    assert write_file(shell, "f", [three_parts], clock=FakeClock()) == 256
    assert (tmp_path / "f").read_bytes() == three_parts
    assert everything_in(tmp_path) == ["f"]
    assert shell.calls == 5


@pytest.mark.parametrize("sh", SHELLS)
@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "cut"])
def test_a_lost_answer_to_a_single_call(tmp_path: Path, sh: str, kind: str) -> None:
    shell = TmpShell(tmp_path, sh, faults=lost(kind, 0))
    assert write_file(shell, "f", [b"content"], clock=FakeClock()) == 7
    assert (tmp_path / "f").read_bytes() == b"content"
    assert everything_in(tmp_path) == ["f"]
    assert shell.calls == 2


def test_every_answer_lost_once(tmp_path: Path, three_parts: bytes) -> None:
    shell = TmpShell(tmp_path, max_script_bytes=None, faults=Faults(drop_after={0, 2, 4, 6}))
    assert write_file(shell, "f", [three_parts], clock=FakeClock()) == 256
    assert (tmp_path / "f").read_bytes() == three_parts
    assert shell.calls == 8


def test_a_sandbox_that_stops_answering_leaves_the_old_file(
    tmp_path: Path, three_parts: bytes
) -> None:
    shell = TmpShell(tmp_path, max_script_bytes=None, faults=Faults(drop_before=set(range(2, 99))))
    (tmp_path / "f").write_bytes(b"before")
    with pytest.raises(ProviderTimeoutError):
        write_file(shell, "f", [three_parts], clock=FakeClock())
    assert (tmp_path / "f").read_bytes() == b"before"


def test_a_sandbox_that_is_gone_is_not_asked_again(tmp_path: Path) -> None:
    def before(call: int) -> None:
        raise SandboxGoneError("gone")

    shell = TmpShell(tmp_path, faults=Faults(before=before))
    with pytest.raises(SandboxGoneError):
        write_file(shell, "f", [b"x"], clock=FakeClock())
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("error", [KeyError("mine"), RemoteFileError("mine")])
def test_an_error_in_the_content_passes_through_and_replaces_nothing(
    tmp_path: Path, three_parts: bytes, error: Exception
) -> None:
    def chunks() -> Iterator[bytes]:
        yield three_parts
        raise error

    shell = TmpShell(tmp_path, max_script_bytes=None)
    (tmp_path / "f").write_bytes(b"before")
    with pytest.raises(type(error), match="mine"):
        write_file(shell, "f", chunks())
    assert (tmp_path / "f").read_bytes() == b"before"
    assert everything_in(tmp_path) == ["f"]


def test_a_temporary_file_that_is_taken_away_is_an_error(
    tmp_path: Path, three_parts: bytes
) -> None:
    for number in (1, 3):

        def before(call: int, number: int = number) -> None:
            if call == number:
                next(tmp_path.glob(".f.ekairos-*")).unlink()

        shell = TmpShell(tmp_path, max_script_bytes=None, faults=Faults(before=before))
        with pytest.raises(TransferError, match="disappeared"):
            write_file(shell, "f", [three_parts])
        assert everything_in(tmp_path) == []


def test_a_temporary_file_that_is_tampered_with_is_an_error(
    tmp_path: Path, three_parts: bytes
) -> None:
    def before(call: int) -> None:
        if call == 3:
            with next(tmp_path.glob(".f.ekairos-*")).open("ab") as file:
                file.write(b"x")

    shell = TmpShell(tmp_path, max_script_bytes=None, faults=Faults(before=before))
    with pytest.raises(TransferError, match="did not store all"):
        write_file(shell, "f", [three_parts])
    assert everything_in(tmp_path) == []


def test_an_existing_file_is_replaced_not_changed(shell: TmpShell) -> None:
    file = Path(shell.home, "f")
    file.write_bytes(b"before")
    with file.open("rb") as reader:
        write_file(shell, "f", [b"after"])
        assert reader.read() == b"before"
    assert file.read_bytes() == b"after"


@pytest.mark.parametrize("target", ["d/real", "d/odd\n", "missing", "no/such/place"])
def test_a_link_stays_and_its_target_is_replaced(shell: TmpShell, target: str) -> None:
    home = Path(shell.home)
    (home / "d").mkdir()
    if target.startswith("d/"):
        (home / target).write_bytes(b"before")
    (home / "link").symlink_to(target)
    write_file(shell, "link", [b"after"])
    assert (home / "link").is_symlink()
    assert (home / target).read_bytes() == b"after"


def test_what_is_no_file_is_never_replaced(shell: TmpShell) -> None:
    home = Path(shell.home)
    (home / "d").mkdir()
    os.mkfifo(home / "fifo")
    (home / "file").write_bytes(b"x")
    (home / "loop").symlink_to("loop")
    for path, why in [
        ("d", "is a directory"),
        ("fifo", "not a regular file"),
        ("/dev/null", "not a regular file"),
        ("file/f", "[Ee]xists|[Nn]ot a directory"),
        ("loop", "in a circle"),
    ]:
        with pytest.raises(RemoteFileError, match=why) as caught:
            write_file(shell, path, [b"y"])
        assert caught.value.path == path
    assert everything_in(home) == ["d", "fifo", "file", "loop"]


@pytest.mark.parametrize("sh", SHELLS)
def test_a_directory_without_permission_is_refused(sh: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shell = TmpShell(Path(name), sh, user=65534)
        for path in ("f", "d/f"):
            with pytest.raises(RemoteFileError, match="Permission denied"):
                write_file(shell, path, [b"x"])
        assert everything_in(Path(name)) == []


@pytest.mark.parametrize("sh", SHELLS)
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, sh: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "f").write_bytes(b"before")

    class Full(TmpShell):
        def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
            # A small limit to the size of files stands in for a small disk.
            limited = b"ulimit -f 8; trap '' XFSZ\n" + script
            return super().shell(limited, timeout_s=timeout_s, max_bytes=max_bytes)

    with pytest.raises(RemoteFileError, match=r"too large|temporary data"):
        write_file(Full(tmp_path, sh, max_script_bytes=None), "f", [bytes(50_000)])
    assert (tmp_path / "f").read_bytes() == b"before"
    assert everything_in(tmp_path) == ["f"]


@pytest.mark.parametrize("sh", SHELLS)
def test_a_sandbox_without_base64_is_written_too(tmp_path: Path, sh: str) -> None:
    content = EVERY_BYTE * 200
    for limit in (8_000, None):
        shell = TmpShell(tmp_path, sh, max_script_bytes=limit, without=["base64"])
        assert write_file(shell, "f", [content]) == len(content)
        assert (tmp_path / "f").read_bytes() == content
        write_small_files(shell, [SmallFile("a", EVERY_BYTE), SmallFile("b", b"-n %")])
        assert [(tmp_path / n).read_bytes() for n in "ab"] == [EVERY_BYTE, b"-n %"]
        assert everything_in(tmp_path) == ["a", "b", "f"]


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(RemoteFileError, match="'chmod'"):
        write_file(TmpShell(tmp_path, without=["chmod"]), "f", [b"x"])


@pytest.mark.parametrize("path", ["", "d/", "d/.", "..", "/", "a\0b"])
def test_an_impossible_path_is_refused_before_any_call(tmp_path: Path, path: str) -> None:
    shell = TmpShell(tmp_path)
    with pytest.raises(ValueError, match=r"name of a file|NUL"):
        write_file(shell, path, [b"x"])
    assert shell.calls == 0


@pytest.mark.parametrize("mode", [-1, 0o10000])
def test_an_impossible_mode_is_refused_before_any_call(tmp_path: Path, mode: int) -> None:
    shell = TmpShell(tmp_path)
    with pytest.raises(ValueError, match="mode"):
        write_file(shell, "f", [b"x"], mode=mode)
    assert shell.calls == 0


def test_many_small_files_share_a_call(shell: TmpShell) -> None:
    small = [SmallFile(f"d{i % 3}/f{i}", b"%d" % i, 0o600 + i) for i in range(50)]
    write_small_files(shell, small)
    assert shell.calls == 1
    for i in range(50):
        file = Path(shell.home, f"d{i % 3}/f{i}")
        assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"%d" % i, 0o600 + i)


def test_small_files_are_spread_over_calls_by_the_script_limit(shell: TmpShell) -> None:
    shell.max_script_bytes = 8_000
    small = [SmallFile(f"f{i}", EVERY_BYTE * (40 if i == 3 else 4)) for i in range(8)]
    write_small_files(shell, small)
    for file in small:
        assert Path(shell.home, file.path).read_bytes() == file.data
    assert everything_in(Path(shell.home)) == [f"f{i}" for i in range(8)]


def test_the_small_file_that_failed_is_named(shell: TmpShell) -> None:
    Path(shell.home, "d").mkdir()
    small = [SmallFile("a", b"1"), SmallFile("d", b"2"), SmallFile("z", b"3")]
    with pytest.raises(RemoteFileError, match="is a directory") as caught:
        write_small_files(shell, small)
    assert caught.value.path == "d"
    assert everything_in(Path(shell.home)) == ["a", "d"]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "cut"])
def test_a_lost_answer_to_a_batch(tmp_path: Path, kind: str) -> None:
    shell = TmpShell(tmp_path, faults=lost(kind, 0))
    write_small_files(shell, [SmallFile("a", b"1"), SmallFile("b", b"2")], clock=FakeClock())
    assert [(tmp_path / n).read_bytes() for n in "ab"] == [b"1", b"2"]
    assert everything_in(tmp_path) == ["a", "b"]


def test_64_mib_go_in_and_come_out_in_bounded_memory(tmp_path: Path) -> None:
    shell = TmpShell(tmp_path, max_script_bytes=None)
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    for _ in range(64):
        sent.update(block)
    tracemalloc.start()
    try:
        assert write_file(shell, "f", (block for _ in range(64))) == 64 << 20
        for piece in read_file(shell, "f"):
            received.update(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received.digest() == sent.digest()
    assert peak < 40 << 20


_NAMES = st.text(
    st.characters(codec=None, exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda n: n not in {".", ".."} and len(n.encode()) <= 100)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=_NAMES, content=st.binary(max_size=2_000), sh=st.sampled_from(SHELLS))
def test_any_name_and_content_come_back(tmp_path: Path, name: str, content: bytes, sh: str) -> None:
    shell = TmpShell(tmp_path, sh)
    write_file(shell, f"d/{name}", [content])
    assert (tmp_path / "d" / name).read_bytes() == content
    assert b"".join(read_file(shell, f"d/{name}")) == content
