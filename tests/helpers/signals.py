"""Signal sets as /proc shows them."""

from __future__ import annotations

_RESERVED = 0b11 << 31
"""Signals 32 and 33: the C library keeps them to itself, so nobody can reset what was inherited."""


def signal_set(digits: str) -> int:
    """Return a mask of ``/proc/<pid>/status``, without the signals that no program can set."""
    return int(digits, 16) & ~_RESERVED
