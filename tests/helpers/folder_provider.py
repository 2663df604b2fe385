"""A complete small provider: each sandbox is a folder on this machine, its shell the host's ``sh``.

No isolation at all; for tests. State is on disk, so that several processes see the same sandboxes.
Settings come from the context's environment:

* ``EKAIROS_FOLDER_ROOT``: where everything is kept.
* ``EKAIROS_FOLDER_ACCOUNT``: which account, ``main`` by default.
* ``EKAIROS_FOLDER_FAULTS``: what it does wrong, names with commas between them; see ``FAULTS``.
* ``EKAIROS_FOLDER_TOKEN``: a secret, for what must not be shown.
* ``EKAIROS_FOLDER_NATIVE``: if set, files do not go through ``shell``.

While a file ``unreachable`` is in the root, every call fails; while one named ``breaks-off`` is, a
list does after its first entry.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RemoteFileError,
    RemoteFileNotFoundError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import (
    Capability,
    ConfigField,
    Connection,
    CreateSpec,
    FieldSupport,
    Ownership,
    Provider,
    ProviderContext,
    ProviderOptions,
    SandboxInfo,
    SandboxRef,
    Tags,
    gone,
    may_adopt,
    no_checkpoint,
    same_sandbox,
)
from ekairos_sandbox.results import Checkpoint, PreviewUrl

MARK = "EKAIROS_FOLDER_SANDBOX"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

FAULTS = frozenset(
    {
        "account_changes",
        "account_tells_token",
        "adopts_stopped",
        "adopts_strangers",
        "borrows_unasked",
        "connect_recreates",
        "create_not_idempotent",
        "deadline_ignored",
        "destroy_hides_trouble",
        "destroy_keeps",
        "destroy_twice_fails",
        "destroys_any_id",
        "exit_code_wrong",
        "find_raises",
        "finds_by_part",
        "forget_tags",
        "gone_on_timeout",
        "ignores_tags",
        "inspect_starts",
        "leaks_environment",
        "list_owned_misses",
        "lists_other_owners",
        "lose_stdout_tail",
        "loses_files_on_stop",
        "max_bytes_ignored",
        "missing_file_is_empty",
        "mode_ignored",
        "read_file_short",
        "resends",
        "restore_does_nothing",
        "stderr_in_stdout",
        "stop_deletes_borrowed",
        "stop_keeps_processes",
        "stop_starts",
        "stopped_is_gone",
        "stopped_still_runs_scripts",
        "times_in_seconds",
        "undeclared_preview",
        "unknown_checkpoint_is_ignored",
        "write_not_atomic",
    }
)
_FILE_FAULTS = {"missing_file_is_empty", "mode_ignored", "read_file_short", "write_not_atomic"}


class FolderOptions(ProviderOptions):
    """Options: a name of the user's choice."""

    name: str | None = None


