"""A provider whose sandboxes exist in memory only, for the tests of applications."""

from __future__ import annotations

import itertools
import posixpath
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    RemoteFileError,
    RemoteFileNotFoundError,
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
    same_sandbox,
)
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox.testing.fake_guest import HOME, FakeCommand, FakeGuest, FakeResult

Call = Literal[
    "create", "connect", "inspect", "find", "list", "stop", "destroy", "shell", "read", "write"
]
"""What can be made to fail."""

Handler = Callable[[FakeCommand], FakeResult | None]

T = TypeVar("T")


class FakeOptions(ProviderOptions):
    """Takes the options of any provider and looks at ``name`` alone."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, frozen=True)

    name: str | None = None


@dataclass
class FakeSandbox:
    """What the fake provider has of one sandbox.

    Attributes:
        name: Its provider-side name.
        external_id: The provider's id of it.
        tags: Whose it is; None for one that is nobody's of ours.
        guest: Its inside.
        running: Whether it runs.
        checkpoints: The stored states, by id.
    """

    name: str
    external_id: str
    tags: Tags | None
    guest: FakeGuest
    running: bool = True
    checkpoints: dict[str, tuple[Checkpoint, Any]] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """Its files by absolute path."""
        return {path: content for path, (content, _) in self.guest.files.items()}

    def keep(self, comment: str, now_ms: int) -> Checkpoint:
        """Store the state of the files."""
        made = Checkpoint(f"c{len(self.checkpoints) + 1}", now_ms, comment)
        self.checkpoints[made.id] = (made, self.guest.snapshot())
        return made

    def bring_back(self, checkpoint_id: str) -> None:
        """Return to a stored state.

        Raises:
            ConfigurationError: There is none of this id.
        """
        if checkpoint_id not in self.checkpoints:
            raise ConfigurationError(f"there is no checkpoint {checkpoint_id!r}")
        self.guest.restore(self.checkpoints[checkpoint_id][1])


class FakeProvider(Provider[FakeOptions]):
    """Sandboxes in memory whose commands have scripted results.

        fake = FakeProvider.standing_for("sprites")
        fake.on("python", stdout="42")
        service = SandboxService(MemorySandboxRepository(), providers=[fake])

    A command that nothing was scripted for ends with exit code 127 and says so. Records,
    at-most-once, reconnecting and reconciling work as with a real provider, and calls can be made
    to fail. Directory trees cannot be moved. Serves many threads; other processes see nothing of
    it.

    Args:
        context: Clock and environment; the clock decides when commands end.

    Attributes:
        sandboxes: What exists, by provider-side name.
        commands: Every command that was started, in order.
        calls: How often each of ``Call`` was made.
    """

    name: ClassVar[str] = "fake"
    options_model = FakeOptions
    create_timeout_s: ClassVar[float] = 60.0
    capabilities = frozenset(
        {Capability.CHECKPOINTS, Capability.PREVIEW_URL, Capability.EXTEND_TIMEOUT}
    )

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.commands: list[FakeCommand] = []
        self.calls: Counter[str] = Counter()
        self._handlers: list[Handler] = []
        self._failures: dict[str, deque[tuple[BaseException, bool]]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @classmethod
    def standing_for(cls, name: str, context: ProviderContext | None = None) -> FakeProvider:
        """Return one that is used in the place of the provider of this name."""
        made: type[FakeProvider] = type(cls.__name__, (cls,), {"name": name})
        return made(context)

    @classmethod
    def field_support(
        cls, options: FakeOptions | None = None
    ) -> Mapping[ConfigField, FieldSupport]:
        """Everything is taken, without a warning."""
        del options
        taken = FieldSupport("enforced")
        return {"timeout_ms": taken, "vcpus": taken, "runtime": taken, "ports": taken}

    # What tests say

    def on(
        self,
        command: str | Callable[[tuple[str, ...]], bool],
        *,
        exit_code: int = 0,
        stdout: bytes | str = b"",
        stderr: bytes | str = b"",
        duration_s: float = 0.0,
    ) -> None:
        """Script how commands end; what was said last counts first.

        Args:
            command: The program, ``argv[0]``; or a function of the argument vector.
            exit_code: Its exit code.
            stdout: What it writes to standard output, at its start.
            stderr: The same for standard error.
            duration_s: How long it runs.
        """
        result = FakeResult(exit_code, stdout, stderr, duration_s)

        def handle(started: FakeCommand) -> FakeResult | None:
            fits = started.argv[0] == command if isinstance(command, str) else command(started.argv)
            return result if fits else None

        self.handle(handle)

    def handle(self, handler: Handler) -> None:
        """Ask a function how commands end; for those that it returns None for, the next is asked.

        It may look at ``sandboxes`` and change their files.
        """
        with self._lock:
            self._handlers.insert(0, handler)

    def fail(
        self, call: Call, error: BaseException, *, times: int = 1, after_effect: bool = False
    ) -> None:
        """Let the next calls raise.

        Args:
            call: Which.
            error: What they raise; say ``outcome="unknown"`` with ``after_effect``.
            times: How many of them.
            after_effect: Whether they do their work first: the reply is lost.
        """
        with self._lock:
            waiting = self._failures.setdefault(call, deque())
            waiting.extend([(error, after_effect)] * times)

    def lose(self, sandbox_id: str) -> None:
        """Let the sandbox of a durable id vanish behind everybody's back."""
        with self._lock:
            del self.sandboxes[self.sandbox(sandbox_id).name]

    def sandbox(self, sandbox_id: str) -> FakeSandbox:
        """Return what exists for a durable id.

        Raises:
            LookupError: Nothing.
        """
        with self._lock:
            for found in self.sandboxes.values():
                if found.tags is not None and found.tags.sandbox_id == sandbox_id:
                    return found
        raise LookupError(f"no sandbox exists for {sandbox_id}")

    # The contract

    def account(self) -> str:
        """Return the one account there is."""
        return f"{self.name}:fake"

    def create(self, spec: CreateSpec[FakeOptions]) -> Connection:
        """See ``Provider.create``."""
        return self._do("create", lambda: self._create(spec))

    def attach(self, ref: SandboxRef[FakeOptions]) -> Connection:
        """Return a connection; what is stopped or gone shows at its first use."""
        with self._lock:
            found = self.sandboxes.get(ref.name)
        if found is None or not same_sandbox(ref, _info(found)):
            found = FakeSandbox(ref.name, ref.external_id or "", ref.tags, self._guest(""))
        return FakeConnection(self, found)

    def connect(self, ref: SandboxRef[FakeOptions]) -> Connection:
        """See ``Provider.connect``."""

        def effect() -> Connection:
            found = self._require(ref, "connect")
            found.running = True
            return FakeConnection(self, found)

        return self._do("connect", effect)

    def inspect(self, ref: SandboxRef[FakeOptions]) -> SandboxInfo:
        """See ``Provider.inspect``."""
        return self._do("inspect", lambda: _info(self._require(ref, "inspect")))

    def find(self, name: str) -> SandboxInfo | None:
        """See ``Provider.find``."""

        def effect() -> SandboxInfo | None:
            found = self.sandboxes.get(name)
            return None if found is None else _info(found)

        return self._do("find", effect)

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """See ``Provider.list_owned``."""
        found = self._do("list", lambda: [_info(each) for each in self.sandboxes.values()])
        yield from (info for info in found if info.tags is not None and info.tags.owner == owner)

    def stop(self, ref: SandboxRef[FakeOptions]) -> None:
        """End every command and keep the files."""

        def effect() -> None:
            found = self._lookup(ref)
            if found is not None:
                found.running = False
                found.guest.end_all()

        self._do("stop", effect)

    def destroy(self, ref: SandboxRef[FakeOptions]) -> None:
        """Remove it."""

        def effect() -> None:
            found = self._lookup(ref)
            if found is not None:
                del self.sandboxes[found.name]

        self._do("destroy", effect)

    def _create(self, spec: CreateSpec[FakeOptions]) -> Connection:
        found = self.sandboxes.get(spec.name)
        if found is None:
            external_id = f"fake-{next(self._numbers)}"
            guest = self._guest(spec.tags.sandbox_id)
            found = FakeSandbox(spec.name, external_id, spec.tags, guest)
            self.sandboxes[spec.name] = found
            return FakeConnection(self, found)
        ownership = may_adopt(spec, _info(found))
        if ownership is None:
            raise IdConflictError(
                f"the name {spec.name!r} is taken by another sandbox",
                provider=self.name,
                operation="create",
            )
        found.running = True
        return FakeConnection(self, found, ownership)

    def _guest(self, sandbox_id: str) -> FakeGuest:
        def run(started: FakeCommand) -> FakeResult:
            started = replace(started, sandbox_id=sandbox_id)
            with self._lock:
                self.commands.append(started)
                handlers = list(self._handlers)
            for handler in handlers:
                result = handler(started)
                if result is not None:
                    return result
            return FakeResult(127, stderr=f"{started.argv[0]}: no result was scripted for it\n")

        return FakeGuest(self.context.clock, run)

    def _lookup(self, ref: SandboxRef[FakeOptions]) -> FakeSandbox | None:
        found = self.sandboxes.get(ref.name)
        return found if found is not None and same_sandbox(ref, _info(found)) else None

    def _require(self, ref: SandboxRef[FakeOptions], operation: str) -> FakeSandbox:
        found = self._lookup(ref)
        if found is None:
            raise gone(ref, self.name, operation=operation)
        return found

    def _do(self, call: Call, effect: Callable[[], T]) -> T:
        """Carry a call out, unless it is to fail."""
        with self._lock:
            self.calls[call] += 1
            waiting = self._failures.get(call)
            error, after = waiting.popleft() if waiting else (None, False)
            if error is not None and not after:
                raise error
            # A script may wait; meanwhile others go on.
            result = effect() if call != "shell" else None
        if call == "shell":
            result = effect()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]


