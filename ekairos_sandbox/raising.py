"""The verbs that raise and return plain data: what Python code will mostly use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, TypeAlias

from pydantic import ValidationError

from ekairos_sandbox import checks
from ekairos_sandbox.binding import bound
from ekairos_sandbox.commands import Commands, RaisingCommand
from ekairos_sandbox.connections import Live
from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.files import content, transfer
from ekairos_sandbox.files.content import FileWrite
from ekairos_sandbox.jobs.arguments import Input, job_spec
from ekairos_sandbox.jobs.spec import check_command_id
from ekairos_sandbox.jobs.stream import CommandStream
from ekairos_sandbox.models import (
    MAX_TIMEOUT_MS,
    RecordQuery,
    SandboxConfig,
    SandboxRecord,
    check_sandbox_id,
)
from ekairos_sandbox.operations import OnGone, Operations
from ekairos_sandbox.plans import describe, parse_config
from ekairos_sandbox.provider import Capability
from ekairos_sandbox.reconcile import Reconciler
from ekairos_sandbox.results import (
    Checkpoint,
    CommandResult,
    CommandState,
    OutputChunk,
    PreviewUrl,
    ReconcileReport,
    RecordPage,
    TransferStats,
)

__all__ = ["Input", "Progress", "RaisingCommand", "RaisingSandbox", "RaisingService"]

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes moved so far and the total, or None if that is not known yet."""

_MAX_AGE_S = 10**12


