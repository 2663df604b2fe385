"""Small JSON files that are read whole and replaced in one step."""

from __future__ import annotations

import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        data = json.loads(file.read())
    return {**data}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a file, readable by its owner alone; on a full disk into the space that it has."""
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    text = json.dumps(data)
    try:
        with open(fresh, "x", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(text)
        fresh.rename(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
            raise
        _write_in_place(path, text)


def _write_in_place(path: Path, text: str) -> None:
    """Write into the space that a file has: a guest that fills the disk must not be in the way."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(fd, text.encode().ljust(os.fstat(fd).st_size), 0)
    finally:
        os.close(fd)
