"""The one thing that everything in this package stands on."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


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


class Carrier(Protocol):
    """Another way to bring bytes in than a part of a script; good for one file.

    Scripts then put them into their place, so it needs not be atomic or exact about names.

    Attributes:
        part_bytes: How many bytes ``send`` takes at most.
        path: Where it leaves them: absolute, of plain characters, nothing else's.
    """

    part_bytes: int
    path: str

    def send(self, part: bytes) -> None:
        """Put bytes at ``path``, in the place of what is there; the file's mode stays."""
