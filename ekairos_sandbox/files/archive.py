"""Trees as tar archives: made while they are sent, unpacked while they arrive.

Memory stays bounded in both directions, and nothing is spooled on this machine. An archive that
comes from a sandbox is hostile until shown otherwise: see ``unpack``.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ekairos_sandbox.exceptions import TransferError
from ekairos_sandbox.files.local import Progress, counted, read_steadily
from ekairos_sandbox.files.names import Parts, components, link_stays_inside, refused
from ekairos_sandbox.files.tar_reader import Member, TarReader
from ekairos_sandbox.files.tree import HAS_DIR_FD, TreeWriter
from ekairos_sandbox.results import TransferStats

_MAX_SKIPPED = 1_000
_IN_THE_WAY = {errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_PRIVILEGE = 1314  # of Windows: links are for administrators and developers
_IMPOSSIBLE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


class TarStream:
    """A local tree as a tar archive; iterate over it once, ``stats`` is complete afterwards.

    Names are relative to ``source``, which is not an entry itself. Permission bits are kept
    without setuid, setgid and sticky. Links are kept as links where they surely stay inside the
    tree, see ``link_stays_inside``; other links, sockets, devices and FIFOs are left out and
    named in ``stats.skipped``.

    Args:
        source: The directory.
        progress: Called with the bytes of the archive so far, and None.

    Raises:
        TransferError: A file changed while it was being read.
        OSError: A file or directory cannot be read.
    """

    def __init__(self, source: Path, progress: Progress | None = None) -> None:
        self._source = source
        self._progress = progress
        self._files = 0
        self._bytes = 0
        self._skipped: list[str] = []

    @property
    def stats(self) -> TransferStats:
        """What was put into the archive so far."""
        return TransferStats(self._files, self._bytes, tuple(self._skipped))

    def __iter__(self) -> Iterator[bytes]:
        return counted(self._blocks(), self._progress, None)

    def _blocks(self) -> Iterator[bytes]:
        closed: list[tarfile.TarInfo] = []
        pending: list[tuple[Path, Parts]] = [(self._source, ())]
        while pending:
            folder, parts = pending.pop()
            if parts:
                found = folder.lstat()
                info = _info(parts, found, tarfile.DIRTYPE)
                if info.mode & 0o700 != 0o700:
                    # Some tar programs set the mode at once and then cannot write into it.
                    closed.append(_info(parts, found, tarfile.DIRTYPE))
                    info.mode |= 0o700
                yield _encoded(info)
            inner: list[tuple[Path, Parts]] = []
            for path in sorted(folder.iterdir()):
                where = (*parts, path.name)
                found = path.lstat()
                if stat.S_ISDIR(found.st_mode):
                    inner.append((path, where))
                else:
                    yield from self._entry(path, where, found)
            pending.extend(reversed(inner))
        yield from map(_encoded, reversed(closed))
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _entry(self, path: Path, parts: Parts, found: os.stat_result) -> Iterator[bytes]:
        if stat.S_ISREG(found.st_mode):
            yield from self._file(path, parts)
        elif stat.S_ISLNK(found.st_mode):
            target = path.readlink().as_posix()
            if link_stays_inside(parts, target):
                info = _info(parts, found, tarfile.SYMTYPE)
                info.linkname = target
                yield _encoded(info)
            else:
                self._skipped.append(f"{'/'.join(parts)}: a link that leads outside")
        else:
            self._skipped.append(f"{'/'.join(parts)}: neither a file nor a directory")

    def _file(self, path: Path, parts: Parts) -> Iterator[bytes]:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb") as file:
            found = os.fstat(file.fileno())
            info = _info(parts, found, tarfile.REGTYPE)
            info.size = found.st_size
            yield _encoded(info)
            yield from read_steadily(file, str(path), found)
            yield bytes(-info.size % tarfile.BLOCKSIZE)
        self._files += 1
        self._bytes += info.size


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold at most; None means no limit.

    Attributes:
        members: Number of entries of any kind.
        bytes: Bytes of content in all; a hard link counts as the file that it is.
    """

    members: int | None = None
    bytes: int | None = None


def unpack(
    stream: Iterable[bytes],
    target: Path,
    *,
    limits: Limits | None = None,
    exclude: Parts | None = None,
    dir_fd: bool = HAS_DIR_FD,
) -> TransferStats:
    """Unpack a tar archive into a directory, merging with what is there.

    Nothing outside ``target`` is ever touched. Names must be relative, without ``..``; a link on
    the way is never followed, whether the archive brought it or it was there before. Files that
    exist are replaced one by one, each in one step; directories are kept. Symbolic links are made
    last, and only where they surely stay inside, see ``link_stays_inside``; other links, devices
    and FIFOs are left out and named in ``skipped``. A hard link must name a file of the same
    archive. Permission bits are kept without setuid, setgid and sticky; owners and times are not.

    Args:
        stream: The archive, in pieces of any size.
        target: The directory; made if it is missing.
        limits: What the archive may hold; None means no limits.
        exclude: A directory of the archive that is passed over with all it holds.
        dir_fd: Whether to work relative to open directories; False is for systems that cannot.

    Raises:
        TransferError: The archive was cut short, is damaged, exceeds a limit, or holds a name
            that is refused or for which something is in the way. What came before it is there.
        OSError: The local file system refused, e.g. no space.
    """
    unpacker = _Unpacker(TreeWriter(target, dir_fd=dir_fd), limits or Limits(), exclude)
    return unpacker.run(TarReader(stream))


