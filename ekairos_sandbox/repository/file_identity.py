"""Which file it is, for as long as it exists."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_HANDLE_BYTES = 128  # MAX_HANDLE_SZ of Linux
_AT_FDCWD = -100

_LASTING_TYPES = (0x01, 0x4D)
"""Types of handles that hold the numbers of an inode and of its generation: ext4, F2FS, XFS and
tmpfs have the first, Btrfs the second. Those of FUSE and NFS may change with every mount."""


class _Handle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _HANDLE_BYTES),
    )


def file_identity(path: Path) -> str:
    """Return text that tells a file from others that stood or will stand at its path.

    On Linux it is the handle that the file system knows the file by (``name_to_handle_at(2)``): the
    number of an inode alone may soon belong to another file. Where there is no handle that outlasts
    a mount, as on overlayfs, it is that number all the same.
    The file is not opened: closing it would drop the locks that SQLite holds on it.

    Raises:
        OSError: There is no such file.
    """
    number = path.stat().st_ino
    handle = _Handle(handle_bytes=_HANDLE_BYTES)
    try:
        ask = ctypes.CDLL(None).name_to_handle_at
    except (AttributeError, OSError, TypeError):  # another system
        return str(number)
    mount = ctypes.c_int()
    if ask(_AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
        return str(number)
    if handle.handle_type not in _LASTING_TYPES:
        return str(number)
    return bytes(handle.f_handle[: handle.handle_bytes]).hex()
