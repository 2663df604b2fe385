"""The local provider, as core sees it. Importable everywhere; works on Linux."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from ekairos_sandbox.exceptions import IdConflictError, UnsupportedOperationError
from ekairos_sandbox.provider import (
    Capability,
    ConfigField,
    Connection,
    CreateSpec,
    FieldSupport,
    Ownership,
    Provider,
    ProviderContext,
    SandboxInfo,
    SandboxRef,
    gone,
    may_adopt,
    same_sandbox,
)
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox_local import seccomp
from ekairos_sandbox_local.options import LocalOptions

if TYPE_CHECKING:
    from ekairos_sandbox_local.limits import Limit
    from ekairos_sandbox_local.sandboxes import Sandboxes
    from ekairos_sandbox_local.state import Meta


class LocalConnection(Connection):
    """A way into one local sandbox. Holds nothing open; for many threads, also after a fork."""

    max_script_bytes = None

    def __init__(
        self, sandboxes: Sandboxes, meta: Meta, options: LocalOptions, ownership: Ownership
    ) -> None:
        from ekairos_sandbox_local import launch

        self.external_id = meta.external_id
        self.home, _ = launch.guest_folders(sandboxes.state, meta.name, options)
        self.data = {"isolation": options.isolation, "network": options.network}
        self.ownership = ownership
        self._sandboxes = sandboxes
        self._meta = meta

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run a script of any size inside; see ``Connection.shell``.

        It returns as soon as the script itself has ended, whatever it left running in the
        background. When ``timeout_s`` is over the script runs on.
        """
        return self._sandboxes.shell(self._meta, script, timeout_s=timeout_s, max_bytes=max_bytes)

    def shell_sending(
        self, script: bytes, data: bytes, *, timeout_s: float, max_bytes: int
    ) -> bytes:
        """Run a script that finds ``data`` in its descriptor 4; see ``FileShell``."""
        from ekairos_sandbox_local import memory_files

        file = memory_files.memory_file(data)
        try:
            return self._sandboxes.shell(
                self._meta, script, timeout_s=timeout_s, max_bytes=max_bytes, file=file
            )
        finally:
            os.close(file)

    def shell_receiving(
        self, script: bytes, room: int, *, timeout_s: float, max_bytes: int
    ) -> tuple[bytes, bytes]:
        """Run a script that may write ``room`` bytes into its descriptor 4; see ``FileShell``."""
        from ekairos_sandbox_local import memory_files

        file = memory_files.memory_room(room)
        try:
            output = self._sandboxes.shell(
                self._meta, script, timeout_s=timeout_s, max_bytes=max_bytes, file=file
            )
            return output, memory_files.written_into(file)
        finally:
            os.close(file)

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """Store the state of home and ``/tmp``, while the sandbox runs on.

        Files that are written at that moment may be caught half-way. Data is shared with the
        present files where the file system can do that, and copied where it cannot. Sockets are
        left out. Until it is done nobody can stop or destroy the sandbox.

        Raises:
            ProviderError: There are too many checkpoints, or too much in this one.
        """
        return self._sandboxes.create_checkpoint(self._meta, comment)

    def list_checkpoints(self) -> list[Checkpoint]:
        """List the stored states, oldest first."""
        return self._sandboxes.list_checkpoints(self._meta)

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """Return home and ``/tmp`` to a stored state, in one step; everything that runs ends.

        Raises:
            ProviderError: There is no such checkpoint, or it cannot be copied: nothing has changed.
        """
        self._sandboxes.restore_checkpoint(self._meta, checkpoint_id)

    def preview_url(self, port: int) -> PreviewUrl:
        """Say where a port can be reached from this machine; needs ``network="host"``."""
        if self.data["network"] != "host":
            raise UnsupportedOperationError(
                "no port of this sandbox can be reached: it has a network of its own",
                provider="local",
                operation="preview_url",
                hint="create it with local={'network': 'host'}",
            )
        return PreviewUrl(f"http://127.0.0.1:{port}")

    def extend_timeout(self, timeout_ms: int) -> int | None:
        """Let the sandbox live ``timeout_ms`` from now, never shorter than it would have lived.

        Returns:
            When it will end now, epoch ms, or None if it has no end.
        """
        return self._sandboxes.extend(self._meta, timeout_ms)


