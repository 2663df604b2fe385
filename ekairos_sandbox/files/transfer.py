"""Upload and download files and whole trees."""

from __future__ import annotations

import os
import posixpath
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ekairos_sandbox.exceptions import RemoteFileError, TransferError
from ekairos_sandbox.files.archive import Limits, TarStream, unpack
from ekairos_sandbox.files.content import remote_path
from ekairos_sandbox.files.local import (
    Progress,
    counted,
    local_chunks,
    regular_file_size,
    replacing,
)
from ekairos_sandbox.files.names import components
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.results import CommandResult, TransferStats
from ekairos_sandbox.shell import files as shell_files
from ekairos_sandbox.shell.exchange import DirectoryError, reason

RunCommand = Callable[[list[str]], CommandResult]
"""Runs a command in the sandbox, however long it takes, and returns how it ended."""

_NO_TAR = 127
_NEEDS_TAR = 'command -v tar >/dev/null || { echo "no tar" >&2; exit 127; }\n'
# Without the umask because busybox keeps to it in spite of -p.
_UNPACK = _NEEDS_TAR + 'mkdir -p "$2" && umask 0 && exec tar -x -p -o -f "$1" -C "$2"'
# Small builds of busybox have no --exclude; `unpack` leaves the same directory out once more.
_PACK = _NEEDS_TAR + (
    'mkdir -p -m 700 "${1%/*}" || exit\n'
    "x=; case $3$(tar --help 2>&1) in ./*--exclude*) x=1 ;; esac\n"
    '(umask 077; exec tar -c -f "$1" ${x:+"--exclude=$3"} -C "$2" .) && exec wc -c <"$1"'
)


def upload(
    connection: Connection,
    home: str,
    local: str | os.PathLike[str],
    remote: str,
    *,
    run: RunCommand,
    progress: Progress | None = None,
) -> TransferStats:
    """Copy a local file or tree into the sandbox. Blocks until it is there.

    A file takes the place of ``remote`` in one step. Of a directory the *contents* are merged into
    the directory ``remote``, as ``cp -r local/. remote/`` does: files with the same name are
    replaced one by one, others stay. Permission bits are kept without setuid, setgid and sticky.
    Links that surely stay inside the tree are kept as links; ``skipped`` names what was left out.
    Where tar is busybox's and the user is not root, directories stay writable for their owner.

    Args:
        connection: Way into the sandbox.
        home: Its home; ``remote`` may be relative to it, and the archive of a tree is kept below
            it meanwhile.
        local: The file or directory; a link is followed.
        remote: Where to.
        run: Runs commands in the sandbox.
        progress: Called with the bytes moved so far and their final number, None for a tree.

    Raises:
        FileNotFoundError: There is no such local file; nothing was sent.
        OSError: A local file cannot be read.
        ValueError: ``remote`` cannot be, or ``local`` is neither a file nor a directory.
        RemoteFileError: Refused inside: something is in the way, no permission, no space, no tar.
        TransferError: A local file changed meanwhile, or what arrived is not what was sent.
    """
    source, target = Path(local), remote_path(remote, home)
    found = source.stat()
    if stat.S_ISDIR(found.st_mode):
        return _upload_tree(connection, home, source, target, run, progress)
    total = regular_file_size(source)
    chunks = counted(local_chunks(source), progress, total)
    sent = _write(connection, target, chunks, found.st_mode & 0o777)
    return TransferStats(files=1, bytes=sent)


