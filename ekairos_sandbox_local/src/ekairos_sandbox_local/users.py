"""The unprivileged user ids that sandboxes of root run as."""

from __future__ import annotations

import pwd
import secrets
import stat
from collections.abc import Collection
from pathlib import Path

from ekairos_sandbox.exceptions import ConfigurationError

_WINDOWS = ((1_900_000_000, 2_100_000_000), (200_000, 1_800_000_000), (20_000, 60_000))
"""Where ids are picked from, best first: ids that nothing else uses on an ordinary machine, then
those that a container with few ids has."""


def choose_uid(taken: Collection[int]) -> int:
    """Pick an id, user and group alike, that no user and no sandbox has.

    Raises:
        ConfigurationError: This process's user namespace maps no id that could be used.
    """
    mapped = _mapped("/proc/self/uid_map"), _mapped("/proc/self/gid_map")
    for low, high in _WINDOWS:
        spans = [
            (max(low, a[0], b[0]), min(high, a[1], b[1])) for a in mapped[0] for b in mapped[1]
        ]
        spans = [span for span in spans if span[1] - span[0] >= 1000]
        for _ in range(100 if spans else 0):
            first, end = secrets.choice(spans)
            uid = first + secrets.randbelow(end - first)
            if uid not in taken and not _is_a_user(uid):
                return uid
    raise ConfigurationError(
        "no unprivileged user id is available that a sandbox of root could run as",
        provider="local",
        hint="run as an ordinary user, or give this container's user namespace more ids",
    )


def first_closed(path: Path) -> Path | None:
    """Return the first folder on the way to ``path``, itself included, not open to everybody."""
    for step in (*reversed(path.resolve().parents), path):
        if not step.stat().st_mode & stat.S_IXOTH:
            return step
    return None


def _mapped(path: str) -> list[tuple[int, int]]:
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    return [(int(first), int(first) + int(count)) for first, _, count in lines]


def _is_a_user(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
