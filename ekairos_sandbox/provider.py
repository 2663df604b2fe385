"""What a provider implements: ``Provider``, ``Connection`` and the values they exchange.

A third party subclasses the two classes, points an entry point of the group
``ekairos_sandbox.providers`` at a module with a hook implementation, and runs the suite in
``ekairos_sandbox.testing``. Streams, stdin, environment, working directory, timeouts, background
commands, large output and retries are built once, in core, on ``Connection.shell``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox.provider_values import (
    Capability,
    ConfigField,
    CreateSpec,
    FieldSupport,
    OptionsT,
    Ownership,
    ProviderContext,
    ProviderOptions,
    SandboxInfo,
    SandboxRef,
    SandboxRunState,
    StatedLimit,
    Tags,
    gone,
    may_adopt,
    no_checkpoint,
    not_stored,
    same_sandbox,
)
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox.shell import files as shell_files
from ekairos_sandbox.shell.base import FileApi

__all__ = [
    "API_VERSION",
    "Capability",
    "ConfigField",
    "Connection",
    "CreateSpec",
    "FieldSupport",
    "OptionsT",
    "Ownership",
    "Provider",
    "ProviderContext",
    "ProviderOptions",
    "SandboxInfo",
    "SandboxRef",
    "SandboxRunState",
    "StatedLimit",
    "Tags",
    "gone",
    "may_adopt",
    "no_checkpoint",
    "not_stored",
    "same_sandbox",
]

API_VERSION = 1
"""Version of this contract; a provider states the one it was written for."""


class Connection(ABC):
    """A way into one running sandbox. Used by several threads at once.

    Attributes:
        external_id: The provider's own id; becomes ``externalSandboxId`` in the record.
        url: The sandbox's address, or None.
        home: Directory inside that lasts as long as the sandbox's files; None: the shell's HOME.
        data: JSON to keep in the record under ``params.<provider name>``.
        ownership: Meaningful after ``create`` only.
        restored: Meaningful after ``connect`` only: starting it brought back files that are older
            than its last use. Core then writes a new epoch.
        max_script_bytes: Longest script that ``shell`` takes; None means no limit.
        keep_awake: POSIX sh that keeps the machine awake while a command runs, for services that
            freeze one that no request is attached to; "" (default): not needed. It runs inside,
            as a function of a process beside the command, with ``$2`` a name of the command's
            own: first after some seconds, then every half minute with ``$1`` set to ``hold``,
            whose effect must last two minutes at least; and once with ``free`` when the command
            has ended. It must end within seconds and set no variables but ``ek_...``.
        file_api: The service's own way to move large files, used by ``read_file`` and
            ``write_file``; None: there is only ``shell``.
        clock: Time and sleep between repeated calls of ``read_file`` and ``write_file``.
    """

    external_id: str
    url: str | None = None
    home: str | None = None
    data: Mapping[str, Any] = {}
    ownership: Ownership = "created"
    restored: bool = False
    max_script_bytes: int | None = 131_071
    keep_awake: str = ""
    file_api: FileApi | None = None
    clock: Clock = SystemClock()

    @abstractmethod
    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run a POSIX sh script inside and return what it wrote to standard output.

        Blocks until the script has ended, at most ``timeout_s`` seconds by a deadline of the
        client's own. The script's exit code and standard error are of no interest: whatever
        core needs to know is framed in the output, so a few foreign bytes around it do no harm.
        Must not put the script into a URL or, where the service allows another way, an argv.

        Args:
            script: The script; never longer than ``max_script_bytes``.
            timeout_s: Seconds, greater than 0.
            max_bytes: Read no more output than this.

        Raises:
            SandboxGoneError: Proven not to exist (any more), by the provider's own answer.
            SandboxNotRunningError: It exists and is stopped; the script did not run.
            ProviderError: Anything else, ``outcome="failed"`` only if the script provably never
                began; more than ``max_bytes`` of output is ``outcome="unknown"`` too.
        """

    def read_file(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from ``offset`` on, in pieces of any size.

        The default goes through ``shell`` (faster where a connection has the calls of
        ``FileShell``, in ``ekairos_sandbox.shell.base``), and takes large files from ``file_api``.

        Raises:
            RemoteFileNotFoundError: No such file; raised before the first piece.
            RemoteFileError: A directory, or no permission.
            TransferError: The file changed or the transfer was cut.
        """
        return shell_files.read_file(self, path, offset=offset, clock=self.clock, api=self.file_api)

    def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
        """Write a file, making parent directories, replacing what was there in one step.

        The default goes through ``shell``, and gives large files to ``file_api``. Returns the
        number of bytes written. When ``chunks`` raises, nothing is replaced and the exception
        passes through.

        Raises:
            RemoteFileError: A directory is in the way, no permission, no space.
            TransferError: The size inside differs from what was sent.
        """
        return shell_files.write_file(
            self, path, chunks, mode=mode, clock=self.clock, api=self.file_api
        )

    def check_background(self, timeout_s: float | None) -> None:
        """Refuse a command without a waiting client that the service itself would end. No I/O.

        The default allows every one.

        Args:
            timeout_s: The command's timeout; None: it may run until the sandbox ends.

        Raises:
            UnsupportedOperationError: Says which setting lets it run. Nothing was attempted.
        """
        del timeout_s

    def native(self) -> Any:
        """Return the provider SDK's own object for this sandbox.

        Raises:
            UnsupportedOperationError: There is none, or its SDK is not installed; says which
                install line brings it.
        """
        raise UnsupportedOperationError("this provider has no SDK object", operation="native")

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """Store the state of the files. Needs ``Capability.CHECKPOINTS``."""
        raise UnsupportedOperationError("no checkpoints here", operation="create_checkpoint")

    def list_checkpoints(self) -> list[Checkpoint]:
        """List the stored states, oldest first. Needs ``Capability.CHECKPOINTS``."""
        raise UnsupportedOperationError("no checkpoints here", operation="list_checkpoints")

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """Return the files to a stored state. Needs ``Capability.CHECKPOINTS``.

        Running commands end. Core writes a new epoch afterwards.

        Raises:
            CheckpointNotFoundError: This sandbox has none of this id, whatever others have;
                nothing has changed. ``no_checkpoint`` builds it.
        """
        raise UnsupportedOperationError("no checkpoints here", operation="restore_checkpoint")

    def preview_url(self, port: int) -> PreviewUrl:
        """Say where a port can be reached. Needs ``Capability.PREVIEW_URL``."""
        raise UnsupportedOperationError("no preview URLs here", operation="preview_url")

    def extend_timeout(self, timeout_ms: int) -> int | None:
        """Let the sandbox live ``timeout_ms`` from now. Needs ``Capability.EXTEND_TIMEOUT``.

        Returns:
            When it will end now, epoch ms, or None without a limit.
        """
        raise UnsupportedOperationError("cannot be extended here", operation="extend_timeout")

    def close(self) -> None:
        """Let go of idle sockets and threads; the sandbox is not touched.

        Safe to call twice. Calls under way in other threads, and later ones, still work.
        """
        return


class Provider(ABC, Generic[OptionsT]):
    """One kind of sandbox service. One instance serves many threads and all its sandboxes.

    Constructing it does no I/O and starts no thread; missing credentials are a
    ``ConfigurationError`` at the first call that needs them.
    """

    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    options_model: ClassVar[type[ProviderOptions]] = ProviderOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    connection_class: ClassVar[type[Connection] | None] = None
    """The class of its connections, if importing it at load is cheap enough: then a declared
    capability that it lacks is refused at load, not by the conformance suite alone."""
    create_timeout_s: ClassVar[float] = 300.0
    """Seconds a creation may take before it counts as given up."""

    def __init__(self, context: ProviderContext | None = None) -> None:
        self.context = context or ProviderContext()

    @classmethod
    def field_support(cls, options: OptionsT | None = None) -> Mapping[ConfigField, FieldSupport]:
        """What happens to the config fields; ``options`` where that depends on them."""
        del options
        return {}

    @classmethod
    def chosen_name(cls, options: OptionsT) -> str | None:
        """The provider-side name that the user chose in the options, or None."""
        name = getattr(options, "name", None)
        return name if isinstance(name, str) else None

    @classmethod
    def check_spec(cls, spec: CreateSpec[OptionsT]) -> None:
        """Refuse, before anything is recorded, what the service would refuse. Does no I/O.

        Raises:
            ConfigurationError: Names the field and the limit.
        """
        del spec

    @abstractmethod
    def account(self) -> str:
        """Return the stable identity of the account in use: base URL + org, team, project.

        Never a token or a digest of one. Cheap after the first call.
        """

    @abstractmethod
    def create(self, spec: CreateSpec[OptionsT]) -> Connection:
        """Make the sandbox, or adopt the one that an earlier attempt made; return running.

        Idempotent on ``spec.name`` and ``spec.tags``; see ``may_adopt``. Blocks at most
        ``spec.timeout_s`` seconds.

        Raises:
            ProviderError: ``outcome="failed"`` only if nothing was left behind.
            IdConflictError: The name is taken by a sandbox that is not ours.
        """

    def attach(self, ref: SandboxRef[OptionsT]) -> Connection:
        """Return a connection without asking the provider, where that is possible.

        A sandbox that is stopped or gone shows itself at the first use. The default connects.
        """
        return self.connect(ref)

    @abstractmethod
    def connect(self, ref: SandboxRef[OptionsT]) -> Connection:
        """Return a connection to the running sandbox, starting it if it is stopped.

        Raises:
            SandboxGoneError: Proven not to exist any more.
            ProviderError: Anything else: unreachable is not gone.
        """

    @abstractmethod
    def inspect(self, ref: SandboxRef[OptionsT]) -> SandboxInfo:
        """Return what the provider says of a sandbox, without starting it.

        Raises:
            SandboxGoneError: Proven not to exist any more.
            ProviderError: Anything else.
        """

    @abstractmethod
    def find(self, name: str) -> SandboxInfo | None:
        """Look a sandbox up by its provider-side name; None when the provider has none."""

    @abstractmethod
    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """Yield every sandbox that bears the owner tag, all pages; raise if any page fails."""

    @abstractmethod
    def stop(self, ref: SandboxRef[OptionsT]) -> None:
        """Stop the sandbox, never starting it; whether its files outlive that is its kind's rule.

        Safe to call twice; one that is stopped or gone already is a success.
        """

    @abstractmethod
    def destroy(self, ref: SandboxRef[OptionsT]) -> None:
        """Delete the sandbox and what belongs to it.

        Gone already is a success, and so is one that somebody else deletes meanwhile.
        """

    def check(self) -> None:
        """Find out whether sandboxes could be created here and now, leaving nothing behind.

        For people who set things up: what is missing or refused is raised with a hint. The
        default looks for the settings that ``account`` needs; override it to ask the service.

        Raises:
            ConfigurationError: A setting is missing or wrong.
            SandboxError: Anything else that would keep a sandbox from being created.
        """
        self.account()

    def limits(self) -> Sequence[StatedLimit]:
        """Say what becomes of each limit here and now, where that depends on the machine.

        For people who set things up, as ``check``; what does not depend on the machine is in
        ``field_support``. The default has nothing to say.
        """
        return ()

    def close(self) -> None:
        """Let go of sockets and threads. Safe to call twice."""
        return
