"""What is kept on disk: one folder per sandbox, below one folder per user of this machine.

::

    <root>/account                    UUID of this collection of sandboxes
    <root>/<name>/meta.json           what it is; never changes
    <root>/<name>/run.json            whether it should run, and until when
    <root>/<name>/home, tmp           the guest's files
    <root>/<name>/cgroups.json        its control groups, written before they are made
    <root>/<name>/checkpoints         stored states of home and tmp; see ``checkpoints.py``
    <root>/<name>/sock, lock          the holder's socket; the lock it holds as long as it lives
    <root>/<name>/door                lock of whoever starts, stops or removes the sandbox
    <root>/<name>/holder.log          what went wrong in the holder
    <root>/.new-*, .gone-*            half-made and half-removed ones

A sandbox appears and disappears by one rename. Where the caller is root, each sandbox has a user
id of its own, which owns ``home`` and ``tmp`` and may pass through the folder by its group. What
lies in ``home`` and ``tmp`` is never opened here, only removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

import platformdirs

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from ekairos_sandbox.provider import Tags
from ekairos_sandbox_local import users
from ekairos_sandbox_local.documents import read_json, write_json
from ekairos_sandbox_local.trees import make_guest_folders, remove_tree

STATE_VARIABLE = "EKAIROS_SANDBOX_LOCAL_STATE"
_ROOTS_STATE = "/var/lib/ekairos-sandbox"
_STALE_S = 600.0


@dataclass(frozen=True, slots=True)
class Meta:
    """What a sandbox is. Times are epoch ms; ``uid`` is None where it is the caller's own."""

    name: str
    external_id: str
    tags: Tags
    options: dict[str, Any]
    created_at: int
    uid: int | None
    timeout_ms: int | None = None
    vcpus: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Whether a sandbox should be running, and until when (epoch ms, None: without end)."""

    wanted: bool
    deadline: int | None = None

    def is_over(self, now_ms: int) -> bool:
        """Tell whether it was stopped or its time is up."""
        return not self.wanted or (self.deadline is not None and now_ms >= self.deadline)


class _Held(threading.local):
    """The doors that each thread stands behind."""

    def __init__(self) -> None:
        self.doors: dict[str, FileIO] = {}


class State:
    """The folder of all sandboxes. Does no I/O when constructed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.is_root = os.geteuid() == 0
        self._held = _Held()
        chosen = environ.get(STATE_VARIABLE, "")
        if chosen:
            self.root = Path(chosen)
        elif self.is_root:
            self.root = Path(_ROOTS_STATE)
        else:
            self.root = Path(platformdirs.user_data_dir("ekairos-sandbox")) / "local"

    def prepare(self) -> None:
        """Make the folder if it is missing, and see whether it is fit for use.

        Raises:
            ConfigurationError: Somebody else could change what is in it, or sandboxes of root
                could not be reached by the user ids they run as.
            ProviderUnavailableError: It cannot be made.
        """
        if not self.root.is_absolute():
            raise ConfigurationError(f"{STATE_VARIABLE} must be an absolute path")
        mode = 0o711 if self.is_root else 0o700
        with _reported(f"the folder {self.root} cannot be made"):
            if not self.root.is_dir():
                self.root.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    self.root.mkdir(mode=mode)
                    self.root.chmod(mode)
        self._check()

    def _check(self) -> None:
        with _reported(f"the folder {self.root} cannot be read"):
            found = self.root.stat()
        if found.st_uid not in (0, os.geteuid()):
            raise ConfigurationError(f"the folder {self.root} belongs to another user")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigurationError(
                f"others may write into the folder {self.root}",
                hint=f"chmod go-w {self.root}, or set {STATE_VARIABLE} to another folder",
            )
        closed = users.first_closed(self.root) if self.is_root else None
        if closed is not None:
            raise ConfigurationError(
                f"the unprivileged users that sandboxes of root run as cannot pass {closed}",
                hint=f"set {STATE_VARIABLE} to a folder that everybody may pass through",
            )

    def account(self) -> str:
        """Return the identity of this collection of sandboxes, making one at first use."""
        self.prepare()
        path = self.root / "account"
        with _reported(f"{path} cannot be read"):
            if not path.exists():
                fresh = self.root / f".new-{secrets.token_hex(8)}"
                fresh.write_text(f"{uuid.uuid4()}\n")
                with contextlib.suppress(FileExistsError):
                    os.link(fresh, path)
                fresh.unlink()
            return f"local:{uuid.UUID(path.read_text().strip())}"

    def require(self) -> None:
        """See that the folder is there, so that what is missing in it is proven gone.

        Raises:
            ProviderUnavailableError: It is not.
        """
        with _reported(f"the folder {self.root} of local sandboxes cannot be read"):
            (self.root / "account").stat()

    def folder(self, name: str) -> Path:
        """Return where a sandbox of this name is kept.

        Raises:
            ConfigurationError: No sandbox can have this name.
        """
        if not name or name.startswith(".") or "/" in name or "\0" in name or len(name) > 200:
            raise ConfigurationError(f"{name!r} is not a name of a local sandbox", provider="local")
        return self.root / name

    def read(self, name: str) -> Meta | None:
        """Return what a sandbox is; None if there is none of this name.

        Raises:
            ProviderUnavailableError: That cannot be told.
        """
        self.require()
        path = self.folder(name) / "meta.json"
        for _ in range(5):  # between two looks it may have been removed and made again
            try:
                data = read_json(path)
                break
            except FileNotFoundError:
                if not path.parent.is_dir():
                    return None
            except (OSError, ValueError) as error:
                raise _unavailable(f"{path} cannot be read", error) from error
        else:
            raise ProviderUnavailableError(f"{path} is missing", provider="local", retryable=False)
        try:
            return Meta(**{**data, "tags": Tags(**data["tags"])})
        except (KeyError, TypeError) as error:
            raise ProviderUnavailableError(
                f"{path} is damaged", provider="local", retryable=False
            ) from error

    def names(self) -> list[str]:
        """Return the names of all sandboxes."""
        self.require()
        with _reported(f"the folder {self.root} cannot be read"):
            return sorted(
                entry.name
                for entry in os.scandir(self.root)
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )

    def make(self, meta: Meta, run: Run) -> Meta | None:
        """Make a sandbox's folder in one step; None if its name was taken meanwhile."""
        with _reported(f"the sandbox's folder cannot be made in {self.root}"):
            self._sweep()
            if self.is_root:
                meta = replace(meta, uid=users.choose_uid(self._groups()))
            fresh = self.root / f".new-{secrets.token_hex(8)}"
            try:
                _fill(fresh, meta, run)
                fresh.rename(self.folder(meta.name))
            except BaseException as error:
                remove_tree(fresh)
                if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return None
                raise
        return meta

    def read_run(self, name: str) -> Run:
        """Return whether a sandbox should run."""
        with _reported(f"the state of {name} cannot be read"):
            return Run(**read_json(self.folder(name) / "run.json"))

    def write_run(self, name: str, run: Run) -> None:
        """Say whether a sandbox should run; call it behind its door."""
        with _reported(f"the state of {name} cannot be written"):
            write_json(self.folder(name) / "run.json", asdict(run))

    def read_groups(self, name: str) -> list[Path]:
        """Return the control groups that a sandbox may have."""
        with _reported(f"the state of {name} cannot be read"):
            try:
                found = read_json(self.folder(name) / "cgroups.json")
            except FileNotFoundError:
                return []
            return [Path(path) for path in found["paths"]]

    def write_groups(self, name: str, groups: Iterable[Path]) -> None:
        """Say which control groups a sandbox may have, before they are made; behind its door."""
        with _reported(f"the state of {name} cannot be written"):
            path = self.folder(name) / "cgroups.json"
            write_json(path, {"paths": [str(group) for group in groups]})

    @contextlib.contextmanager
    def door(self, name: str, timeout_s: float) -> Iterator[int | None]:
        """Keep everybody else from starting, stopping or removing a sandbox.

        No thread stands behind one door twice: one that it still holds is let go of.

        Yields:
            The lock's descriptor; None if the sandbox was gone when it was this caller's turn.

        Raises:
            ProviderTimeoutError: Somebody else took too long.
        """
        path = self.folder(name) / "door"
        held = self._held.doors
        left = held.pop(name, None)
        if left is not None:
            # Ctrl-C at the wrong moment: whoever deals with it may need the door.
            left.close()
        try:
            file = FileIO(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+")
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise _unavailable(f"{path} cannot be opened", error) from error
        held[name] = file
        try:
            limit = time.monotonic() + timeout_s
            while not try_lock(file.fileno()):
                if time.monotonic() > limit:
                    raise ProviderTimeoutError(
                        f"another process has been busy with the sandbox {name} for too long",
                        provider="local",
                    )
                time.sleep(0.002)
            yield file.fileno() if _is_same_file(file.fileno(), path) else None
        finally:
            if held.get(name) is file:
                del held[name]
                # Also for a process that has inherited it.
                fcntl.flock(file, fcntl.LOCK_UN)
            file.close()

    def detach(self, name: str) -> Path:
        """Make a sandbox disappear; call it behind its door, with the holder dead.

        Returns:
            What is left of it, to be given to ``clear``.
        """
        with _reported(f"the sandbox {name} cannot be removed"):
            gone = self.root / f".gone-{secrets.token_hex(8)}"
            self.folder(name).rename(gone)
        return gone

    def clear(self, gone: Path) -> None:
        """Remove the files of a sandbox that has disappeared."""
        with _reported(f"the files of a removed sandbox in {gone} cannot be removed"):
            remove_tree(gone)

    def _groups(self) -> set[int]:
        found = set()
        for entry in os.scandir(self.root):
            with contextlib.suppress(FileNotFoundError):  # somebody removed it meanwhile
                found.add(entry.stat(follow_symlinks=False).st_gid)
        return found

    def _sweep(self) -> None:
        """Remove what processes left behind that died while making or removing a sandbox."""
        for entry in os.scandir(self.root):
            if entry.name.startswith((".new-", ".gone-")):
                with contextlib.suppress(OSError):  # what cannot be removed must not be in the way
                    if time.time() - entry.stat(follow_symlinks=False).st_ctime > _STALE_S:
                        remove_tree(Path(entry.path))


def _fill(folder: Path, meta: Meta, run: Run) -> None:
    folder.mkdir(mode=0o700)
    make_guest_folders(folder, meta.uid)
    for name in ("lock", "door"):
        (folder / name).touch(mode=0o600)
    write_json(folder / "meta.json", asdict(meta))
    write_json(folder / "run.json", asdict(run))
    if meta.uid is not None:
        os.chown(folder, -1, meta.uid)
        folder.chmod(0o710)


def try_lock(fd: int) -> bool:
    """Take a lock if nobody has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _unavailable(what: str, error: Exception) -> ProviderUnavailableError:
    reason = error.strerror if isinstance(error, OSError) else error
    return ProviderUnavailableError(f"{what}: {reason}", provider="local")


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """Turn errors of the file system and damaged files into the provider's own."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise _unavailable(what, error) from error
