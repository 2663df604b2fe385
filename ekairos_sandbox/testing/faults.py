"""A provider around another one whose calls fail as told: replies lost, connections refused.

faults = Faults()
service = SandboxService(repository, providers=[faulty(provider, faults)])
faults.at("shell", lost_after, 2)    # the second script from now on runs; its answer is lost
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar, cast

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.exceptions import ProviderTimeoutError, ProviderUnavailableError
from ekairos_sandbox.provider import Connection, CreateSpec, Provider, SandboxInfo, SandboxRef
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox.shell.base import FileApi
from ekairos_sandbox.shell.chunks import Pieces

T = TypeVar("T")

Fault: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Takes the real call, makes it or not, and answers or raises in its place."""


def refused(call: Callable[[], Any]) -> Any:
    """The call never reached the provider, and the client knows."""
    del call
    raise ProviderUnavailableError("connection refused")


def lost_before(call: Callable[[], Any]) -> Any:
    """The call never reached the provider, and the client cannot know."""
    del call
    raise ProviderTimeoutError("no answer in time", outcome="unknown")


def lost_after(call: Callable[[], Any]) -> Any:
    """The call had its effect; the answer was lost."""
    call()
    raise ProviderUnavailableError("connection reset", outcome="unknown")


def cut(call: Callable[[], bytes]) -> bytes:
    """The call had its effect; only the first half of the answer arrived. For ``shell``."""
    answer = call()
    return answer[: len(answer) // 2]


def garbage(call: Callable[[], bytes]) -> bytes:
    """The call had its effect; something else was answered. For ``shell``."""
    call()
    return b"<html>502 Bad Gateway</html>" + bytes(range(256))


def noisy(call: Callable[[], bytes]) -> bytes:
    """The answer arrived with a banner around it and other line ends. For ``shell``."""
    return b"Welcome! @EK1:\n" + call().replace(b"\n", b"\r\n") + b"logout\n"


def answering(value: Any) -> Fault:
    """Make a fault that answers ``value`` without any call."""
    return lambda call: value


def raising(make: Callable[[], BaseException]) -> Fault:
    """Make a fault that raises a new error of the caller's choice, without any call."""

    def fault(call: Callable[[], Any]) -> Any:
        del call
        raise make()

    return fault


def delayed(seconds: float, clock: Clock) -> Fault:
    """Make a fault that lets ``seconds`` pass on ``clock`` before the call is made."""

    def fault(call: Callable[[], Any]) -> Any:
        clock.sleep(seconds)
        return call()

    return fault


class HastyClock(SystemClock):
    """The machine's own time, but nobody sleeps longer than 10 ms: repetitions come at once."""

    def sleep(self, seconds: float) -> None:
        """Block for this many seconds, at most 0.01."""
        super().sleep(min(seconds, 0.01))


class Faults:
    """Says which calls fail and how, and keeps a list of all calls. For several threads.

    Operations are named like the methods of ``Provider`` and ``Connection``.

    Attributes:
        calls: The operations in the order in which they were called, failing ones included.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._lock = threading.Lock()
        self._once: dict[tuple[str, int], Fault] = {}
        self._always: dict[str, Fault] = {}

    def at(self, operation: str, fault: Fault, *numbers: int) -> None:
        """Make single calls of an operation fail.

        Args:
            operation: Which.
            fault: How.
            *numbers: Which calls, counted from now on: 1 is the next one. None given: the next.
        """
        with self._lock:
            done = self.calls.count(operation)
            for number in numbers or (1,):
                self._once[operation, done + number] = fault

    def always(self, fault: Fault, *operations: str) -> None:
        """Make every call of these operations fail; none given: of all but ``account``."""
        with self._lock:
            for operation in operations or ("*",):
                self._always[operation] = fault

    def clear(self) -> None:
        """Let everything work again. The list of calls stays."""
        with self._lock:
            self._once.clear()
            self._always.clear()

    def run(self, operation: str, call: Callable[[], T]) -> T:
        """Make a call, or what was said instead."""
        with self._lock:
            self.calls.append(operation)
            fault = self._once.pop((operation, self.calls.count(operation)), None)
            fault = fault or self._always.get(operation)
            if fault is None and operation != "account":
                fault = self._always.get("*")
        return call() if fault is None else cast(T, fault(call))


class _FaultyFiles:
    """The file API of a connection, whose calls go through ``faults``."""

    def __init__(self, inner: FileApi, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.part_bytes = inner.part_bytes
        self.private = inner.private

    def put(self, path: str, part: Pieces) -> None:
        self.faults.run("put", lambda: self.inner.put(path, part))

    def get(self, path: str) -> Iterator[bytes]:
        return self.faults.run("get", lambda: self.inner.get(path))


class FaultyConnection(Connection):
    """A connection whose calls go through ``faults``; made by ``FaultyProvider``.

    Files go through its own ``shell`` unless the inner connection has its own way for them.
    """

    def __init__(self, inner: Connection, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.external_id = inner.external_id
        self.url = inner.url
        self.home = inner.home
        self.data = inner.data
        self.ownership = inner.ownership
        self.restored = inner.restored
        self.max_script_bytes = inner.max_script_bytes
        self.keep_awake = inner.keep_awake
        self.clock = inner.clock
        if inner.file_api is not None:
            self.file_api = _FaultyFiles(inner.file_api, faults)

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """See ``Connection.shell``."""
        return self.faults.run(
            "shell",
            lambda: self.inner.shell(script, timeout_s=timeout_s, max_bytes=max_bytes),
        )

    def native(self) -> Any:
        """See ``Connection.native``."""
        return self.faults.run("native", self.inner.native)

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """See ``Connection.create_checkpoint``."""
        made = self.faults.run("create_checkpoint", lambda: self.inner.create_checkpoint(comment))
        self.data = self.inner.data
        return made

    def list_checkpoints(self) -> list[Checkpoint]:
        """See ``Connection.list_checkpoints``."""
        return self.faults.run("list_checkpoints", self.inner.list_checkpoints)

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """See ``Connection.restore_checkpoint``."""
        self.faults.run("restore_checkpoint", lambda: self.inner.restore_checkpoint(checkpoint_id))
        self.data = self.inner.data

    def preview_url(self, port: int) -> PreviewUrl:
        """See ``Connection.preview_url``."""
        return self.faults.run("preview_url", lambda: self.inner.preview_url(port))

    def extend_timeout(self, timeout_ms: int) -> int | None:
        """See ``Connection.extend_timeout``."""
        return self.faults.run("extend_timeout", lambda: self.inner.extend_timeout(timeout_ms))

    def check_background(self, timeout_s: float | None) -> None:
        """See ``Connection.check_background``; no call."""
        self.inner.check_background(timeout_s)

    def close(self) -> None:
        """Close the inner connection; never fails."""
        self.inner.close()


class _NativeFaultyConnection(FaultyConnection):
    def read_file(self, path: str, *, offset: int = 0) -> Iterator[bytes]:
        return self.faults.run("read_file", lambda: self.inner.read_file(path, offset=offset))

    def write_file(self, path: str, chunks: Iterable[bytes], *, mode: int = 0o644) -> int:
        return self.faults.run("write_file", lambda: self.inner.write_file(path, chunks, mode=mode))


def faulty_connection(inner: Connection, faults: Faults) -> FaultyConnection:
    """Wrap a connection."""
    cls = type(inner)
    native = cls.write_file is not Connection.write_file
    return (_NativeFaultyConnection if native else FaultyConnection)(inner, faults)


class FaultyProvider(Provider[Any]):
    """A provider whose calls, and those of its connections, go through ``faults``.

    Make one with ``faulty``.
    """

    inner: Provider[Any]
    faults: Faults

    def account(self) -> str:
        """See ``Provider.account``."""
        return self.faults.run("account", self.inner.account)

    def create(self, spec: CreateSpec[Any]) -> Connection:
        """See ``Provider.create``."""
        return self._wrapped("create", lambda: self.inner.create(spec))

    def attach(self, ref: SandboxRef[Any]) -> Connection:
        """See ``Provider.attach``."""
        return self._wrapped("attach", lambda: self.inner.attach(ref))

    def connect(self, ref: SandboxRef[Any]) -> Connection:
        """See ``Provider.connect``."""
        return self._wrapped("connect", lambda: self.inner.connect(ref))

    def inspect(self, ref: SandboxRef[Any]) -> SandboxInfo:
        """See ``Provider.inspect``."""
        return self.faults.run("inspect", lambda: self.inner.inspect(ref))

    def find(self, name: str) -> SandboxInfo | None:
        """See ``Provider.find``."""
        return self.faults.run("find", lambda: self.inner.find(name))

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """See ``Provider.list_owned``."""
        return iter(self.faults.run("list_owned", lambda: list(self.inner.list_owned(owner))))

    def stop(self, ref: SandboxRef[Any]) -> None:
        """See ``Provider.stop``."""
        self.faults.run("stop", lambda: self.inner.stop(ref))

    def destroy(self, ref: SandboxRef[Any]) -> None:
        """See ``Provider.destroy``."""
        self.faults.run("destroy", lambda: self.inner.destroy(ref))

    def close(self) -> None:
        """Leave the inner provider open: it is not ours."""

    def _wrapped(self, operation: str, call: Callable[[], Connection]) -> Connection:
        return faulty_connection(self.faults.run(operation, call), self.faults)


def faulty(provider: Provider[Any], faults: Faults) -> FaultyProvider:
    """Wrap a provider.

    Its name, options, capabilities and class methods are those of ``provider``: hand the wrapper
    to ``SandboxService(providers=[...])`` in its place.
    """
    # Inheriting from both brings the inner class's own class attributes and class methods.
    inner_class = type(provider)
    cls = type(f"Faulty{inner_class.__name__}", (FaultyProvider, inner_class), {})
    made = cast(FaultyProvider, Provider.__new__(cls))
    Provider.__init__(made, provider.context)
    made.inner = provider
    made.faults = faults
    return made
