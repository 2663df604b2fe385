"""The process that copies a guest's files, for checkpoints. Standard library only; Linux only.

It runs with the user id of the sandbox and no other rights, on folders that were opened before, and
never follows a link: whatever a guest plants, it reads nothing but that guest's files. What it
copies: files (without their holes, and without their data where the file system can share it), hard
links among them, folders, links as links, FIFOs; modes, times and ``user.`` attributes. Sockets and
what vanishes meanwhile are left out. A guest that writes at the same time may be caught half-way.

The configuration comes on standard input; an empty tuple on standard output says that all is
copied, kind and text what went wrong.
"""

# loaded by a process that starts often: no pathlib, no typing, no dataclasses
# ruff: noqa: PTH101

from __future__ import annotations

import contextlib
import errno
import fcntl
import marshal
import os
import resource
import stat
import sys

from ekairos_sandbox_local import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FOLDERS = ("home", "tmp")
_FICLONE = 0x40049409
_PIECE = 8 * 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FDS_PER_LEVEL = 3


class LimitError(Exception):
    """There is more than a stored state may hold."""


class _Level:
    """A folder being copied."""

    def __init__(self, source: int, target: int, path: str, found: os.stat_result | None) -> None:
        self.source = source
        self.target = target
        self.path = path
        self.found = found
        self.opened_up = False
        self.entries: Iterator[os.DirEntry[str]] = os.scandir(source)

    def close(self) -> None:
        if self.found is not None:
            if self.opened_up:
                os.fchmod(self.source, stat.S_IMODE(self.found.st_mode))
            _take_over(self.source, self.target, self.found)
        os.close(self.source)
        os.close(self.target)