class LocalProvider(Provider[LocalOptions]):
    """Sandboxes on this machine, isolated by Linux namespaces; no account, no root needed.

    A sandbox's processes live on when the client ends. Its files stay until it is destroyed, also
    when it is stopped, its ``timeout_ms`` is over, or the machine restarts. ``connect`` starts
    such a sandbox again, with its whole ``timeout_ms`` anew if that was over or it was stopped.
    """

    name: ClassVar[str] = "local"
    options_model = LocalOptions
    capabilities = frozenset(
        (Capability.CHECKPOINTS, Capability.PREVIEW_URL, Capability.EXTEND_TIMEOUT)
    )
    create_timeout_s: ClassVar[float] = 60.0

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        self._sandboxes: Sandboxes | None = None

    @classmethod
    def field_support(
        cls, options: LocalOptions | None = None
    ) -> Mapping[ConfigField, FieldSupport]:
        """What happens to the config fields."""
        options = options or LocalOptions()
        held = options.isolation == "bubblewrap" and seccomp.supported(platform.machine())
        return {
            "timeout_ms": FieldSupport("enforced"),
            "runtime": FieldSupport("enforced", "a program of this name must be installed"),
            "vcpus": FieldSupport("enforced", "at most so many CPUs, rounded up to whole ones")
            if held
            else FieldSupport("recorded", "programs inside can widen their CPU affinity again"),
            "ports": FieldSupport("enforced", "reachable on this machine as they are")
            if options.network == "host"
            else FieldSupport("refused", "set local={'network': 'host'} to reach ports"),
        }

    def account(self) -> str:
        """Return the identity of this machine's collection of sandboxes for this user."""
        return self._local().state.account()

    def create(self, spec: CreateSpec[LocalOptions]) -> Connection:
        """Make and start a sandbox, or adopt the one made before; see ``Provider.create``.

        Raises:
            ConfigurationError: The runtime or a path to show is missing, or the state folder is
                not fit for use.
            UnsupportedOperationError: This machine does not allow isolation; says why.
        """
        local = self._local()
        local.state.account()
        while True:
            found = local.state.read(spec.name)
            if found is not None:
                ownership = may_adopt(spec, self._info(found))
                if ownership is None:
                    raise IdConflictError(
                        f"the name {spec.name!r} is taken by another sandbox",
                        provider=self.name,
                        operation="create",
                    )
                local.start(found, timeout_s=spec.timeout_s)
                return self._connection(found, ownership)
            made = local.make(spec)
            if made is not None:
                return self._connection(made, "created")

    def attach(self, ref: SandboxRef[LocalOptions]) -> Connection:
        """Return a connection; a stopped sandbox shows itself at the first use."""
        return self._connection(self._require(ref, "attach"))

    def connect(self, ref: SandboxRef[LocalOptions]) -> Connection:
        """Return a connection to the running sandbox, starting it if needed."""
        meta = self._require(ref, "connect")
        self._local().start(meta)
        return self._connection(meta)

    def inspect(self, ref: SandboxRef[LocalOptions]) -> SandboxInfo:
        """Return what a sandbox is and does."""
        return self._info(self._require(ref, "inspect"))

    def find(self, name: str) -> SandboxInfo | None:
        """Look a sandbox up by name."""
        local = self._local()
        local.state.account()
        found = local.state.read(name)
        return None if found is None else self._info(found)

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """Yield every sandbox that bears the owner tag."""
        local = self._local()
        local.state.account()
        for name in local.state.names():
            meta = local.state.read(name)
            if meta is not None and meta.tags.owner == owner:
                yield self._info(meta)

    def stop(self, ref: SandboxRef[LocalOptions]) -> None:
        """End everything in the sandbox and keep its files."""
        meta = self._lookup(ref)
        if meta is not None:
            self._local().stop(meta)

    def destroy(self, ref: SandboxRef[LocalOptions]) -> None:
        """End everything in the sandbox and remove its files."""
        meta = self._lookup(ref)
        if meta is not None:
            self._local().destroy(meta)

    def limits(self, options: LocalOptions | None = None) -> list[Limit]:
        """Return what becomes of each limit on this machine: name, level and a note.

        The level is ``"enforced"``, ``"best effort"`` or ``"impossible"``; what is impossible is
        refused by ``create``. Makes empty control groups for a moment, to see whether it may.

        Args:
            options: They decide too; None means the defaults.
        """
        self._local()
        from ekairos_sandbox_local.limits import limits

        return limits(options)

    def check(self) -> None:
        """Find out whether this machine allows isolated sandboxes; once per instance.

        Makes one and removes it again, within a second.

        Raises:
            SandboxError: It does not; says why and what to change.
        """
        self._local().trial()

    def _local(self) -> Sandboxes:
        if self._sandboxes is None:
            if sys.platform != "linux":
                raise UnsupportedOperationError(
                    "local sandboxes need Linux", provider=self.name, hint="use another provider"
                )
            from ekairos_sandbox_local.sandboxes import Sandboxes

            self._sandboxes = Sandboxes(self.context)
        return self._sandboxes

    def _lookup(self, ref: SandboxRef[LocalOptions]) -> Meta | None:
        meta = self._local().state.read(ref.name)
        if meta is None or not same_sandbox(ref, self._identity(meta)):
            return None
        return meta

    def _require(self, ref: SandboxRef[LocalOptions], operation: str) -> Meta:
        meta = self._lookup(ref)
        if meta is None:
            raise gone(ref, self.name, operation=operation)
        return meta

    def _identity(self, meta: Meta) -> SandboxInfo:
        return SandboxInfo(meta.name, meta.external_id, tags=meta.tags, created_at=meta.created_at)

    def _info(self, meta: Meta) -> SandboxInfo:
        return SandboxInfo(
            meta.name,
            meta.external_id,
            state=self._local().run_state(meta),
            tags=meta.tags,
            created_at=meta.created_at,
        )

    def _connection(self, meta: Meta, ownership: Ownership = "created") -> LocalConnection:
        from ekairos_sandbox_local import launch

        return LocalConnection(self._local(), meta, launch.options_of(meta), ownership)
