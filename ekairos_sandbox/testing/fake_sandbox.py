"""What a fake provider has of one sandbox, and the way into it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderUnavailableError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import (
    Connection,
    Ownership,
    SandboxInfo,
    SandboxRef,
    Tags,
    gone,
    no_checkpoint,
)
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox.testing.fake_guest import HOME, FakeGuest, Snapshot

Call = Literal[
    "create",
    "connect",
    "inspect",
    "find",
    "list",
    "stop",
    "destroy",
    "shell",
    "read",
    "write",
    "checkpoints",
    "preview_url",
    "extend_timeout",
]
"""What can be made to fail. ``"checkpoints"``: making, listing and restoring them."""

T = TypeVar("T")


class FakeCalls:
    """Carries calls out, unless they are to fail.

    Attributes:
        made: How often each was made, failing ones included.
    """

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self._failures: dict[str, deque[tuple[BaseException, bool]]] = {}
        self._unreachable = 0
        self._lock = threading.RLock()

    def fail(self, call: Call, error: BaseException, times: int, *, after_effect: bool) -> None:
        """Let the next calls raise."""
        with self._lock:
            waiting = self._failures.setdefault(call, deque())
            waiting.extend([(error, after_effect)] * times)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Let every call fail."""
        with self._lock:
            self._unreachable += 1
        try:
            yield
        finally:
            with self._lock:
                self._unreachable -= 1

    def do(self, call: Call, effect: Callable[[], T]) -> T:
        """Make a call; all but ``shell`` one after the other."""
        with self._lock:
            self.made[call] += 1
            if self._unreachable:
                raise ProviderUnavailableError("the fake provider is unreachable", operation=call)
            waiting = self._failures.get(call)
            error, after = waiting.popleft() if waiting else (None, False)
            if error is not None and not after:
                raise error
            if call != "shell":
                return _answered(effect(), error)
        # A script may wait; meanwhile others go on.
        return _answered(effect(), error)


def _answered(answer: T, error: BaseException | None) -> T:
    if error is not None:
        raise error
    return answer


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
        sandbox_id: The durable id that it is used by; "" for none.
    """

    name: str
    external_id: str
    tags: Tags | None
    guest: FakeGuest
    running: bool = True
    checkpoints: dict[str, tuple[Checkpoint, Snapshot]] = field(default_factory=dict)
    sandbox_id: str = ""

    @property
    def files(self) -> dict[str, bytes]:
        """Its files by absolute path."""
        return {path: content for path, (content, _) in self.guest.files.items()}

    @property
    def info(self) -> SandboxInfo:
        """What the provider says of it."""
        state: Literal["running", "stopped"] = "running" if self.running else "stopped"
        return SandboxInfo(self.name, self.external_id, state, self.tags)

    def keep(self, comment: str, now_ms: int) -> Checkpoint:
        """Store the state of the files."""
        made = Checkpoint(f"c{len(self.checkpoints) + 1}", now_ms, comment)
        self.checkpoints[made.id] = (made, self.guest.snapshot())
        return made

    def bring_back(self, checkpoint_id: str) -> None:
        """Return to a stored state.

        Raises:
            CheckpointNotFoundError: There is none of this id.
        """
        if checkpoint_id not in self.checkpoints:
            raise no_checkpoint(checkpoint_id, "fake")
        self.guest.restore(self.checkpoints[checkpoint_id][1])


class FakeConnection(Connection):
    """A way into a fake sandbox.

    Args:
        provider: Name of the provider, for errors.
        existing: The sandboxes that exist, by name, kept up to date by the provider.
        sandbox: The sandbox, whether it still exists or not.
        calls: Carries out what is asked for.
        clock: Time.
        ownership: As in ``Connection``.
    """

    home = HOME
    max_script_bytes = None

    def __init__(
        self,
        provider: str,
        existing: Mapping[str, FakeSandbox],
        sandbox: FakeSandbox,
        calls: FakeCalls,
        clock: Clock,
        ownership: Ownership = "created",
    ) -> None:
        self.external_id = sandbox.external_id
        self.url = f"https://{sandbox.name}.example"
        self.ownership = ownership
        self._provider = provider
        self._existing = existing
        self._sandbox = sandbox
        self._calls = calls
        self.clock = clock

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Answer one of the library's scripts; see ``FakeGuest``."""
        del timeout_s
        output = self._do("shell", lambda sandbox: sandbox.guest.shell(script))
        if len(output) > max_bytes:
            raise ProviderError(f"more than {max_bytes} bytes of output", outcome="unknown")
        return output

    def read_file(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        """See ``Connection.read_file``."""
        content = self._do("read", lambda sandbox: sandbox.guest.read(path))[offset:]
        return iter([content] if content else [])

    def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
        """See ``Connection.write_file``."""
        content = b"".join(chunks)
        self._do("write", lambda sandbox: sandbox.guest.write(path, content, mode))
        return len(content)

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """Store the files."""
        now = self.clock.now_ms()
        return self._do("checkpoints", lambda sandbox: sandbox.keep(comment, now))

    def list_checkpoints(self) -> list[Checkpoint]:
        """List what was stored, oldest first."""
        stored = self._do("checkpoints", lambda sandbox: list(sandbox.checkpoints.values()))
        return [checkpoint for checkpoint, _ in stored]

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """Return to what was stored."""
        self._do("checkpoints", lambda sandbox: sandbox.bring_back(checkpoint_id))

    def preview_url(self, port: int) -> PreviewUrl:
        """Return an address under which nothing answers."""
        url = f"https://{port}-{self._sandbox.name}.example"
        return self._do("preview_url", lambda _: PreviewUrl(url))

    def extend_timeout(self, timeout_ms: int) -> int | None:
        """Return when it would end now."""
        return self._do("extend_timeout", lambda _: self.clock.now_ms() + timeout_ms)

    def _do(self, call: Call, effect: Callable[[FakeSandbox], T]) -> T:
        def on_running() -> T:
            found = self._existing.get(self._sandbox.name)
            if found is not self._sandbox:
                ref: SandboxRef[Any] = SandboxRef(self._sandbox.name, tags=self._sandbox.tags)
                raise gone(ref, self._provider, operation=call)
            if not found.running:
                raise SandboxNotRunningError("it is stopped", provider=self._provider)
            return effect(found)

        return self._calls.do(call, on_running)