def download(
    connection: Connection,
    home: str,
    remote: str,
    local: str | os.PathLike[str],
    *,
    run: RunCommand,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> TransferStats:
    """Copy a file or tree out of the sandbox. Blocks until it is here.

    A file takes the place of ``local`` in one step, and only when it is complete. Of a directory
    the *contents* are merged into the directory ``local``, as ``cp -r remote/. local/`` does; what
    comes out is unpacked without trust, see ``unpack``. Permission bits are kept without setuid,
    setgid and sticky. The library's own files below the sandbox's home are left out.

    Args:
        connection: Way into the sandbox.
        home: Its home; ``remote`` may be relative to it, and the archive of a tree is kept below
            it meanwhile.
        remote: The file or directory; a link is followed.
        local: Where to; parents are made.
        run: Runs commands in the sandbox.
        progress: Called with the bytes moved so far and their final number.
        limits: What a tree may hold; None means no limits.

    Raises:
        RemoteFileNotFoundError: There is no such file or directory.
        RemoteFileError: A device, no permission, no space for the archive, or no tar.
        TransferError: Something changed meanwhile, was cut short, or was refused. A local file is
            as it was; of a tree, what came before is there.
        IsADirectoryError: ``remote`` is a file and ``local`` a directory.
        OSError: The local file system refused.
    """
    source, target = remote_path(remote, home), Path(local)
    try:
        content, size_before, mode = _open(connection, source)
    except DirectoryError:
        return _download_tree(connection, home, source, target, run, progress, limits)
    if target.is_dir():
        raise IsADirectoryError(f"{str(target)!r} is a directory; name the file to write")
    if limits is not None and limits.bytes is not None and size_before > limits.bytes:
        raise TransferError(f"{source!r} has more than {limits.bytes} bytes", retryable=False)
    total = size_before or None
    size = 0
    with replacing(target, mode & 0o777) as file:
        for chunk in counted(content, progress, total):
            size += file.write(chunk)
        if total is not None and size != total:
            raise _cut(source, size, total)
    return TransferStats(files=1, bytes=size)


def _open(connection: Connection, path: str) -> tuple[Iterator[bytes], int, int]:
    """Return a file's content, size (0: not known) and mode.

    Raises:
        DirectoryError: It is a directory.
        RemoteFileError: It is a device, or cannot be read.
    """
    if type(connection).read_file is Connection.read_file:
        file = shell_files.read_file(
            connection, path, clock=connection.clock, api=connection.file_api
        )
        return file, file.size, file.mode
    found = shell_files.stat(connection, path)
    if found.kind == "directory":
        raise DirectoryError(path=path)
    if found.kind == "other":
        raise RemoteFileError(f"is not a regular file in the sandbox: {path!r}", path=path)
    return connection.read_file(path), found.size, found.mode


def _upload_tree(
    connection: Connection,
    home: str,
    source: Path,
    target: str,
    run: RunCommand,
    progress: Progress | None,
) -> TransferStats:
    archive = TarStream(source, progress)
    with _temporary_file(connection, home) as temporary:
        _write(connection, temporary, archive, 0o600)
        _check(run(["sh", "-c", _UNPACK, "sh", temporary, target]), "unpack", target)
    return archive.stats


def _download_tree(
    connection: Connection,
    home: str,
    source: str,
    target: Path,
    run: RunCommand,
    progress: Progress | None,
    limits: Limits | None,
) -> TransferStats:
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{str(target)!r} is not a directory")
    own = posixpath.relpath(_state_dir(home), source)
    own = "" if own.startswith("../") else own
    with _temporary_file(connection, home) as temporary:
        done = run(["sh", "-c", _PACK, "sh", temporary, source, f"./{own}" if own else ""])
        _check(done, "pack", source)
        total = int(done.stdout) if done.stdout.strip().isdigit() else -1
        size = 0

        def moved(bytes_so_far: int, _: int | None) -> None:
            nonlocal size
            size = bytes_so_far
            if progress:
                progress(size, total)

        stream = counted(connection.read_file(temporary), moved, total)
        exclude = components(own) if own else None
        stats = unpack(stream, target, limits=limits, exclude=exclude)
        if size != total:
            raise _cut(source, size, total)
    return stats


def _write(connection: Connection, path: str, chunks: Iterable[bytes], mode: int) -> int:
    """Write a file and see to it that all of it was taken."""
    given = 0

    def passed() -> Iterator[bytes]:
        nonlocal given
        for chunk in chunks:
            given += len(chunk)
            yield chunk

    written = connection.write_file(path, passed(), mode=mode)
    if written != given:
        raise _cut(path, written, given)
    return written


@contextmanager
def _temporary_file(connection: Connection, home: str) -> Iterator[str]:
    """Name a file in the sandbox that is removed afterwards, if the sandbox can be asked."""
    path = posixpath.join(_state_dir(home), "tmp", f"{secrets.token_hex(8)}.tar")
    try:
        yield path
    finally:
        shell_files.remove_file(connection, path)


def _state_dir(home: str) -> str:
    return f"{home.rstrip('/')}/.local/state/ekairos-sandbox"


def _check(done: CommandResult, verb: str, path: str) -> None:
    if done.success:
        return
    if done.exit_code == _NO_TAR:
        raise RemoteFileError(
            "the sandbox has no program 'tar', which moving directories needs",
            path=path,
            hint="add it to the image, or move the files one by one",
        )
    how = reason(done.error) if done.exit_code is not None else "was ended"
    raise RemoteFileError(f"could not {verb} in the sandbox: {how}: {path!r}", path=path)


def _cut(path: str, size: int, total: int) -> TransferError:
    return TransferError(f"{path!r} was cut short: {size} of {total} bytes arrived")