class _Unpacker:
    def __init__(self, tree: TreeWriter, limits: Limits, exclude: Parts | None) -> None:
        self._tree = tree
        self._exclude = exclude
        self._limits = limits
        self._files: dict[Parts, int] = {}
        self._symlinks: dict[Parts, str] = {}
        self._modes: dict[Parts, int] = {}
        self._count = 0
        self._bytes = 0
        self._skipped: list[str] = []

    def run(self, reader: TarReader) -> TransferStats:
        try:
            for number, member in enumerate(reader, 1):
                if self._limits.members is not None and number > self._limits.members:
                    raise refused(f"holds more than {self._limits.members} members")
                with _blaming(member.name):
                    self._add(member, reader)
            for parts, target in self._symlinks.items():
                with _blaming("/".join(parts)):
                    self._make_symlink(parts, target)
            # Deepest first: a directory without permissions may hold others.
            for parts in sorted(self._modes, key=len, reverse=True):
                with _blaming("/".join(parts)):
                    self._tree.set_mode(parts, self._modes[parts])
        finally:
            self._tree.close()
        return TransferStats(self._count, self._bytes, tuple(self._skipped))

    def _add(self, member: Member, reader: TarReader) -> None:
        parts = components(member.name)
        if not parts:
            if member.kind != "directory":
                raise refused(f"holds {member.name!r}, which is no name of a {member.kind}")
            return
        if self._exclude is not None and parts[: len(self._exclude)] == self._exclude:
            return
        if member.kind == "directory":
            self._tree.directory(parts)
            self._modes[parts] = member.mode
        elif member.kind == "file":
            self._charge(member.size)
            self._tree.file(parts, reader.content(), member.mode)
            self._took(parts, member.size)
        elif member.kind == "symlink":
            self._symlink(parts, member.target)
        elif member.kind == "hardlink":
            self._hard_link(parts, member)
        else:
            self._skip(parts, "neither a file nor a directory")

    def _charge(self, size: int) -> None:
        self._bytes += size
        if self._limits.bytes is not None and self._bytes > self._limits.bytes:
            raise refused(f"holds more than {self._limits.bytes} bytes")

    def _took(self, parts: Parts, size: int) -> None:
        self._count += 1
        self._files[parts] = size
        self._symlinks.pop(parts, None)

    def _symlink(self, parts: Parts, target: str) -> None:
        if link_stays_inside(parts, target):
            self._symlinks[parts] = target
        else:
            self._skip(parts, "a link that leads outside")

    def _make_symlink(self, parts: Parts, target: str) -> None:
        try:
            self._tree.symlink(parts, target)
        except OSError as error:
            if error.errno not in _NO_LINKS and getattr(error, "winerror", None) != _NO_PRIVILEGE:
                raise
            self._skip(parts, "the local file system has no links")

    def _skip(self, parts: Parts, why: str) -> None:
        if len(self._skipped) < _MAX_SKIPPED:
            self._skipped.append(f"{'/'.join(parts)}: {why}")
        elif len(self._skipped) == _MAX_SKIPPED:
            self._skipped.append("and more")

    def _hard_link(self, parts: Parts, member: Member) -> None:
        source = components(member.target)
        if source in self._symlinks:
            self._symlink(parts, self._symlinks[source])
        elif source not in self._files:
            raise refused(f"holds a hard link to {member.target!r}, which is no file in it")
        elif source != parts:
            self._charge(self._files[source])
            self._tree.hard_link(parts, source)
            self._took(parts, self._files[source])


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Turn what the archive is to blame for into ``TransferError``."""
    try:
        yield
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            why = "a file, a directory or a link is in the way"
        elif error.errno in _IMPOSSIBLE_NAME:
            why = "the local file system cannot have such a name"
        else:
            raise
        raise TransferError(f"cannot unpack {name!r}: {why}", retryable=False) from error


def _info(parts: Parts, found: os.stat_result, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("/".join(parts))
    info.type = kind
    info.mode = stat.S_IMODE(found.st_mode) & 0o777
    info.mtime = max(0, int(found.st_mtime))
    return info


def _encoded(info: tarfile.TarInfo) -> bytes:
    # GNU's format, because busybox passes over the long and non-ASCII names of pax headers.
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
