"""Commands in sandboxes by durable id: what the verbs do, and the handle of one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from ekairos_sandbox import checks
from ekairos_sandbox.connections import Live
from ekairos_sandbox.hookspecs import CommandEvent
from ekairos_sandbox.jobs.runner import JobRunner
from ekairos_sandbox.jobs.spec import MAX_TIMEOUT_S, JobSpec, new_command_id
from ekairos_sandbox.jobs.stream import CommandStream
from ekairos_sandbox.models import check_sandbox_id
from ekairos_sandbox.operations import OnGone, Operations
from ekairos_sandbox.results import CommandResult, CommandState, OutputChunk

T = TypeVar("T")

MAX_OFFSET = 10**15
"""Further into a stream than anything is stored."""


class Commands:
    """Starts commands and finds them again, in sandboxes that are opened as need be."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def run(
        self,
        sandbox_id: str,
        spec: JobSpec,
        *,
        on_output: Callable[[OutputChunk], None] | None,
        on_gone: OnGone | None,
    ) -> CommandResult:
        """Run a command to its end."""
        result, recreated = self._operations.on(
            sandbox_id,
            lambda live: self._runner(live).run(spec, on_output=on_output),
            may_recreate=True,
            on_gone=on_gone,
        )
        return self.finished(sandbox_id, replace(result, recreated=recreated))

    def stream(self, sandbox_id: str, spec: JobSpec, *, on_gone: OnGone | None) -> CommandStream:
        """Start a command and return its output as it comes."""
        stream, _ = self._operations.on(
            sandbox_id,
            lambda live: self._runner(live).stream(spec),
            may_recreate=True,
            on_gone=on_gone,
        )
        return stream

    def start(self, sandbox_id: str, spec: JobSpec, *, on_gone: OnGone | None) -> RaisingCommand:
        """Start a command that nobody waits for."""

        def act(live: Live) -> None:
            live.connection.check_background(spec.timeout_s)
            self._runner(live).start(spec, window_s=0)

        self._operations.on(sandbox_id, act, may_recreate=True, on_gone=on_gone)
        return RaisingCommand(self, check_sandbox_id(sandbox_id), spec.command_id)

    def on(self, sandbox_id: str, act: Callable[[JobRunner], T]) -> T:
        """Ask a sandbox, which is not made anew for that, about commands."""
        return self._operations.on(sandbox_id, lambda live: act(self._runner(live)))[0]

    def inside(self, live: Live) -> Callable[[Sequence[str]], CommandResult]:
        """Return a function that runs programs of our own in a sandbox."""

        def run(argv: Sequence[str]) -> CommandResult:
            return self._runner(live).run(JobSpec(new_command_id(), tuple(argv)))

        return run

    def finished(self, sandbox_id: str, result: CommandResult) -> CommandResult:
        """Tell observers of a command's end, and return its result."""
        live = self._operations.cache.get(check_sandbox_id(sandbox_id))
        event = CommandEvent(
            sandbox_id=check_sandbox_id(sandbox_id),
            provider=live.provider.name if live else "",
            command_id=result.command_id,
            exit_code=result.exit_code,
            timed_out=result.timed_out,
            stdout_size=result.stdout_size,
            stderr_size=result.stderr_size,
            duration_ms=result.duration_ms,
        )
        self._operations.ledger.registry.notify("ekairos_sandbox_command_finished", event=event)
        return result

    def _runner(self, live: Live) -> JobRunner:
        return JobRunner(
            live.connection, home=live.home, epoch=live.epoch, clock=self._operations.ledger.clock
        )


class RaisingCommand:
    """A command that was started, by this process or another.

    Attributes:
        sandbox_id: The durable id of its sandbox.
        command_id: Its id in that sandbox.
    """

    def __init__(self, commands: Commands, sandbox_id: str, command_id: str) -> None:
        self._commands = commands
        self.sandbox_id = sandbox_id
        self.command_id = command_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sandbox_id!r}, {self.command_id!r})"

    def wait(self, timeout_s: float | None = None) -> CommandResult:
        """Wait for the command's end and return its result. Safe to repeat.

        Args:
            timeout_s: Seconds to wait; None means as long as it takes, 0 not at all. The command
                goes on.

        Raises:
            CommandStillRunningError: It has not ended in that time; also a ``TimeoutError``.
            CommandNotFoundError: The sandbox knows no such command.
            OutcomeUnknownError: Its result cannot be known any more.
        """
        if timeout_s is not None:
            timeout_s = checks.number(timeout_s, "timeout_s", 0, MAX_TIMEOUT_S)
        result = self._on(lambda runner: runner.result(self.command_id, timeout_s=timeout_s))
        return self._commands.finished(self.sandbox_id, result)

    def state(self) -> CommandState:
        """Return what the command is doing.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
        """
        return self._on(lambda runner: runner.state(self.command_id))

    def output(
        self, stream: Literal["stdout", "stderr"] = "stdout", *, offset: int = 0
    ) -> Iterator[bytes]:
        """Yield everything the command has written to a stream so far, from ``offset`` on.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
        """
        checks.choice(stream, "stream", ("stdout", "stderr"))
        begin = checks.integer(offset, "offset", 0, MAX_OFFSET)
        return self._on(lambda runner: runner.output(self.command_id, stream, offset=begin))

    def chunks(self, *, follow: bool = False) -> Iterator[OutputChunk]:
        """Yield everything the command has written to both streams.

        Args:
            follow: Wait for more until the command has ended. Leaving off does not end it.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
        """
        return self._on(lambda runner: runner.chunks(self.command_id, follow=follow))

    def kill(self) -> CommandResult:
        """End the command and everything it started, and return its result. Safe to repeat."""
        self._on(lambda runner: runner.kill(self.command_id))
        return self.wait()

    def _on(self, act: Callable[[JobRunner], T]) -> T:
        return self._commands.on(self.sandbox_id, act)
