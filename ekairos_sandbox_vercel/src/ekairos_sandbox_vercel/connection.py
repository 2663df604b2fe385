"""A way into one session of a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderUnavailableError,
    SandboxNotRunningError,
    UnsupportedOperationError,
)
from ekairos_sandbox.provider import Connection, Ownership, SandboxRef, gone, no_checkpoint
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox.shell.chunks import Pieces
from ekairos_sandbox_vercel import waiting
from ekairos_sandbox_vercel.api import VercelApi
from ekairos_sandbox_vercel.carrying import command_of
from ekairos_sandbox_vercel.files import SessionFiles
from ekairos_sandbox_vercel.options import VercelOptions
from ekairos_sandbox_vercel.records import read_output
from ekairos_sandbox_vercel.views import RefusedError, View, is_meant

_SESSION_OVER = (404, 410, 422)
_MIN_EXTENSION_MS = 1000
_EXTENSION_ATTEMPTS = 4

T = TypeVar("T")


class VercelConnection(Connection):
    """A way into one session of a sandbox. Its id was learnt before; nothing is asked for it.

    It moves on to another session only when it has started that one itself, for a checkpoint; core
    then stores ``data``. So the record always names the session that is in use: whether a later
    one has all that happened in it is judged by that.
    """

    def __init__(
        self,
        api: VercelApi,
        ref: SandboxRef[VercelOptions],
        *,
        session_id: str,
        cwd: str | None,
        created: int | None = None,
        url: str | None = None,
        ownership: Ownership = "created",
        restored: bool = False,
    ) -> None:
        self.external_id = ref.external_id or ref.name
        self.url = url
        # "/" is where custom images without a working directory begin; it is hardly writable.
        self.home = cwd if cwd and cwd != "/" else None
        self.data = {"name": ref.name, "session": session_id, "cwd": cwd}
        if created is not None:
            self.data["created"] = created
        self.ownership = ownership
        self.restored = restored
        self._api = api
        self._ref = ref
        self._session_id = session_id
        self.clock = api.clock
        self.file_api = SessionFiles(self._unpack, self._open)

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run a script; see ``Connection.shell``. One request."""
        body = command_of(script, timeout_s=timeout_s)

        def run() -> bytes:
            with self._api.run(self._session_id, body, timeout_s=timeout_s) as records:
                return read_output(records, max_bytes=max_bytes)

        return self._in_session(run, "shell")

    def _unpack(self, archive: Pieces) -> None:
        self._in_session(lambda: self._api.write(self._session_id, archive), "write_file")

    def _open(self, path: str) -> Iterator[bytes]:
        return self._api.read(self._session_id, path)

    def preview_url(self, port: int) -> PreviewUrl:
        """Say where a port is that was declared when the sandbox was created. One request."""
        routes = self._running("preview_url").routes
        if port not in routes:
            declared = ", ".join(map(str, routes)) or "none"
            raise UnsupportedOperationError(
                f"port {port} was not declared when the sandbox was created; declared: {declared}",
                provider="vercel",
                operation="preview_url",
                hint=f"create it with ports=[{port}]",
            )
        return PreviewUrl(routes[port])

    def extend_timeout(self, timeout_ms: int) -> int | None:
        """Let the session live ``timeout_ms`` from now, or longer if it does so anyway."""
        for attempt in range(1, _EXTENSION_ATTEMPTS + 1):
            view = self._running("extend_timeout")
            if view.expires_at is None:
                break
            missing = self._api.clock.now_ms() + timeout_ms - view.expires_at
            if missing <= 0:
                return view.expires_at
            missing = max(missing, _MIN_EXTENSION_MS)
            try:
                self._api.extend(view.session_id, missing)
            except ProviderError as error:
                # Each extension adds to the others: before another one, look what this one did.
                if error.retryable is not True or attempt == _EXTENSION_ATTEMPTS:
                    raise
                self._api.clock.sleep(waiting.POLL_S)
            else:
                return view.expires_at + missing
        return None

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """Make a snapshot. The service ends the session for it; another one is started at once.

        So what runs inside ends, and ports may get other addresses. The comment is not kept.
        """
        view = self._persistent("create_checkpoint")
        snapshot = self._in_session(lambda: self._api.save(self._session_id), "create_checkpoint")
        self._start_from(snapshot.id, view, "create_checkpoint")
        return Checkpoint(snapshot.id, snapshot.created_at, comment)

    def list_checkpoints(self) -> list[Checkpoint]:
        """List the snapshots that were asked for, oldest first; those of stops are left out."""
        found = [s for s in self._api.snapshots(self._ref.name) if s.usable and s.manual]
        found.sort(key=lambda snapshot: snapshot.created_at or 0)
        return [Checkpoint(snapshot.id, snapshot.created_at) for snapshot in found]

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """Stop the sandbox, which saves it as it is, and start it from an earlier snapshot."""
        view = self._persistent("restore_checkpoint")
        if checkpoint_id not in {checkpoint.id for checkpoint in self.list_checkpoints()}:
            raise no_checkpoint(checkpoint_id, "vercel")
        self._check_room(view, checkpoint_id)
        with suppress(RefusedError):
            # It may be on its way down already.
            self._api.stop(view.session_id)
        self._start_from(checkpoint_id, view, "restore_checkpoint")

    def _check_room(self, view: View, checkpoint_id: str) -> None:
        """Make sure that the snapshot of the stop does not displace the one to go back to."""
        if view.keeps_snapshots is None:
            return
        found = [one for one in self._api.snapshots(self._ref.name) if one.usable]
        found.sort(key=lambda one: one.created_at or 0, reverse=True)
        if checkpoint_id in [one.id for one in found[view.keeps_snapshots - 1 :]]:
            raise UnsupportedOperationError(
                f"the sandbox keeps its last {view.keeps_snapshots} snapshots only, and the one "
                f"that a restore makes of the present state would displace {checkpoint_id!r}",
                provider="vercel",
                operation="restore_checkpoint",
                hint="create it with a larger keep_last_snapshots, or without",
            )

    def _start_from(self, snapshot_id: str, before: View, operation: str) -> None:
        """Start a sandbox that is on its way down with the files of a snapshot."""
        name = self._ref.name
        view = waiting.settled(self._api, name, not_session=before.session_id)
        if view is not None and not view.running:
            if view.current_snapshot_id != snapshot_id:
                self._api.use_snapshot(name, snapshot_id)
            view = waiting.started(self._api, name)
        if view is None:
            raise gone(self._ref, "vercel", operation=operation)
        if view.source_snapshot_id != snapshot_id:
            raise ProviderUnavailableError(
                f"the sandbox {name!r} was started by somebody else meanwhile, from other files",
                provider="vercel",
                operation=operation,
                outcome="unknown",
            )
        self.url = view.url
        self.data = {**self.data, "session": view.session_id}
        self._session_id = view.session_id

    def native(self) -> Any:
        """Return the SDK's ``SyncSandbox``; never the variant that deletes it on leaving ``with``.

        Asks the service once. It works until the provider is closed.

        Raises:
            UnsupportedOperationError: The SDK is not installed; says how to install it.
        """
        return self._api.sdk.get().get_sandbox(name=self._ref.name)

    def _in_session(self, call: Callable[[], T], operation: str) -> T:
        """Make a call; if the session is over, say what has become of the sandbox."""
        try:
            return call()
        except RefusedError as refused:
            if refused.status not in _SESSION_OVER:
                raise
            problem = self._why(refused, operation)
        raise problem

    def _why(self, refused: RefusedError, operation: str) -> ProviderError:
        view = self._look(operation)
        if view.session_id != self._session_id:
            return self._not_running(operation, "has ended the session that was in use")
        if not view.running:
            return self._ended(view, operation)
        return ProviderUnavailableError(
            f"vercel contradicts itself about the sandbox {self._ref.name!r}: {refused.message}",
            provider="vercel",
            operation=operation,
            status=refused.status,
            # Without a code of the service it may be the word of something in between.
            outcome="failed" if refused.refusal else "unknown",
        )

    def _persistent(self, operation: str) -> View:
        """Return the running sandbox if it can be started again after a snapshot."""
        view = self._running(operation)
        if not view.persistent:
            raise UnsupportedOperationError(
                "a snapshot ends the session, and only a persistent sandbox can be started again",
                provider="vercel",
                operation=operation,
                hint="create it with vercel={'persistent': True}",
            )
        return view

    def _running(self, operation: str) -> View:
        view = self._look(operation)
        if not view.running:
            raise self._ended(view, operation)
        return view

    def _look(self, operation: str) -> View:
        view = waiting.settled(self._api, self._ref.name)
        if view is None or not is_meant(self._ref, view, self.data):
            raise gone(self._ref, "vercel", operation=operation)
        return view

    def _ended(self, view: View, operation: str) -> ProviderError:
        if not view.persistent:
            return gone(self._ref, "vercel", operation=operation)
        return self._not_running(operation, f"is {view.status}")

    def _not_running(self, operation: str, what: str) -> SandboxNotRunningError:
        return SandboxNotRunningError(
            f"the sandbox {self._ref.name!r} {what}", provider="vercel", operation=operation
        )
