"""A provider whose sandboxes exist in memory only, for the tests of applications."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar

from pydantic import ConfigDict

from ekairos_sandbox.exceptions import IdConflictError
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
from ekairos_sandbox.testing.fake_guest import FakeCommand, FakeGuest, FakeResult
from ekairos_sandbox.testing.fake_sandbox import Call, FakeCalls, FakeConnection, FakeSandbox

Handler = Callable[[FakeCommand], FakeResult | None]


class FakeOptions(ProviderOptions):
    """Takes the options of any provider and looks at ``name`` alone."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, frozen=True)

    name: str | None = None


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
    """

    name: ClassVar[str] = "fake"
    options_model = FakeOptions
    create_timeout_s: ClassVar[float] = 60.0
    connection_class = FakeConnection
    capabilities = frozenset(
        {Capability.CHECKPOINTS, Capability.PREVIEW_URL, Capability.EXTEND_TIMEOUT}
    )

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.commands: list[FakeCommand] = []
        self._calls = FakeCalls()
        self._handlers: list[Handler] = []
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def calls(self) -> Counter[str]:
        """How often each of ``Call`` was made."""
        return self._calls.made

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
        self._calls.fail(call, error, times, after_effect=after_effect)

    def unreachable(self) -> AbstractContextManager[None]:
        """Let every call fail, nothing being done, as long as a ``with`` block lasts."""
        return self._calls.unreachable()

    def add(
        self, name: str, tags: Tags | None = None, *, external_id: str | None = None
    ) -> FakeSandbox:
        """Let a sandbox exist that this library did not make, or not now.

        Args:
            name: Its provider-side name.
            tags: Whose it is; None: nobody's of ours.
            external_id: The provider's id of it; None: a new one.
        """
        with self._lock:
            made = self._sandbox(name, tags, external_id or f"fake-{next(self._numbers)}")
            self.sandboxes[name] = made
        return made

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
                if found.sandbox_id == sandbox_id:
                    return found
        raise LookupError(f"no sandbox exists for {sandbox_id}")

    # The contract

    def account(self) -> str:
        """Return the one account there is."""
        return f"{self.name}:fake"

    def create(self, spec: CreateSpec[FakeOptions]) -> Connection:
        """See ``Provider.create``."""
        return self._calls.do("create", lambda: self._create(spec))

    def attach(self, ref: SandboxRef[FakeOptions]) -> Connection:
        """Return a connection; what is stopped or gone shows at its first use."""
        return self._connection(
            self._lookup(ref) or self._sandbox(ref.name, ref.tags, ref.external_id or "")
        )

    def connect(self, ref: SandboxRef[FakeOptions]) -> Connection:
        """See ``Provider.connect``."""

        def effect() -> Connection:
            found = self._require(ref, "connect")
            found.running = True
            return self._connection(found)

        return self._calls.do("connect", effect)

    def inspect(self, ref: SandboxRef[FakeOptions]) -> SandboxInfo:
        """See ``Provider.inspect``."""
        return self._calls.do("inspect", lambda: self._require(ref, "inspect").info)

    def find(self, name: str) -> SandboxInfo | None:
        """See ``Provider.find``."""

        def effect() -> SandboxInfo | None:
            found = self.sandboxes.get(name)
            return None if found is None else found.info

        return self._calls.do("find", effect)

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """See ``Provider.list_owned``."""
        found = self._calls.do("list", lambda: [each.info for each in self.sandboxes.values()])
        yield from (info for info in found if info.tags is not None and info.tags.owner == owner)

    def stop(self, ref: SandboxRef[FakeOptions]) -> None:
        """End every command and keep the files."""

        def effect() -> None:
            found = self._lookup(ref)
            if found is not None:
                found.running = False
                found.guest.end_all()

        self._calls.do("stop", effect)

    def destroy(self, ref: SandboxRef[FakeOptions]) -> None:
        """Remove it."""

        def effect() -> None:
            found = self._lookup(ref)
            if found is not None:
                del self.sandboxes[found.name]

        self._calls.do("destroy", effect)

    def _create(self, spec: CreateSpec[FakeOptions]) -> Connection:
        found = self.sandboxes.get(spec.name)
        if found is None:
            return self._connection(self.add(spec.name, spec.tags))
        ownership = may_adopt(spec, found.info)
        if ownership is None:
            raise IdConflictError(
                f"the name {spec.name!r} is taken by another sandbox",
                provider=self.name,
                operation="create",
            )
        found.running = True
        found.sandbox_id = spec.tags.sandbox_id
        return self._connection(found, ownership)

    def _sandbox(self, name: str, tags: Tags | None, external_id: str) -> FakeSandbox:
        def run(started: FakeCommand) -> FakeResult:
            return self._end_of(replace(started, sandbox_id=made.sandbox_id))

        guest = FakeGuest(self.context.clock, run)
        sandbox_id = tags.sandbox_id if tags is not None else ""
        made = FakeSandbox(name, external_id, tags, guest, sandbox_id=sandbox_id)
        return made

    def _end_of(self, started: FakeCommand) -> FakeResult:
        with self._lock:
            self.commands.append(started)
            handlers = list(self._handlers)
        for handler in handlers:
            result = handler(started)
            if result is not None:
                return result
        return FakeResult(127, stderr=f"{started.argv[0]}: no result was scripted for it\n")

    def _connection(self, sandbox: FakeSandbox, ownership: Ownership = "created") -> FakeConnection:
        clock = self.context.clock
        return FakeConnection(self.name, self.sandboxes, sandbox, self._calls, clock, ownership)

    def _lookup(self, ref: SandboxRef[FakeOptions]) -> FakeSandbox | None:
        found = self.sandboxes.get(ref.name)
        return found if found is not None and same_sandbox(ref, found.info) else None

    def _require(self, ref: SandboxRef[FakeOptions], operation: str) -> FakeSandbox:
        found = self._lookup(ref)
        if found is None:
            raise gone(ref, self.name, operation=operation)
        return found
