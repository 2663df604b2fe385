"""The one thing that everything in this package stands on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from ekairos_sandbox.shell.chunks import Pieces


class Shell(Protocol):
    """Something that runs a POSIX sh script elsewhere; see ``provider.Connection.shell``."""

    @property
    def max_script_bytes(self) -> int | None:
        """Longest script that ``shell`` takes, in bytes; None means no limit."""

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run the script and return what it wrote to standard output."""


DIRECT_BYTES = 8 * 1024 * 1024
"""How much one call of a ``FileShell`` moves."""


@runtime_checkable
class FileShell(Shell, Protocol):
    """A shell that can also hand a file to a script, as descriptor 4: its bytes need no encoding.

    Only where scripts run on this machine. The file is in memory: the guest sees none of ours.
    """

    def shell_sending(
        self, script: bytes, data: bytes, *, timeout_s: float, max_bytes: int
    ) -> bytes:
        """Run the script with ``data`` to read, and return what it wrote to standard output."""

    def shell_receiving(
        self, script: bytes, room: int, *, timeout_s: float, max_bytes: int
    ) -> tuple[bytes, bytes]:
        """Run the script with a file to write into, which takes ``room`` bytes and no more.

        Returns what it wrote to standard output, and into the file.
        """


class FileApi(Protocol):
    """A service's own way to move the bytes of files, for those that are too large for a script.

    It needs to be neither atomic nor complete: scripts join the parts, compare sizes, rename, and
    say what a file was before and after it was read. It gets absolute paths of printable text.

    Attributes:
        part_bytes: How many bytes ``put`` takes at most. A part is in memory while it is sent.
        private: Whether others inside cannot read what ``put`` makes. If not, parts are put into
            a folder that they cannot enter, which takes one call of ``shell`` more.
    """

    @property
    def part_bytes(self) -> int: ...  # noqa: D102
    @property
    def private(self) -> bool: ...  # noqa: D102

    def put(self, path: str, part: Pieces) -> None:
        """Make a file, or make it anew after an answer was lost.

        Raises:
            RemoteFileError: The service says what is wrong inside.
            ProviderError: Anything else.
        """

    def get(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file from its beginning on.

        Raises:
            RemoteFileError: The service has no such file, or does not hand it out; scripts are
                asked then.
            ProviderError: Anything else, also from the iterator.
        """
