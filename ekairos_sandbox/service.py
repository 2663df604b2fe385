"""The facade: one thin method per verb, results at the edge."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ekairos_sandbox.binding import bound, converted, delegated
from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.models import SandboxRecord
from ekairos_sandbox.operations import Operations
from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.provider import Provider, ProviderContext
from ekairos_sandbox.raising import RaisingCommand, RaisingSandbox, RaisingService
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.repository.choice import open_repository
from ekairos_sandbox.settings import store_setting


@dataclass(frozen=True, slots=True)
class Reconnected:
    """What ``reconnect_to_sandbox`` returns.

    Attributes:
        sandbox: The handle.
    """

    sandbox: Sandbox


def _raising(service: SandboxService) -> RaisingService:
    return service.raising


def _sandbox(service: SandboxService, made: RaisingSandbox) -> Sandbox:
    return Sandbox(service, made.sandbox_id)


def _reconnected(service: SandboxService, made: RaisingSandbox) -> Reconnected:
    return Reconnected(Sandbox(service, made.sandbox_id))


def _command(service: SandboxService, made: RaisingCommand) -> Command:
    return Command(made)


class SandboxService:
    """Sandboxes by durable id, over every installed provider.

    The verbs return ``Ok`` or ``Err``; the same verbs that raise are on ``raising``. One service
    serves many threads and survives a fork. Constructing it does no I/O.

    Args:
        repository: Where records are kept.
        environ: Environment for settings and credentials; None means ``os.environ``.
        clock: Time and sleep; replaced in tests.
        registry: The providers; None means the installed ones.
        providers: Ready-made providers, used in the place of constructing them.
        proxies: Proxies for HTTP, as ``requests`` takes them; None: those of the environment.
        verify: TLS verification, as ``requests`` takes it.
        allow_http: Allow ``http://`` to other hosts than loopback.
        local_only: Refuse every provider but ``local``.

    Attributes:
        raising: The verbs that raise and return plain data.
    """

    def __init__(
        self,
        repository: SandboxRepository,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        registry: PluginRegistry | None = None,
        providers: Iterable[Provider[Any]] = (),
        proxies: Mapping[str, str] | None = None,
        verify: bool | str = True,
        allow_http: bool = False,
        local_only: bool = False,
    ) -> None:
        context = ProviderContext(
            environ=os.environ if environ is None else environ,
            clock=clock or SystemClock(),
            proxies=proxies,
            verify=verify,
            allow_http=allow_http,
        )
        self._operations = Operations(
            repository,
            registry or PluginRegistry(),
            context,
            providers=providers,
            local_only=local_only,
        )
        self.raising = RaisingService(self._operations)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> SandboxService:
        """Return a service over the record store that the environment names.

        ``EKAIROS_SANDBOX_STORE`` decides; without it InstantDB if its variables are set; else a
        SQLite file in the user's data folder, for the provider ``local`` only.

        Raises:
            ConfigurationError: The variables are incomplete or contradict each other.
        """
        environ = os.environ if environ is None else environ
        setting = store_setting(environ)
        repository = open_repository(setting, environ)
        return cls(repository, environ=environ, local_only=setting.local_only)

    def get_sandbox(self, sandbox_id: str) -> Sandbox:
        """Return the handle of a sandbox. No I/O: whether it exists shows at first use.

        Raises:
            ConfigurationError: The id is no UUID.
        """
        return Sandbox(self, self.raising.get_sandbox(sandbox_id).sandbox_id)

    def get_command(self, sandbox_id: str, command_id: str) -> Command:
        """Return the handle of a command. No I/O: whether it exists shows at first use.

        Raises:
            ConfigurationError: The sandbox id is no UUID.
        """
        return Command(self.raising.get_command(sandbox_id, command_id))

    def iter_sandboxes(self, **filters: Any) -> Iterator[SandboxRecord]:
        """See ``RaisingService.iter_sandboxes``; failures are raised while iterating."""
        return self.raising.iter_sandboxes(**filters)

    create_sandbox = converted(RaisingService.create_sandbox, _raising, _sandbox)
    reconnect_to_sandbox = converted(RaisingService.reconnect_to_sandbox, _raising, _reconnected)
    start_command = converted(RaisingService.start_command, _raising, _command)
    get_record = delegated(RaisingService.get_record, _raising)
    list_sandboxes = delegated(RaisingService.list_sandboxes, _raising)
    run_command = delegated(RaisingService.run_command, _raising)
    stream_command = delegated(RaisingService.stream_command, _raising)
    list_commands = delegated(RaisingService.list_commands, _raising)
    purge_commands = delegated(RaisingService.purge_commands, _raising)
    write_files = delegated(RaisingService.write_files, _raising)
    read_file = delegated(RaisingService.read_file, _raising)
    upload = delegated(RaisingService.upload, _raising)
    download = delegated(RaisingService.download, _raising)
    create_checkpoint = delegated(RaisingService.create_checkpoint, _raising)
    list_checkpoints = delegated(RaisingService.list_checkpoints, _raising)
    restore_checkpoint = delegated(RaisingService.restore_checkpoint, _raising)
    preview_url = delegated(RaisingService.preview_url, _raising)
    extend_timeout = delegated(RaisingService.extend_timeout, _raising)
    native = delegated(RaisingService.native, _raising)
    stop_sandbox = delegated(RaisingService.stop_sandbox, _raising)
    destroy_sandbox = delegated(RaisingService.destroy_sandbox, _raising)
    reconcile = delegated(RaisingService.reconcile, _raising)

    def close(self) -> None:
        """Let go of connections and files; sandboxes and their commands go on. Safe to repeat."""
        self.raising.close()

    def __enter__(self) -> SandboxService:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _service_and_id(handle: Sandbox) -> tuple[SandboxService, str]:
    return handle.service, handle.sandbox_id


class Sandbox:
    """One sandbox by its durable id: the verbs of ``SandboxService`` without the id.

    Attributes:
        service: The service it belongs to.
        sandbox_id: The durable id, good in any process.
    """

    def __init__(self, service: SandboxService, sandbox_id: str) -> None:
        self.service = service
        self.sandbox_id = sandbox_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sandbox_id!r})"

    @property
    def raising(self) -> RaisingSandbox:
        """The same handle with the verbs that raise."""
        return RaisingSandbox(self.service.raising, self.sandbox_id)

    record = bound(SandboxService.get_record, _service_and_id)
    run_command = bound(SandboxService.run_command, _service_and_id)
    stream_command = bound(SandboxService.stream_command, _service_and_id)
    start_command = bound(SandboxService.start_command, _service_and_id)
    get_command = bound(SandboxService.get_command, _service_and_id)
    list_commands = bound(SandboxService.list_commands, _service_and_id)
    purge_commands = bound(SandboxService.purge_commands, _service_and_id)
    write_files = bound(SandboxService.write_files, _service_and_id)
    read_file = bound(SandboxService.read_file, _service_and_id)
    upload = bound(SandboxService.upload, _service_and_id)
    download = bound(SandboxService.download, _service_and_id)
    create_checkpoint = bound(SandboxService.create_checkpoint, _service_and_id)
    list_checkpoints = bound(SandboxService.list_checkpoints, _service_and_id)
    restore_checkpoint = bound(SandboxService.restore_checkpoint, _service_and_id)
    preview_url = bound(SandboxService.preview_url, _service_and_id)
    extend_timeout = bound(SandboxService.extend_timeout, _service_and_id)
    native = bound(SandboxService.native, _service_and_id)
    reconnect = bound(SandboxService.reconnect_to_sandbox, _service_and_id)
    stop = bound(SandboxService.stop_sandbox, _service_and_id)
    destroy = bound(SandboxService.destroy_sandbox, _service_and_id)


def _inner(command: Command) -> RaisingCommand:
    return command.raising


class Command:
    """A command that was started, by this process or another.

    Attributes:
        raising: The same handle with methods that raise.
    """

    def __init__(self, raising: RaisingCommand) -> None:
        self.raising = raising

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sandbox_id!r}, {self.command_id!r})"

    @property
    def sandbox_id(self) -> str:
        """The durable id of its sandbox."""
        return self.raising.sandbox_id

    @property
    def command_id(self) -> str:
        """Its id in that sandbox."""
        return self.raising.command_id

    wait = delegated(RaisingCommand.wait, _inner)
    state = delegated(RaisingCommand.state, _inner)
    output = delegated(RaisingCommand.output, _inner)
    chunks = delegated(RaisingCommand.chunks, _inner)
    kill = delegated(RaisingCommand.kill, _inner)
