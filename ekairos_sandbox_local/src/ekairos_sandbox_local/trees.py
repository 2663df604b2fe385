"""Folders that a guest may have changed: made, entered and removed whatever it did to them."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def make_guest_folders(folder: Path, uid: int | None) -> None:
    """Make empty folders for a guest's files."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(mode=0o700)
        if uid is not None:
            os.chown(folder / name, uid, uid)


def remove_tree(path: Path) -> None:
    """Remove a folder of any depth, with any names and modes, without following a link.

    Each folder found inside is moved to the top before it is emptied, so that depth needs neither
    stack nor descriptors. Another process doing the same does no harm.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    top = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pending, prefix, moved, late = [path.name], f"{path.name}-", 0, 0
        while pending:
            name = pending.pop()
            try:
                fd = _open_folder(name, top)
            except FileNotFoundError:
                continue
            try:
                for entry in list(os.scandir(fd)):
                    with contextlib.suppress(FileNotFoundError):
                        if not entry.is_dir(follow_symlinks=False):
                            os.unlink(entry.name, dir_fd=fd)
                            continue
                        moved += 1
                        target = f"{prefix}{moved}"
                        os.close(_open_folder(entry.name, fd))
                        os.rename(entry.name, target, src_dir_fd=fd, dst_dir_fd=top)
                        pending.append(target)
            finally:
                os.close(fd)
            try:
                os.rmdir(name, dir_fd=top)
            except FileNotFoundError:
                continue
            except OSError as error:
                late += 1
                if error.errno != errno.ENOTEMPTY or late > 100:
                    raise
                pending.append(name)  # a dying process was writing
    finally:
        os.close(top)


def open_up(folder: Path) -> None:
    """See that a guest's folders can be entered, whatever the guest has done to their modes."""
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in ("home", "tmp"):
            os.close(_open_folder(name, parent))
    finally:
        os.close(parent)


def _open_folder(name: str, parent: int) -> int:
    """Open a folder, giving ourselves the right to do so first."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{handle}").chmod(0o700)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(handle)