class RaisingService:
    """Sandboxes by durable id. Every failure is an exception of ``SandboxError``.

    Get one as ``SandboxService(...).raising``. It serves many threads and survives a fork.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._commands = Commands(operations)

    # Sandboxes

    def create_sandbox(
        self,
        /,
        config: SandboxConfig | Mapping[str, Any] | None = None,
        *,
        sandbox_id: str | None = None,
        **fields: Any,
    ) -> RaisingSandbox:
        """Create a sandbox and return its handle; its ``sandbox_id`` is good in any process.

        Blocks until a command can be run in it, at most the provider's ``create_timeout_s``.

        Args:
            config: What to create; a model or a mapping.
            sandbox_id: An id of your choice, a UUID. The same call may then be repeated, for
                example by a task queue: it returns the same sandbox.
            **fields: Fields of ``SandboxConfig``, on top of ``config``.

        Raises:
            ConfigurationError: The config or a setting is wrong. Nothing was made.
            PluginError: The provider is not installed or not usable. Nothing was made.
            IdConflictError: The id stands for a sandbox of another config.
            ProviderError: The provider refused or failed. Nothing is left running, or, if that
                could not be made sure, the record says so and ``reconcile`` cleans up.
        """
        live = self._operations.create(parse_config(config, **fields), sandbox_id)
        return RaisingSandbox(self, live.sandbox_id)

    def get_sandbox(self, sandbox_id: str) -> RaisingSandbox:
        """Return the handle of a sandbox. No I/O: whether it exists shows at first use.

        Raises:
            ConfigurationError: The id is no UUID.
        """
        return RaisingSandbox(self, check_sandbox_id(sandbox_id))

    def get_record(self, sandbox_id: str) -> SandboxRecord:
        """Read the record of a sandbox.

        Raises:
            RecordNotFoundError: There is none.
        """
        return self._operations.ledger.get(check_sandbox_id(sandbox_id))

    def list_sandboxes(
        self,
        *,
        status: str | Sequence[str] | None = None,
        provider: str | None = None,
        purpose: str | None = None,
        created_after: int | None = None,
        created_before: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RecordPage:
        """Return one page of records, newest first. Says what is recorded, not what runs.

        Args:
            status: Only this status, or any of these.
            provider: Only this provider.
            purpose: Only this purpose.
            created_after: Only those created at or after this time, epoch ms.
            created_before: Only those created before this time, epoch ms.
            limit: Records per page, 1 to 500.
            cursor: ``RecordPage.cursor`` of the page before.

        Raises:
            ConfigurationError: An argument is out of range.
        """
        query = _query(
            status=status,
            provider=provider,
            purpose=purpose,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
        )
        return self._operations.ledger.repository.list(query)

    def iter_sandboxes(
        self,
        *,
        status: str | Sequence[str] | None = None,
        provider: str | None = None,
        purpose: str | None = None,
        created_after: int | None = None,
        created_before: int | None = None,
    ) -> Iterator[SandboxRecord]:
        """Yield all matching records, newest first, reading page by page."""
        query = _query(
            status=status,
            provider=provider,
            purpose=purpose,
            created_after=created_after,
            created_before=created_before,
        )
        return self._operations.ledger.repository.iterate(query)

    def reconnect_to_sandbox(self, sandbox_id: str) -> RaisingSandbox:
        """Connect to a sandbox, starting it if it is stopped; never create one.

        Raises:
            SandboxGoneError: It does not exist any more.
            SandboxNotReadyError: It is still being created.
            SandboxFailedError: It never came to be.
        """
        live = self._operations.reconnect(sandbox_id)
        return RaisingSandbox(self, live.sandbox_id)

    def stop_sandbox(self, sandbox_id: str) -> SandboxRecord:
        """Shut a sandbox down. Safe to repeat.

        From then on commands are refused. Whether its files outlive the stop depends on the
        provider; ``reconnect_to_sandbox`` starts it again if it still exists.

        Raises:
            ProviderError: The stop is recorded but the provider could not be told; call again,
                or leave it to ``reconcile``.
        """
        return self._operations.stop(sandbox_id, destroy=False)

    def destroy_sandbox(self, sandbox_id: str) -> SandboxRecord:
        """Stop a sandbox and delete it, with its files, at the provider. Safe to repeat.

        The record stays, with the status ``shutdown``. A borrowed sandbox is deleted too.

        Raises:
            ProviderError: It is recorded but the provider could not be told; call again, or
                leave it to ``reconcile``.
        """
        return self._operations.stop(sandbox_id, destroy=True)

    def extend_timeout(self, sandbox_id: str, timeout_ms: int) -> int | None:
        """Let the sandbox live ``timeout_ms`` milliseconds from now.

        Returns:
            When it will end now, epoch ms, or None without a limit.

        Raises:
            UnsupportedOperationError: The provider cannot do that.
        """
        timeout_ms = checks.integer(timeout_ms, "timeout_ms", 1000, MAX_TIMEOUT_MS)

        def act(live: Live) -> int | None:
            self._operations.need(live, Capability.EXTEND_TIMEOUT, "extend_timeout")
            return live.connection.extend_timeout(timeout_ms)

        return self._operations.on(sandbox_id, act)[0]

    def preview_url(self, sandbox_id: str, port: int) -> PreviewUrl:
        """Say where a port of the sandbox can be reached from outside.

        Raises:
            UnsupportedOperationError: The provider cannot do that, or not for this port.
        """
        port = checks.integer(port, "port", 1, 65535)

        def act(live: Live) -> PreviewUrl:
            self._operations.need(live, Capability.PREVIEW_URL, "preview_url")
            return live.connection.preview_url(port)

        return self._operations.on(sandbox_id, act)[0]

    def native(self, sandbox_id: str) -> Any:
        """Return the provider SDK's own object for the sandbox.

        Raises:
            UnsupportedOperationError: There is none, or its SDK is not installed.
        """

        def act(live: Live) -> Any:
            self._operations.need(live, Capability.NATIVE, "native")
            return live.connection.native()

        return self._operations.on(sandbox_id, act)[0]

    # Checkpoints

    def create_checkpoint(self, sandbox_id: str, comment: str = "") -> Checkpoint:
        """Store the state of the sandbox's files.

        Raises:
            UnsupportedOperationError: The provider has no checkpoints.
        """
        checks.text(comment, "comment", empty=True)

        def act(live: Live) -> Checkpoint:
            self._operations.need(live, Capability.CHECKPOINTS, "create_checkpoint")
            made = live.connection.create_checkpoint(comment)
            self._operations.keep_data(live)
            return made

        return self._operations.on(sandbox_id, act)[0]

    def list_checkpoints(self, sandbox_id: str) -> list[Checkpoint]:
        """List the stored states, oldest first.

        Raises:
            UnsupportedOperationError: The provider has no checkpoints.
        """

        def act(live: Live) -> list[Checkpoint]:
            self._operations.need(live, Capability.CHECKPOINTS, "list_checkpoints")
            return live.connection.list_checkpoints()

        return self._operations.on(sandbox_id, act)[0]

    def restore_checkpoint(self, sandbox_id: str, checkpoint_id: str) -> None:
        """Return the sandbox's files to a stored state; running commands end.

        Raises:
            CheckpointNotFoundError: The sandbox has none of this id; nothing has changed.
            UnsupportedOperationError: The provider has no checkpoints.
        """
        self._operations.restore(sandbox_id, checkpoint_id)

    # Commands

    def run_command(
        self,
        sandbox_id: str,
        command: str | Sequence[str],
        args: Sequence[str] = (),
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Input | None = None,
        timeout_s: float | None = None,
        shell: bool = False,
        command_id: str | None = None,
        on_output: Callable[[OutputChunk], None] | None = None,
        on_gone: OnGone | None = None,
    ) -> CommandResult:
        """Run a command and wait for its end. It runs at most once.

        A non-zero exit and a timeout are results; call ``.check()`` to have them raised. Ctrl-C
        ends the command and is raised again.

        Args:
            sandbox_id: The durable id.
            command: The program; or the whole argument vector as a sequence; or, with
                ``shell=True``, a line for ``/bin/sh -c``.
            args: Its arguments, passed on exactly, when ``command`` is a program.
            cwd: Working directory; None means the sandbox's home, to which relative paths refer.
            env: Variables on top of those that the sandbox was created with.
            stdin: Standard input of any size; None means empty.
            timeout_s: Seconds after which the command and everything it started is ended, first
                by SIGTERM, five seconds later by SIGKILL; None means when the sandbox ends.
            shell: Whether ``command`` is a line of shell.
            command_id: An id of your choice. The same call may then be repeated: it does not run
                the command again but returns its result.
            on_output: Called with pieces of output as they come.
            on_gone: ``"fail"``: do not make a sandbox anew that is gone, whatever the config says.

        Raises:
            CommandStartError: It provably did not run: no such working directory, no space, ...
            SandboxStoppedError: The sandbox was stopped.
            SandboxGoneError: It is gone and was not made anew.
            OutcomeUnknownError: It may have run; its ``command_id`` finds the result if there
                is one.
            IdConflictError: The command id stands for another command.
        """
        checks.callback(on_output, "on_output")
        with job_spec(
            command,
            args,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout_s=timeout_s,
            shell=shell,
            command_id=command_id,
        ) as spec:
            return self._commands.run(sandbox_id, spec, on_output=on_output, on_gone=on_gone)

    def stream_command(
        self,
        sandbox_id: str,
        command: str | Sequence[str],
        args: Sequence[str] = (),
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Input | None = None,
        timeout_s: float | None = None,
        shell: bool = False,
        command_id: str | None = None,
        on_gone: OnGone | None = None,
    ) -> CommandStream:
        """Start a command and return an iterator over its output, all of it, as it comes.

        Use it in a ``with`` block: leaving the block before the end ends the command.

        Args: as ``run_command``.

        Raises: as ``run_command``.
        """
        with job_spec(
            command,
            args,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout_s=timeout_s,
            shell=shell,
            command_id=command_id,
        ) as spec:
            return self._commands.stream(sandbox_id, spec, on_gone=on_gone)

    def start_command(
        self,
        sandbox_id: str,
        command: str | Sequence[str],
        args: Sequence[str] = (),
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Input | None = None,
        timeout_s: float | None = None,
        shell: bool = False,
        command_id: str | None = None,
        on_gone: OnGone | None = None,
    ) -> RaisingCommand:
        """Start a command that outlives this process, and return its handle.

        Keep the sandbox id and the command id: ``get_command`` finds it again from anywhere, for
        at least seven days after its end.

        Args: as ``run_command``.

        Raises: as ``run_command``; also ``UnsupportedOperationError`` where the service would end
            the command because no client waits for it.
        """
        with job_spec(
            command,
            args,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout_s=timeout_s,
            shell=shell,
            command_id=command_id,
        ) as spec:
            return self._commands.start(sandbox_id, spec, on_gone=on_gone)

    def get_command(self, sandbox_id: str, command_id: str) -> RaisingCommand:
        """Return the handle of a command. No I/O: whether it exists shows at first use."""
        return RaisingCommand(
            self._commands, check_sandbox_id(sandbox_id), check_command_id(command_id)
        )

    def list_commands(self, sandbox_id: str) -> dict[str, CommandState]:
        """Return the ids of the commands that the sandbox knows, each with its state."""
        return self._commands.on(sandbox_id, lambda runner: runner.list())

    def purge_commands(self, sandbox_id: str, *, older_than_s: float = 7 * 86400) -> int:
        """Remove the stored output of commands that ended long ago; running ones are left alone.

        Happens by itself now and then; call it to free space.

        Args:
            sandbox_id: The durable id.
            older_than_s: Seconds since their end; 0 means all that have ended.

        Returns:
            How many were removed.
        """
        age_s = checks.number(older_than_s, "older_than_s", 0, _MAX_AGE_S)
        return self._commands.on(sandbox_id, lambda runner: runner.purge(older_than_s=age_s))

    # Files

    def write_files(
        self,
        sandbox_id: str,
        files: Mapping[str, bytes | str | PathLike[str]] | Sequence[FileWrite],
        *,
        on_gone: OnGone | None = None,
    ) -> TransferStats:
        """Write files, each replaced in one step; parent directories are made.

        Args:
            sandbox_id: The durable id.
            files: Content by path: bytes, text, or a ``pathlib.Path`` of a local file; or a
                sequence of ``FileWrite``. Relative paths refer to the sandbox's home.
            on_gone: As in ``run_command``.

        Raises:
            TypeError, ValueError: A path or content is wrong; nothing was written.
            OSError: A local file cannot be read.
            RemoteFileError: The sandbox refused; files before it in order may be written.
        """
        writes = content.normalise(files)
        return self._operations.on(
            sandbox_id,
            lambda live: content.write_files(live.connection, live.home, writes),
            may_recreate=True,
            on_gone=on_gone,
        )[0]

    def read_file(self, sandbox_id: str, path: str) -> bytes:
        """Return the content of a file. For large files use ``download``.

        Raises:
            RemoteFileNotFoundError: There is no such file.
            RemoteFileError: It is a directory, or may not be read.
        """
        content.remote_path(path)

        def act(live: Live) -> bytes:
            return b"".join(live.connection.read_file(content.remote_path(path, live.home)))

        return self._operations.on(sandbox_id, act)[0]

    def upload(
        self,
        sandbox_id: str,
        local: str | PathLike[str],
        remote: str,
        *,
        progress: Progress | None = None,
        on_gone: OnGone | None = None,
    ) -> TransferStats:
        """Copy a local file or directory tree of any size into the sandbox, modes kept.

        Args:
            sandbox_id: The durable id.
            local: The file or directory.
            remote: What it shall be called inside; relative paths refer to the sandbox's home.
            progress: Called now and then.
            on_gone: As in ``run_command``.

        Raises:
            OSError: The local file or directory cannot be read; ``FileNotFoundError`` if there is
                none.
            TransferError: It was cut, or the source changed meanwhile.
            RemoteFileError: The sandbox refused.
        """
        content.remote_path(remote)
        source = checks.local_path(local, "local")
        checks.callback(progress, "progress")
        return self._operations.on(
            sandbox_id,
            lambda live: transfer.upload(
                live.connection,
                live.home,
                source,
                remote,
                run=self._commands.inside(live),
                progress=progress,
            ),
            may_recreate=True,
            on_gone=on_gone,
        )[0]

    def download(
        self,
        sandbox_id: str,
        remote: str,
        local: str | PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> TransferStats:
        """Copy a file or directory tree of any size out of the sandbox, modes kept.

        Nothing is ever written outside ``local``, whatever the sandbox sends.

        Args:
            sandbox_id: The durable id.
            remote: The file or directory inside; relative paths refer to the sandbox's home.
            local: What it shall be called here.
            progress: Called now and then.

        Raises:
            RemoteFileNotFoundError: There is no such file.
            OSError: It cannot be written here.
            TransferError: It was cut, or holds what must not be unpacked.
        """
        content.remote_path(remote)
        target = checks.local_path(local, "local")
        checks.callback(progress, "progress")
        return self._operations.on(
            sandbox_id,
            lambda live: transfer.download(
                live.connection,
                live.home,
                remote,
                target,
                run=self._commands.inside(live),
                progress=progress,
            ),
        )[0]

    # Housekeeping

    def reconcile(
        self,
        *,
        apply: bool = False,
        destroy_unrecorded: bool | Collection[str] = False,
        providers: Sequence[str] | None = None,
    ) -> ReconcileReport:
        """Compare the records with what the providers have, and settle what a crash left behind.

        A dry run unless ``apply``. Acts on nothing but what a record says: creations that were
        never finished are removed, stops that the provider was not told of are told, sandboxes
        proven gone are marked as lost, expired ones are stopped. Sandboxes that bear this store's
        mark without a record are only reported. Harmless when run twice or at once.

        Args:
            apply: Do it.
            destroy_unrecorded: With ``apply``: also destroy sandboxes without a record, all of them
                (True) or those with these durable ids. With True only such as were made after
                the oldest record: an emptied store must not end everything.
            providers: Only these; None means every provider that a record names.

        Raises:
            SchemaError: The store is incomplete, or a copy; nothing was done.
        """
        checks.flag(apply, "apply")
        if not isinstance(destroy_unrecorded, bool):
            named = checks.words(destroy_unrecorded, "destroy_unrecorded")
            destroy_unrecorded = [check_sandbox_id(sandbox_id) for sandbox_id in named]
        if providers is not None:
            providers = checks.words(providers, "providers")
        report = Reconciler(self._operations.ledger, self._operations.ending).run(
            apply=apply, destroy_unrecorded=destroy_unrecorded, providers=providers
        )
        self._operations.ledger.registry.notify("ekairos_sandbox_reconciled", report=report)
        return report

    def close(self) -> None:
        """Let go of connections and files; sandboxes and their commands go on. Safe to repeat."""
        self._operations.close()

    def __enter__(self) -> RaisingService:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _service_and_id(handle: RaisingSandbox) -> tuple[RaisingService, str]:
    return handle.service, handle.sandbox_id


class RaisingSandbox:
    """One sandbox by its durable id: the verbs of ``RaisingService`` without the id.

    Attributes:
        service: The service it belongs to.
        sandbox_id: The durable id, good in any process.
    """

    def __init__(self, service: RaisingService, sandbox_id: str) -> None:
        self.service = service
        self.sandbox_id = sandbox_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sandbox_id!r})"

    record = bound(RaisingService.get_record, _service_and_id)
    run_command = bound(RaisingService.run_command, _service_and_id)
    stream_command = bound(RaisingService.stream_command, _service_and_id)
    start_command = bound(RaisingService.start_command, _service_and_id)
    get_command = bound(RaisingService.get_command, _service_and_id)
    list_commands = bound(RaisingService.list_commands, _service_and_id)
    purge_commands = bound(RaisingService.purge_commands, _service_and_id)
    write_files = bound(RaisingService.write_files, _service_and_id)
    read_file = bound(RaisingService.read_file, _service_and_id)
    upload = bound(RaisingService.upload, _service_and_id)
    download = bound(RaisingService.download, _service_and_id)
    create_checkpoint = bound(RaisingService.create_checkpoint, _service_and_id)
    list_checkpoints = bound(RaisingService.list_checkpoints, _service_and_id)
    restore_checkpoint = bound(RaisingService.restore_checkpoint, _service_and_id)
    preview_url = bound(RaisingService.preview_url, _service_and_id)
    extend_timeout = bound(RaisingService.extend_timeout, _service_and_id)
    native = bound(RaisingService.native, _service_and_id)
    reconnect = bound(RaisingService.reconnect_to_sandbox, _service_and_id)
    stop = bound(RaisingService.stop_sandbox, _service_and_id)
    destroy = bound(RaisingService.destroy_sandbox, _service_and_id)


def _query(**fields: Any) -> RecordQuery:
    try:
        return RecordQuery.model_validate(fields)
    except ValidationError as error:
        raise ConfigurationError(f"the query is not valid: {describe(error)}") from None
