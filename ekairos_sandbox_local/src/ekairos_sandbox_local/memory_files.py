"""Files in memory that are handed to scripts."""

from __future__ import annotations

import fcntl
import os

_SEAL_WRITE = 0x8
_SEALS = 0x1 | 0x2 | 0x4 | _SEAL_WRITE  # F_SEAL_SEAL, _SHRINK, _GROW


def memory_file(*pieces: bytes) -> int:
    """Return the descriptor of a file in memory that holds this, at its beginning, for ever."""
    fd = os.memfd_create("ekairos", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def memory_room(size: int) -> int:
    """Return the descriptor of a file in memory that takes so many bytes and no more."""
    fd = os.memfd_create("ekairos", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS & ~_SEAL_WRITE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def written_into(file: int) -> bytes:
    """Return what a script wrote into its file, from the beginning on."""
    size = min(os.lseek(file, 0, os.SEEK_CUR), os.fstat(file).st_size)
    return os.pread(file, size, 0)
