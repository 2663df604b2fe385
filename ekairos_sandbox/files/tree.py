"""Write below one local directory and nowhere else, whatever links lie in it.

Directories are opened one component at a time, each relative to the open one above it, and links
are never followed. Where the system cannot do that (Windows), each component is looked at first.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_CREATE |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_READ |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)

HAS_DIR_FD = {
    os.open,
    os.mkdir,
    os.rename,
    os.symlink,
    os.unlink,
} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


class _Folder(ABC):
    """An open directory; all names are those of its direct entries."""

    @abstractmethod
    def enter(self, name: str) -> _Folder:
        """Open a directory in it; ``NotADirectoryError`` for links."""

    @abstractmethod
    def make(self, name: str) -> None: ...

    @abstractmethod
    def open(self, name: str, flags: int) -> BinaryIO: ...

    @abstractmethod
    def replace(self, old: str, new: str) -> None: ...

    @abstractmethod
    def symlink(self, target: str, name: str) -> None: ...

    @abstractmethod
    def link(self, source: _Folder, old: str, new: str) -> None: ...

    @abstractmethod
    def unlink(self, name: str) -> None: ...

    @abstractmethod
    def chmod(self, mode: int) -> None:
        """Set the permission bits of the directory itself."""

    def close(self) -> None:
        return


class _FdFolder(_Folder):
    def __init__(self, path: str | Path, above: int | None = None) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self.fd = os.open(path, flags | (0 if above is None else os.O_NOFOLLOW), dir_fd=above)

    def enter(self, name: str) -> _Folder:
        return _FdFolder(name, self.fd)

    def make(self, name: str) -> None:
        os.mkdir(name, dir_fd=self.fd)

    def open(self, name: str, flags: int) -> BinaryIO:
        fd = os.open(name, flags, 0o600, dir_fd=self.fd)
        return os.fdopen(fd, "wb" if flags & os.O_WRONLY else "rb")

    def replace(self, old: str, new: str) -> None:
        os.replace(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def symlink(self, target: str, name: str) -> None:
        os.symlink(target, name, dir_fd=self.fd)

    def link(self, source: _Folder, old: str, new: str) -> None:
        assert isinstance(source, _FdFolder)
        os.link(old, new, src_dir_fd=source.fd, dst_dir_fd=self.fd, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.fd)

    def chmod(self, mode: int) -> None:
        os.fchmod(self.fd, mode)

    def close(self) -> None:
        os.close(self.fd)


class _PathFolder(_Folder):
    def __init__(self, path: Path) -> None:
        self.path = path

    def enter(self, name: str) -> _Folder:
        path = self.path / name
        found = path.lstat()
        # A junction of Windows is a directory to lstat, with a tag.
        if not stat.S_ISDIR(found.st_mode) or getattr(found, "st_reparse_tag", None):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return _PathFolder(path)

    def make(self, name: str) -> None:
        (self.path / name).mkdir()

    def open(self, name: str, flags: int) -> BinaryIO:
        fd = os.open(self.path / name, flags, 0o600)
        return os.fdopen(fd, "wb" if flags & os.O_WRONLY else "rb")

    def replace(self, old: str, new: str) -> None:
        (self.path / old).replace(self.path / new)

    def symlink(self, target: str, name: str) -> None:
        (self.path / name).symlink_to(target)

    def link(self, source: _Folder, old: str, new: str) -> None:
        assert isinstance(source, _PathFolder)
        os.link(source.path / old, self.path / new, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        (self.path / name).unlink()

    def chmod(self, mode: int) -> None:
        self.path.chmod(mode)


class TreeWriter:
    """Makes files, directories and links below ``root``, which is made if it is missing.

    Entries are named by their components, none of which is ``""``, ``"."`` or ``".."`` or holds a
    separator; the caller sees to that. Missing parents are made. What exists is replaced in one
    step, except that a directory never is: ``IsADirectoryError``. A link or file in the place of
    a directory on the way is a ``NotADirectoryError``.

    Args:
        root: The directory; links on the way to it are followed.
        dir_fd: Whether to work relative to open directories; False is for systems that cannot.
    """

    def __init__(self, root: Path, *, dir_fd: bool = HAS_DIR_FD) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root: _Folder = _FdFolder(root) if dir_fd else _PathFolder(root.resolve())

    def close(self) -> None:
        """Close the root. Nothing can be made afterwards."""
        self._root.close()

    def directory(self, parts: Sequence[str]) -> None:
        """Make a directory; one that exists is left as it is."""
        with self._folder(parts):
            pass

    def file(self, parts: Sequence[str], chunks: Iterable[bytes | memoryview], mode: int) -> None:
        """Write a file; when ``chunks`` raises, nothing is replaced and nothing is left."""
        with (
            self._new_entry(parts) as (folder, temporary),
            folder.open(temporary, _CREATE) as file,
        ):
            for chunk in chunks:
                file.write(chunk)
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)

    def symlink(self, parts: Sequence[str], target: str) -> None:
        """Make a symbolic link; where it points is for the caller to judge."""
        with self._new_entry(parts) as (folder, temporary):
            folder.symlink(target, temporary)

    def hard_link(self, parts: Sequence[str], source: Sequence[str]) -> None:
        """Give a file a second name, or make a copy where the file system has no hard links."""
        with self._new_entry(parts) as (folder, temporary), self._folder(source[:-1]) as other:
            try:
                folder.link(other, source[-1], temporary)
            except OSError:
                with (
                    other.open(source[-1], _READ) as old,
                    folder.open(temporary, _CREATE) as new,
                ):
                    shutil.copyfileobj(old, new)
                    if hasattr(os, "fchmod"):
                        os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(old.fileno()).st_mode))

    def set_mode(self, parts: Sequence[str], mode: int) -> None:
        """Set the permission bits of a directory."""
        with self._folder(parts) as folder:
            folder.chmod(mode)

    @contextmanager
    def _folder(self, parts: Sequence[str]) -> Iterator[_Folder]:
        folder = self._root
        try:
            for part in parts:
                above, folder = folder, _enter_or_make(folder, part)
                if above is not self._root:
                    above.close()
            yield folder
        finally:
            if folder is not self._root:
                folder.close()

    @contextmanager
    def _new_entry(self, parts: Sequence[str]) -> Iterator[tuple[_Folder, str]]:
        """Hand out a temporary name in the right directory; rename it when the block ends well."""
        temporary = f".ekairos-{secrets.token_hex(8)}"
        with self._folder(parts[:-1]) as folder:
            try:
                yield folder, temporary
                folder.replace(temporary, parts[-1])
            except BaseException:
                with suppress(OSError):
                    folder.unlink(temporary)
                raise


def _enter_or_make(folder: _Folder, name: str) -> _Folder:
    try:
        return folder.enter(name)
    except FileNotFoundError:
        folder.make(name)
        return folder.enter(name)