class Copy:
    """One copy of any number of trees.

    Args:
        max_bytes: Bytes of data.
        max_entries: Files, folders and links.
    """

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self._bytes_left = max_bytes
        self._entries_left = max_entries
        self._shares = True
        self._linked: dict[tuple[int, int], str] = {}
        self._root = -1
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_depth = max((min(soft, 65_536) - 32) // _FDS_PER_LEVEL, 1)

    def tree(self, source: int, target: int) -> None:
        """Copy what is in a folder into an empty one; both are open, and closed afterwards.

        Raises:
            LimitError: There is too much of something.
            OSError: It cannot be written.
        """
        self._linked.clear()
        self._root = os.dup(target)
        levels = [_Level(source, target, "", None)]
        while levels:
            level = levels[-1]
            entry = next(level.entries, None)
            if entry is None:
                levels.pop().close()
                continue
            below = self._entry(level, entry.name)
            if below is not None:
                levels.append(below)
            if len(levels) > self._max_depth:
                raise LimitError(f"folders are nested more than {self._max_depth} deep")
        os.close(self._root)

    def _entry(self, level: _Level, name: str) -> _Level | None:
        """Copy one entry; return it if it is a folder to be gone through."""
        try:
            found = os.stat(name, dir_fd=level.source, follow_symlinks=False)
        except FileNotFoundError:
            return None
        self._entries_left -= 1
        if self._entries_left < 0:
            raise LimitError("there are too many files")
        if stat.S_ISREG(found.st_mode):
            self._file(level, name)
        elif stat.S_ISDIR(found.st_mode):
            return self._folder(level, name)
        elif stat.S_ISLNK(found.st_mode):
            with contextlib.suppress(FileNotFoundError):
                aim = os.readlink(name, dir_fd=level.source)
                os.symlink(aim, name, dir_fd=level.target)
                times = (found.st_atime_ns, found.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=level.target, follow_symlinks=False)
        elif stat.S_ISFIFO(found.st_mode):
            os.mkfifo(name, 0o600, dir_fd=level.target)
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=level.target)
            os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=level.target)
        return None

    def _folder(self, level: _Level, name: str) -> _Level | None:
        opened = _open(name, level.source, _FOLDER)
        if opened is None:
            return None
        source, found = opened
        os.mkdir(name, 0o700, dir_fd=level.target)
        target = os.open(name, _FOLDER, dir_fd=level.target)
        below = _Level(source, target, f"{level.path}{name}/", found)
        if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:  # or nothing in it could be looked at
            os.fchmod(source, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
            below.opened_up = True
        return below

    def _file(self, level: _Level, name: str) -> None:
        opened = _open(name, level.source, _READ)
        if opened is None:
            return
        source, found = opened
        try:
            if not stat.S_ISREG(found.st_mode) or self._links(level, name, found):
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(name, flags, 0o600, dir_fd=level.target)
            try:
                self._content(source, target, found)
                _take_over(source, target, found)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _links(self, level: _Level, name: str, found: os.stat_result) -> bool:
        """Link to the copy of another name of the same file, if there is one."""
        if found.st_nlink == 1:
            return False
        key = (found.st_dev, found.st_ino)
        first = self._linked.setdefault(key, f"{level.path}{name}")
        if first == f"{level.path}{name}":
            return False
        try:
            os.link(first, name, src_dir_fd=self._root, dst_dir_fd=level.target)
        except OSError:  # a path too long, or as many links as there can be: one copy more
            return False
        return True

    def _content(self, source: int, target: int, found: os.stat_result) -> None:
        if self._shares and found.st_size:
            self._count(min(found.st_size, found.st_blocks * 512))
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError:
                self._shares = False
                self._count(-min(found.st_size, found.st_blocks * 512))
            else:
                return
        at = 0
        while at < found.st_size:
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
                end = min(os.lseek(source, at, os.SEEK_HOLE), found.st_size)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but a hole from here on
                    raise
                break
            while at < end:
                done = _copy_piece(source, target, min(end - at, _PIECE), at)
                if not done:  # it has become shorter
                    break
                self._count(done)
                at += done
        os.ftruncate(target, found.st_size)

    def _count(self, done: int) -> None:
        self._bytes_left -= done
        if self._bytes_left < 0:
            raise LimitError("there is too much data")


def _copy_piece(source: int, target: int, size: int, at: int) -> int:
    try:
        return os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno in _FULL:
            raise
    data = os.pread(source, size, at)
    return os.pwrite(target, data, at) if data else 0


def _open(name: str, folder: int, flags: int) -> tuple[int, os.stat_result] | None:
    """Open a guest's file, also one whose mode forbids it; None if it is something else by now."""
    try:
        fd = os.open(name, flags, dir_fd=folder)
        return fd, os.fstat(fd)
    except PermissionError:
        pass
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            return None
        raise
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            return None
        path, mode = f"/proc/self/fd/{handle}", stat.S_IMODE(found.st_mode)
        os.chmod(path, mode | 0o700)
        try:
            return os.open(path, flags & ~os.O_NOFOLLOW), found
        finally:
            os.chmod(path, mode)
    finally:
        os.close(handle)


def _take_over(source: int, target: int, found: os.stat_result) -> None:
    """Give a copy the attributes, mode and times of the original."""
    with contextlib.suppress(OSError):  # not every file system has them
        for name in os.listxattr(source):
            if name.startswith("user."):
                os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _become(uid: int | None) -> None:
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    namespaces.set_dumpable(dumpable=False)
    namespaces.no_new_privileges()


def _copy_all(config: dict[str, Any]) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pairs = [
        tuple(os.open(f"{config[side]}/{name}", _FOLDER) for side in ("source", "target"))
        for name in FOLDERS
    ]
    os.umask(0)
    _become(config["uid"])
    namespaces.die_with_parent()  # a change of user would have undone it
    if os.getppid() != config["parent"]:
        os._exit(1)
    copy = Copy(config["max_bytes"], config["max_entries"])
    for source, target in pairs:
        copy.tree(source, target)


def main() -> None:
    """Copy as the configuration on standard input says."""
    report: tuple[str, ...] = ()
    try:
        _copy_all(marshal.load(sys.stdin.buffer))  # noqa: S302 - from the process that started it
    except LimitError as error:
        report = ("limit", str(error))
    except OSError as error:
        report = ("system", error.strerror or "unknown error")
    os.write(1, marshal.dumps(report))
