"""Large files whose parts come in by another way than scripts."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tmp_shell import SHELLS, TmpShell

from ekairos_sandbox.exceptions import ProviderUnavailableError, RemoteFileError, TransferError
from ekairos_sandbox.shell.files import write_file

LARGE = os.urandom(200_000)


class Folder:
    """Carries parts into a folder; can be told to fail, or to lose what it carried."""

    part_bytes = 64 * 1024

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / f"part-{secrets.token_hex(4)}")
        self.modes: list[int] = []
        self.fails = 0
        self.loses = False

    def send(self, part: bytes) -> None:
        if self.fails:
            self.fails -= 1
            raise ProviderUnavailableError("the upload failed")
        assert len(part) <= self.part_bytes
        with Path(self.path).open("wb") as file:
            file.write(part)
        self.modes.append(stat.S_IMODE(os.stat(self.path).st_mode))  # noqa: PTH116
        if self.loses:
            Path(self.path).unlink()


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> TmpShell:
    shell = TmpShell(tmp_path, request.param)
    shell.max_script_bytes = 20_000
    return shell


@pytest.fixture
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("carried"))


def left(shell: TmpShell, carrier: Folder) -> tuple[list[str], bool]:
    return sorted(os.listdir(shell.home)), Path(carrier.path).exists()  # noqa: PTH208


def test_parts_are_carried_and_put_in_place_by_scripts(shell: TmpShell, carrier: Folder) -> None:
    assert write_file(shell, "file", [LARGE], mode=0o640, carrier=carrier) == len(LARGE)
    path = Path(shell.home, "file")
    assert path.read_bytes() == LARGE
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert carrier.modes == [0o600] * 4
    assert left(shell, carrier) == (["file"], False)


def test_what_fits_into_a_script_is_not_carried(shell: TmpShell, carrier: Folder) -> None:
    assert write_file(shell, "file", [b"small"], carrier=carrier) == 5
    assert (carrier.modes, shell.calls) == ([], 1)


def test_a_file_of_exactly_whole_parts_arrives(shell: TmpShell, carrier: Folder) -> None:
    data = LARGE[: 2 * carrier.part_bytes]
    assert write_file(shell, "file", [data], carrier=carrier) == len(data)
    assert Path(shell.home, "file").read_bytes() == data


@pytest.mark.parametrize("trouble", ["fails", "loses", "source"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    shell: TmpShell, carrier: Folder, trouble: str
) -> None:
    Path(shell.home, "file").write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield LARGE
        if trouble == "source":
            raise OSError("the source failed")

    if trouble == "fails":
        carrier.fails = 1
    carrier.loses = trouble == "loses"
    with pytest.raises((ProviderUnavailableError, TransferError, OSError)):
        write_file(shell, "file", chunks(), carrier=carrier)
    assert Path(shell.home, "file").read_bytes() == b"old"
    assert left(shell, carrier) == (["file"], False)


def test_a_directory_in_the_way_is_refused_before_anything_is_carried(
    shell: TmpShell, carrier: Folder
) -> None:
    Path(shell.home, "file").mkdir()
    with pytest.raises(RemoteFileError):
        write_file(shell, "file", [LARGE], carrier=carrier)
    assert carrier.modes == []