class FolderConnection(Connection):
    """A way into one folder."""

    max_script_bytes = None

    def __init__(
        self, provider: FolderProvider, path: Path, meta: Mapping[str, Any], ownership: Ownership
    ) -> None:
        self.provider = provider
        self.path = path
        self.external_id = str(meta["external_id"])
        self.home = str(path / "home")
        self.ownership = ownership
        self.data = {"name": meta["name"]}

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        if "resends" in self.provider.faults:
            self._run(script, timeout_s, max_bytes)
        return self._run(script, timeout_s, max_bytes)

    def _run(self, script: bytes, timeout_s: float, max_bytes: int) -> bytes:
        provider = self.provider
        provider.reach()
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
            given.write(script)
            given.seek(0)
            # Whoever stops it waits for the door, so it sees every process that was let in.
            with provider.door(self.path, fcntl.LOCK_SH):
                meta = provider.meta(self.path)
                if meta is None:
                    raise SandboxGoneError("the folder does not exist", provider=provider.name)
                if (
                    meta["state"] != "running"
                    and "stopped_still_runs_scripts" not in provider.faults
                ):
                    if "stopped_is_gone" in provider.faults:
                        raise SandboxGoneError("the folder is stopped", provider=provider.name)
                    raise SandboxNotRunningError("the folder is stopped", provider=provider.name)
                errors = output if "stderr_in_stdout" in provider.faults else subprocess.DEVNULL
                process = subprocess.Popen(
                    ["sh"],
                    stdin=given,
                    stdout=output,
                    stderr=errors,
                    cwd="/",
                    env={
                        **(os.environ if "leaks_environment" in provider.faults else {}),
                        "PATH": PATH,
                        "HOME": str(self.home),
                        MARK: self.external_id,
                    },
                    start_new_session=True,
                )
            try:
                process.wait(None if "deadline_ignored" in provider.faults else timeout_s)
            except subprocess.TimeoutExpired:
                raise ProviderTimeoutError("no answer in time", outcome="unknown") from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            output.seek(0)
            answer = output.read()
        if len(answer) > max_bytes and "max_bytes_ignored" not in provider.faults:
            raise ProviderError("more output than allowed", outcome="unknown", retryable=False)
        if "lose_stdout_tail" in provider.faults:
            answer = answer[:40_000]
        if "exit_code_wrong" in provider.faults:
            answer = re.sub(rb":exited:\d+:", b":exited:0:", answer)
        return answer

    def native(self) -> Path:
        return self.path

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        self.provider.reach()
        made = Checkpoint(secrets.token_hex(4), time.time_ns() // 1_000_000, comment)
        folder = self.path / "checkpoints" / made.id
        folder.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(self.home), str(folder / "home")], check=True)
        about = {"created_at": made.created_at, "comment": comment, "order": time.monotonic_ns()}
        (folder / "about.json").write_text(json.dumps(about))
        return made

    def list_checkpoints(self) -> list[Checkpoint]:
        self.provider.reach()
        found = []
        for path in (self.path / "checkpoints").glob("*/about.json"):
            about = json.loads(path.read_text())
            made = Checkpoint(path.parent.name, about["created_at"], about["comment"])
            found.append((about["order"], made))
        return [made for _, made in sorted(found, key=lambda item: item[0])]

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        self.provider.reach()
        if "restore_does_nothing" in self.provider.faults:
            return
        source = self.path / "checkpoints" / checkpoint_id / "home"
        if not source.is_dir():
            if "unknown_checkpoint_is_ignored" in self.provider.faults:
                return
            raise no_checkpoint(checkpoint_id, self.provider.name)
        self.provider.end_processes(self.external_id)
        shutil.rmtree(str(self.home))
        subprocess.run(["cp", "-a", str(source), str(self.home)], check=True)

    def preview_url(self, port: int) -> PreviewUrl:
        return PreviewUrl(f"http://127.0.0.1:{port}/", token="token-5d1c")

    def extend_timeout(self, timeout_ms: int) -> int | None:
        return time.time_ns() // 1_000_000 + timeout_ms


