"""Which names and links of a tree are accepted."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ekairos_sandbox.exceptions import TransferError

Parts = tuple[str, ...]
"""A place in a tree by its components; ``()`` is the root."""

_ON_WINDOWS = os.name == "nt"
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{d}{n}" for d in ("com", "lpt") for n in "0123456789"
}
_MAX_NAME = 32_768
_MAX_DEPTH = 1_000


def components(name: str, *, windows: bool = _ON_WINDOWS) -> Parts:
    """Split the name of a member; ``()`` is the root of the archive.

    Raises:
        TransferError: The name is absolute, holds ``..`` or a NUL character, or, on Windows,
            means something else there than it says.
    """
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if len(name) > _MAX_NAME or len(parts) > _MAX_DEPTH:
        raise refused("holds a name of absurd length")
    if name.startswith("/") or ".." in parts or "\0" in name or not name:
        raise refused(f"holds the name {name!r}, which would lead outside")
    if windows and any(map(_odd_on_windows, parts)):
        raise refused(f"holds the name {name!r}, which Windows cannot have")
    return parts


def _odd_on_windows(part: str) -> bool:
    return (
        any(c in '<>:"\\|?*' or c < " " for c in part)
        or part.endswith((".", " "))
        or part.partition(".")[0].rstrip().lower() in _WINDOWS_DEVICES
    )


def link_stays_inside(parts: Sequence[str], target: str, *, windows: bool = _ON_WINDOWS) -> bool:
    """Whether a symbolic link of this name surely leads to a place inside the same tree.

    So it is for a relative target whose ``..`` all come first and are no more than the link is
    deep: from a real directory inside they lead to a real directory inside, and from there on it
    goes down only, at most through links of which the same is true. A ``..`` further on could
    leave the tree through another link, so such targets do not count as safe.
    """
    steps = [step for step in target.split("/") if step not in {"", "."}]
    ups = 0
    while ups < len(steps) and steps[ups] == "..":
        ups += 1
    return (
        bool(target)
        and not target.startswith("/")
        and "\0" not in target
        and ".." not in steps[ups:]
        and ups < len(parts)
        and not (windows and any(map(_odd_on_windows, steps[ups:])))
    )


def refused(what: str) -> TransferError:
    """Build the error for an archive that is not accepted."""
    return TransferError(f"the archive {what}", retryable=False)