class FakeConnection(Connection):
    """A way into one of them."""

    home = HOME
    max_script_bytes = None

    def __init__(
        self, provider: FakeProvider, sandbox: FakeSandbox, ownership: Ownership = "created"
    ) -> None:
        self.external_id = sandbox.external_id
        self.url = f"https://{sandbox.name}.example"
        self.ownership = ownership
        self._provider = provider
        self._sandbox = sandbox

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Answer one of the library's scripts; see ``FakeGuest``."""
        del timeout_s, max_bytes
        return self._provider._do("shell", lambda: self._guest("shell").shell(script))  # noqa: SLF001

    def read_file(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        """See ``Connection.read_file``."""

        def effect() -> bytes:
            files = self._guest("read").files
            if path not in files:
                if any(name.startswith(f"{path.rstrip('/')}/") for name in files):
                    raise RemoteFileError(f"is a directory: {path!r}", path=path)
                raise RemoteFileNotFoundError(f"no such file: {path!r}", path=path)
            return files[path][0][offset:]

        content = self._provider._do("read", effect)  # noqa: SLF001
        return iter([content] if content else [])

    def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
        """See ``Connection.write_file``."""
        content = b"".join(chunks)

        def effect() -> int:
            files = self._guest("write").files
            if any(name.startswith(f"{path.rstrip('/')}/") for name in files):
                raise RemoteFileError(f"is a directory: {path!r}", path=path)
            files[posixpath.normpath(path)] = (content, mode)
            return len(content)

        return self._provider._do("write", effect)  # noqa: SLF001

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """Store the files."""
        return self._sandbox.keep(comment, self._provider.context.clock.now_ms())

    def list_checkpoints(self) -> list[Checkpoint]:
        """List what was stored, oldest first."""
        return [checkpoint for checkpoint, _ in self._sandbox.checkpoints.values()]

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """Return to what was stored."""
        self._sandbox.bring_back(checkpoint_id)

    def preview_url(self, port: int) -> PreviewUrl:
        """Return an address under which nothing answers."""
        return PreviewUrl(f"https://{port}-{self._sandbox.name}.example")

    def extend_timeout(self, timeout_ms: int) -> int | None:
        """Return when it would end now."""
        return self._provider.context.clock.now_ms() + timeout_ms

    def _guest(self, operation: str) -> FakeGuest:
        found = self._provider.sandboxes.get(self._sandbox.name)
        if found is not self._sandbox:
            ref: SandboxRef[Any] = SandboxRef(self._sandbox.name, tags=self._sandbox.tags)
            raise gone(ref, self._provider.name, operation=operation)
        if not found.running:
            raise SandboxNotRunningError("it is stopped", provider=self._provider.name)
        return found.guest


def _info(found: FakeSandbox) -> SandboxInfo:
    state: Literal["running", "stopped"] = "running" if found.running else "stopped"
    return SandboxInfo(found.name, found.external_id, state, found.tags)