class NativeFolderConnection(FolderConnection):
    """Files without the shell, with mistakes on demand."""

    def read_file(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        self._check()
        source = Path(str(self.home), path)
        faults = self.provider.faults
        if not source.exists():
            if "missing_file_is_empty" in faults:
                return iter(())
            raise RemoteFileNotFoundError(f"no such file: {path}", path=path)
        if not source.is_file():
            raise RemoteFileError(f"no regular file: {path}", path=path)
        size = source.stat().st_size - ("read_file_short" in faults)
        return self._pieces(source, offset, size)

    def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
        self._check()
        target = Path(str(self.home), path)
        faults = self.provider.faults
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise IsADirectoryError
            if "write_not_atomic" in faults:
                part = target
            with part.open("wb") as file:
                part.chmod(0o644 if "mode_ignored" in faults else mode)
                size = sum(file.write(chunk) for chunk in chunks)
            part.replace(target)
        except (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError) as error:
            raise RemoteFileError(f"cannot be written: {path}", path=path) from error
        except BaseException:
            if part != target:
                part.unlink(missing_ok=True)
            raise
        return size

    def _check(self) -> None:
        self.provider.reach()
        meta = self.provider.meta(self.path)
        if meta is None:
            raise SandboxGoneError("the folder does not exist", provider=self.provider.name)
        if meta["state"] != "running":
            self.provider.refuse_stopped()

    @staticmethod
    def _pieces(source: Path, offset: int, size: int) -> Iterator[bytes]:
        with source.open("rb") as file:
            file.seek(offset)
            left = max(0, size - offset)
            while left and (piece := file.read(min(left, 1 << 20))):
                left -= len(piece)
                yield piece


class FolderProvider(Provider[FolderOptions]):
    """Folders below ``<root>/<account>``, one for each sandbox, named by its external id."""

    name: ClassVar[str] = "folder"
    options_model = FolderOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)
    create_timeout_s: ClassVar[float] = 30.0

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        environ = self.context.environ
        self.faults = frozenset(environ.get("EKAIROS_FOLDER_FAULTS", "").split(",")) - {""}
        unknown = self.faults - FAULTS
        if unknown:
            raise ConfigurationError(f"unknown faults: {', '.join(sorted(unknown))}")
        if "undeclared_preview" in self.faults:
            self.capabilities = frozenset(Capability) - {Capability.PREVIEW_URL}  # type: ignore[misc]

    @classmethod
    def field_support(
        cls, options: FolderOptions | None = None
    ) -> Mapping[ConfigField, FieldSupport]:
        return {
            "timeout_ms": FieldSupport("recorded", "folders live until they are destroyed"),
            "vcpus": FieldSupport("recorded"),
            "runtime": FieldSupport("enforced"),
            "ports": FieldSupport("refused", "folders have no ports"),
        }

    @property
    def root(self) -> Path:
        """Where the account's folders are."""
        environ = self.context.environ
        if "EKAIROS_FOLDER_ROOT" not in environ:
            raise ConfigurationError("EKAIROS_FOLDER_ROOT is not set", provider=self.name)
        root = Path(environ["EKAIROS_FOLDER_ROOT"], environ.get("EKAIROS_FOLDER_ACCOUNT", "main"))
        root.mkdir(parents=True, exist_ok=True)
        return root

    def account(self) -> str:
        suffix = f"?{secrets.token_hex(4)}" if "account_changes" in self.faults else ""
        if "account_tells_token" in self.faults:
            suffix += f"?token={self.context.environ['EKAIROS_FOLDER_TOKEN']}"
        return f"folder://{self.root}{suffix}"

    def create(self, spec: CreateSpec[FolderOptions]) -> Connection:
        self.reach()
        with self.door(self.root, fcntl.LOCK_EX):
            path = None if "create_not_idempotent" in self.faults else self._named(spec.name)
            if path is None:
                tags = None if "forget_tags" in self.faults else spec.tags
                return self._connection(self.make(spec.name, tags), "created")
            ownership = may_adopt(spec, self._info(path))
            if ownership is None and "adopts_strangers" in self.faults:
                ownership = "adopted"
            if ownership is None and "borrows_unasked" in self.faults:
                ownership = "borrowed" if self._info(path).tags is None else None
            if ownership is None:
                raise IdConflictError(f"the name {spec.name!r} is taken", provider=self.name)
            if "adopts_stopped" not in self.faults:
                self._set_state(path, "running")
            return self._connection(path, ownership)

    def attach(self, ref: SandboxRef[FolderOptions]) -> Connection:
        return self._connection(self._require(ref, "attach"))

    def connect(self, ref: SandboxRef[FolderOptions]) -> Connection:
        if "connect_recreates" in self.faults and self._lookup(ref) is None:
            return self._connection(self.make(ref.name, ref.tags))
        path = self._require(ref, "connect")
        self._set_state(path, "running")
        return self._connection(path)

    def inspect(self, ref: SandboxRef[FolderOptions]) -> SandboxInfo:
        path = self._require(ref, "inspect")
        if "inspect_starts" in self.faults:
            self._set_state(path, "running")
        return self._info(path)

    def find(self, name: str) -> SandboxInfo | None:
        self.reach()
        path = self._named(name)
        if path is None and "find_raises" in self.faults:
            raise SandboxGoneError("no such folder", provider=self.name)
        return None if path is None else self._info(path)

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        self.reach()
        skip = "list_owned_misses" in self.faults
        for path in self._paths():
            info = self._look(path)
            if info is None:
                continue
            mine = info.tags is not None and info.tags.owner == owner
            if mine and skip:
                skip = False
            elif mine or "lists_other_owners" in self.faults:
                yield info
                if (self.root.parent / "breaks-off").exists():
                    raise ProviderUnavailableError("no second page", provider=self.name)

    def stop(self, ref: SandboxRef[FolderOptions]) -> None:
        path = self._lookup(ref)
        if path is None:
            return
        meta = self.meta(path)
        if "stop_starts" in self.faults and meta is not None and meta["state"] == "stopped":
            self._set_state(path, "running")
            return
        if ref.borrowed and "stop_deletes_borrowed" in self.faults:
            self.destroy(ref)
            return
        self._set_state(path, "stopped")
        if "stop_keeps_processes" not in self.faults:
            self.end_processes(path.name)
        if "loses_files_on_stop" in self.faults:
            (path / "home" / "kept").unlink(missing_ok=True)

    def destroy(self, ref: SandboxRef[FolderOptions]) -> None:
        if "destroy_hides_trouble" in self.faults and (self.root.parent / "unreachable").exists():
            return
        path = self._lookup(ref)
        if path is None and "destroy_twice_fails" in self.faults:
            raise gone(ref, self.name, operation="destroy")
        if path is None or "destroy_keeps" in self.faults:
            return
        self._set_state(path, "stopped")
        self.end_processes(path.name)
        with self.door(path, fcntl.LOCK_EX):
            if path.exists():
                # Out of sight at once, for whoever looks while it is cleared away.
                shutil.rmtree(path.rename(path.with_name(f".{path.name}.gone")))

    def make(self, name: str, tags: Tags | None) -> Path:
        """Make a folder of this name, whatever else there is."""
        external_id = secrets.token_hex(8)
        meta = {
            "name": name,
            "external_id": external_id,
            "tags": tags.as_dict() if tags else {},
            "state": "running",
            "created_at": self.context.clock.now_ms()
            // (1000 if "times_in_seconds" in self.faults else 1),
        }
        draft = self.root / f".{external_id}"
        (draft / "home").mkdir(parents=True)
        (draft / "meta.json").write_text(json.dumps(meta))
        return draft.rename(self.root / external_id)

    def reach(self) -> None:
        """Fail while the provider is unreachable."""
        if (self.root.parent / "unreachable").exists():
            if "gone_on_timeout" in self.faults:
                raise SandboxGoneError("no answer", provider=self.name)
            raise ProviderUnavailableError("no answer", provider=self.name)

    def refuse_stopped(self) -> None:
        """Say that a folder is stopped."""
        if "stopped_is_gone" in self.faults:
            raise SandboxGoneError("the folder is stopped", provider=self.name)
        if "stopped_still_runs_scripts" not in self.faults:
            raise SandboxNotRunningError("the folder is stopped", provider=self.name)

    def meta(self, path: Path) -> dict[str, Any] | None:
        """Read what is known of a folder; None if it is gone."""
        try:
            meta: dict[str, Any] = json.loads((path / "meta.json").read_text())
        except FileNotFoundError:
            return None
        return meta

    @contextmanager
    def door(self, path: Path, kind: int) -> Iterator[None]:
        """Hold a lock beside a folder."""
        with Path(f"{path}.lock").open("ab") as file:
            fcntl.flock(file, kind)
            yield

    def end_processes(self, external_id: str) -> None:
        """Kill every process that bears the folder's mark, until none is left."""
        mark = f"{MARK}={external_id}".encode()
        while True:
            found = [pid for pid in _processes() if _bears(pid, mark)]
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not found:
                return
            time.sleep(0.005)

    def _set_state(self, path: Path, state: str) -> None:
        with self.door(path, fcntl.LOCK_EX):
            meta = self.meta(path)
            if meta is not None and meta["state"] != state:
                part = path / f"meta.{secrets.token_hex(4)}"
                part.write_text(json.dumps({**meta, "state": state}))
                part.replace(path / "meta.json")

    def _paths(self) -> list[Path]:
        return sorted(path.parent for path in self.root.glob("[0-9a-f]*/meta.json"))

    def _named(self, name: str) -> Path | None:
        for path in self._paths():
            meta = self.meta(path)
            if meta is None:
                continue
            if meta["name"] == name or ("finds_by_part" in self.faults and name in meta["name"]):
                return path
        return None

    def _lookup(self, ref: SandboxRef[FolderOptions]) -> Path | None:
        self.reach()
        path = self._named(ref.name)
        if path is None or "destroys_any_id" in self.faults:
            return path
        if "ignores_tags" in self.faults:
            ref = replace(ref, tags=None)
        info = self._look(path)
        return path if info is not None and same_sandbox(ref, info) else None

    def _require(self, ref: SandboxRef[FolderOptions], operation: str) -> Path:
        path = self._lookup(ref)
        if path is None:
            raise gone(ref, self.name, operation=operation)
        return path

    def _info(self, path: Path) -> SandboxInfo:
        info = self._look(path)
        if info is None:
            raise SandboxGoneError("the folder does not exist", provider=self.name)
        return info

    def _look(self, path: Path) -> SandboxInfo | None:
        meta = self.meta(path)
        if meta is None:
            return None
        return SandboxInfo(
            name=meta["name"],
            external_id=meta["external_id"],
            state=meta["state"],
            tags=Tags.from_dict(meta["tags"]),
            created_at=meta["created_at"],
        )

    def _connection(self, path: Path, ownership: Ownership = "created") -> FolderConnection:
        meta = self.meta(path)
        if meta is None:
            raise SandboxGoneError("the folder does not exist", provider=self.name)
        native = "EKAIROS_FOLDER_NATIVE" in self.context.environ or self.faults & _FILE_FAULTS
        kind = NativeFolderConnection if native else FolderConnection
        return kind(self, path, meta, ownership)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _bears(pid: int, mark: bytes) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        # A zombie keeps no environment, so that it is not counted.
        return mark in environ.split(b"\0")
    except OSError:
        return False
