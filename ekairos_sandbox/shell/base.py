"""The one thing that everything in this package stands on."""

from __future__ import annotations

from typing import Protocol


class Shell(Protocol):
    """Something that runs a POSIX sh script elsewhere; see ``provider.Connection.shell``."""

    @property
    def max_script_bytes(self) -> int | None:
        """Longest script that ``shell`` takes, in bytes; None means no limit."""

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run the script and return what it wrote to standard output."""
