"""Files in parts, cut transfers, and which missing thing is missing."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from ekairos_sandbox_vercel.files import PART_BYTES, archive_of
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.exceptions import (
    RemoteFileError,
    RemoteFileNotFoundError,
    SandboxGoneError,
    TransferError,
)
from ekairos_sandbox.raising import RaisingSandbox, RaisingService
from ekairos_sandbox.shell.chunks import Pieces

LARGE = os.urandom(2_000_000)


@pytest.fixture
def sandbox(server: VercelServer, service: RaisingService) -> RaisingSandbox:
    sandbox = service.create_sandbox(provider="vercel")
    sandbox.run_command("true").check()
    server.clear_requests()
    return sandbox


def leftovers(sandbox: RaisingSandbox) -> list[str]:
    look = 'cd "$HOME"; ls -A .local/state/ekairos-sandbox/up; find . -name ".*.ekairos-*"'
    return sandbox.run_command(["sh", "-c", look]).output.split()


def test_a_file_of_several_parts_is_put_together(
    server: VercelServer, sandbox: RaisingSandbox, tmp_path: Path
) -> None:
    source = tmp_path / "big"
    with source.open("wb") as file:
        for _ in range(2):
            file.write(os.urandom(PART_BYTES))
        file.write(b"rest")
    source.chmod(0o640)
    sandbox.upload(source, "deep/er/big")
    assert server.operations() == ["write", "write", "write", "run"]
    inside = sandbox.run_command(["sh", "-c", "cd deep/er; sha256sum <big; stat -c %a big"])
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert inside.output.split() == [digest, "-", "640"]
    assert leftovers(sandbox) == []


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, PART_BYTES, PART_BYTES + 1])
def test_sizes_at_the_edges_come_back(sandbox: RaisingSandbox, size: int) -> None:
    data = os.urandom(size)
    sandbox.write_files({"edge": data})
    assert sandbox.read_file("edge") == data
    assert leftovers(sandbox) == []


@pytest.mark.parametrize("operation", ["write", "run"])
@pytest.mark.parametrize(
    "fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.BAD_GATEWAY_AFTER, Fault.RATE_LIMITED]
)
def test_a_large_file_arrives_whatever_becomes_of_the_answers(
    server: VercelServer, sandbox: RaisingSandbox, operation: str, fault: Fault
) -> None:
    server.faults.add(fault, operation, times=2)
    sandbox.write_files({"large": LARGE})
    assert sandbox.read_file("large") == LARGE
    assert leftovers(sandbox) == []


def test_a_large_file_follows_a_link_and_keeps_it(sandbox: RaisingSandbox) -> None:
    sandbox.run_command(["sh", "-c", "mkdir there; echo old >there/file; ln -s there/file link"])
    sandbox.write_files({"link": LARGE})
    assert sandbox.read_file("there/file") == LARGE
    assert sandbox.run_command(["readlink", "link"]).output == "there/file\n"


def test_a_large_file_in_the_place_of_a_directory_is_refused(sandbox: RaisingSandbox) -> None:
    sandbox.run_command(["mkdir", "dir"]).check()
    with pytest.raises(RemoteFileError, match="directory"):
        sandbox.write_files({"dir": LARGE})
    assert leftovers(sandbox) == []


def test_a_write_that_the_service_refuses_replaces_nothing(
    server: VercelServer, sandbox: RaisingSandbox
) -> None:
    sandbox.write_files({"file": b"old"})
    with pytest.raises(RemoteFileError):
        sandbox.write_files({"file/below": LARGE})
    assert sandbox.read_file("file") == b"old"


def test_a_missing_file_is_not_a_missing_sandbox(
    server: VercelServer, sandbox: RaisingSandbox
) -> None:
    with pytest.raises(RemoteFileNotFoundError):
        sandbox.read_file("missing")
    assert server.operations() == ["run"]
    server.world.clock.advance(1801)
    with pytest.raises(SandboxGoneError):
        sandbox.read_file("missing")


def test_an_empty_not_found_says_nothing_about_the_file(
    server: VercelServer, sandbox: RaisingSandbox
) -> None:
    sandbox.write_files({"file": LARGE})
    server.faults.add(Fault.EMPTY_404, "read")
    assert sandbox.read_file("file") == LARGE


def test_a_page_is_not_taken_for_a_file(server: VercelServer, sandbox: RaisingSandbox) -> None:
    sandbox.write_files({"file": LARGE})
    server.faults.add(Fault.PAGE, "read", times=None)
    with pytest.raises(TransferError, match="0 of 2000000 bytes arrived"):
        sandbox.read_file("file")


@pytest.mark.parametrize(
    "fault", [Fault.RESET_BEFORE, Fault.SERVER_ERROR, Fault.RATE_LIMITED, Fault.PAGE]
)
def test_reading_begins_again_until_it_is_answered(
    server: VercelServer, sandbox: RaisingSandbox, fault: Fault
) -> None:
    sandbox.write_files({"file": LARGE})
    server.faults.add(fault, "read", times=2)
    assert sandbox.read_file("file") == LARGE


def test_a_file_that_is_cut_on_its_way_is_an_error(
    server: VercelServer, sandbox: RaisingSandbox, tmp_path: Path
) -> None:
    sandbox.write_files({"large": LARGE})
    server.faults.add(Fault.CUT_MID_LINE, "read", times=8)
    with pytest.raises(TransferError, match="cut short"):
        sandbox.read_file("large")
    with pytest.raises(TransferError, match="cut short"):
        sandbox.download("large", tmp_path / "copy")
    assert list(tmp_path.glob("cop*")) == []


def test_a_download_that_ends_early_in_good_order_is_an_error(
    server: VercelServer, sandbox: RaisingSandbox, tmp_path: Path
) -> None:
    sandbox.write_files({"large": LARGE})
    server.faults.add(Fault.END_EARLY, "read", times=8, records=1)
    with pytest.raises(TransferError, match="cut short"):
        sandbox.read_file("large")
    with pytest.raises(TransferError, match="cut short"):
        sandbox.download("large", tmp_path / "copy")
    assert list(tmp_path.glob("cop*")) == []


@pytest.mark.parametrize("fault", [Fault.CUT_MID_LINE, Fault.END_EARLY])
def test_a_download_that_was_cut_goes_on(
    server: VercelServer, sandbox: RaisingSandbox, fault: Fault
) -> None:
    sandbox.write_files({"large": LARGE})
    server.faults.add(fault, "read", times=2)
    assert sandbox.read_file("large") == LARGE


def test_an_archive_holds_one_file_below_the_root() -> None:
    path = "/home/" + "é" * 60 + "/" + "x" * 100
    archive = b"".join(archive_of(path, Pieces([b"content"]), 0o600))
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as tar:
        (entry,) = tar.getmembers()
        file = tar.extractfile(entry)
        assert file is not None
        assert (f"/{entry.name}", entry.mode, file.read()) == (path, 0o600, b"content")
        assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a//b", "/a/./b", "/", "/a/"])
def test_an_archive_leads_nowhere_else(path: str) -> None:
    with pytest.raises(RemoteFileError):
        archive_of(path, Pieces([]), 0o600)
