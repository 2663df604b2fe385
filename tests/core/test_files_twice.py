"""A script whose answer was lost while it ran is sent again, and runs beside itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tmp_shell import SHELLS, TmpShell

from ekairos_sandbox.exceptions import TransferError
from ekairos_sandbox.shell.files import SmallFile, write_file, write_small_files


class Overtaken(TmpShell):
    """The same script, sent before, does what is said just before this one would rename."""

    first = b'mv -f "$T" "$P"\n'

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        script = script.replace(b"\nfin ", b"\n" + self.first + b"fin ")
        return super().shell(script, timeout_s=timeout_s, max_bytes=max_bytes)


class Robbed(Overtaken):
    """Somebody else removes the temporary file."""

    first = b'rm -f "$T"\n'


@pytest.mark.parametrize("sh", SHELLS)
def test_being_overtaken_by_itself_is_no_failure(tmp_path: Path, sh: str) -> None:
    shell = Overtaken(tmp_path, sh)
    assert write_file(shell, "one", [b"content"]) == 7
    write_small_files(shell, [SmallFile("two", b"2"), SmallFile("dir/three", b"")])
    home = Path(shell.home)
    assert [(home / name).read_bytes() for name in ("one", "two", "dir/three")] == [
        b"content",
        b"2",
        b"",
    ]


@pytest.mark.parametrize("before", [None, b"another length"])
def test_a_temporary_file_that_is_gone_is_a_failure(tmp_path: Path, before: bytes | None) -> None:
    shell = Robbed(tmp_path)
    target = Path(shell.home, "file")
    if before is not None:
        target.write_bytes(before)
    with pytest.raises(TransferError):
        write_file(shell, "file", [b"content"])
    assert (target.read_bytes() if target.exists() else None) == before
