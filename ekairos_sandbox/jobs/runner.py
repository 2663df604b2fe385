"""Run commands in a prepared sandbox, and find them again from anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.exceptions import CommandStillRunningError, SandboxError
from ekairos_sandbox.jobs.answers import JobAnswer, Window
from ekairos_sandbox.jobs.calls import JobCalls
from ekairos_sandbox.jobs.spec import JobSpec, check_command_id
from ekairos_sandbox.jobs.stream import PIECE_BYTES, CommandStream, Patience
from ekairos_sandbox.jobs.verdicts import checked, command_state, endless, known
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.results import CommandResult, CommandState, OutputChunk
from ekairos_sandbox.retry import RetryPolicy

WINDOW_S = 25.0
"""How long one call waits at most; services and proxies cut longer ones."""

KEPT_BYTES = 64 * 1024
"""How much of each stream is part of a result."""

CANCEL_S = 6.0
"""How long an interrupted caller is kept waiting for the command to be told."""

HEAD_AND_TAIL = Window(limits=(KEPT_BYTES, KEPT_BYTES))
NOTHING = Window(limits=(0, 0))


class JobRunner:
    """Runs commands in one prepared sandbox. Several threads may use it at once.

    Args:
        connection: The way into the sandbox.
        home: As ``prepare`` returned it.
        epoch: As given to ``prepare``.
        clock: Time and sleep.
        policy: How often a call that may be repeated is repeated.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        home: str,
        epoch: str,
        clock: Clock | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.calls = JobCalls(
            connection,
            home=home,
            epoch=epoch,
            clock=self.clock,
            policy=policy or RetryPolicy(),
        )

    def start(self, spec: JobSpec, *, window_s: float = 0) -> JobAnswer:
        """Start a command and wait for it up to ``window_s`` seconds, at most 25.

        Safe to repeat with the same ``spec``: the command runs at most once, and a repetition
        returns what the first one does. One call unless input or arguments are large.

        Returns:
            What it is doing then, with head and tail of its output so far.

        Raises:
            CommandStartError: It did not run and will not: bad ``cwd``, disk full, ...
            EpochMismatchError: It did not run: the sandbox is not the one that was prepared.
            IdConflictError: Another command has this id.
            OutcomeUnknownError: It may or may not run.
            SandboxGoneError: It did not run, and the sandbox no longer exists.
            ProviderError: It did not run.
        """
        answer = self.calls.start(
            spec, part=HEAD_AND_TAIL, window_s=min(window_s, WINDOW_S), follow=False
        )
        return checked(answer)

    def wait(
        self,
        command_id: str,
        *,
        offsets: tuple[int, int] | None = None,
        chunk_bytes: int = KEPT_BYTES,
        window_s: float = WINDOW_S,
    ) -> JobAnswer:
        """Wait for a command that was started, up to ``window_s`` seconds, at most 25.

        Args:
            command_id: Id of the command.
            offsets: Where to begin in standard output and standard error: returns as soon as
                there is more. None waits for the end and returns head and tail.
            chunk_bytes: How many bytes of each stream to return at most.
            window_s: Seconds; 0 looks and returns.

        Raises:
            OutcomeUnknownError: It cannot be reached, or its supervisor died, or there is no trace
                of it.
        """
        answer = self.calls.look(
            check_command_id(command_id),
            part=Window(offsets, (chunk_bytes, chunk_bytes)),
            window_s=min(window_s, WINDOW_S),
            follow=offsets is not None,
        )
        return checked(answer)

    def run(
        self, spec: JobSpec, *, on_output: Callable[[OutputChunk], None] | None = None
    ) -> CommandResult:
        """Run a command to its end. A short one takes one call.

        Anything that interrupts the wait (Ctrl-C, an exception in ``on_output``) ends the command
        before it is raised on.

        Args:
            spec: The command.
            on_output: Called with each piece of output as it comes.

        Raises:
            SandboxError: As ``start`` and ``wait``.
        """
        if on_output is not None:
            with self.stream(spec) as stream:
                for chunk in stream:
                    on_output(chunk)
                return stream.result()
        with self._cancelled_on_interrupt(spec.command_id):
            answer = self.start(spec, window_s=WINDOW_S)
            patience = Patience(spec, self.clock)
            while not answer.ended:
                asked = self.clock.monotonic()
                window = patience.window(WINDOW_S)
                if patience.over:
                    answer = self._give_up(spec.command_id)
                    break
                answer = self.wait(spec.command_id, window_s=window)
                self._pause(asked, answer)
            return answer.result(spec.argv, timed_out=patience.over)

    def stream(self, spec: JobSpec) -> CommandStream:
        """Start a command and return its output as it comes.

        Blocks until there is output, at most a second. Use it as a context manager: leaving it
        before the end ends the command, unless ``detach`` was called.

        Raises:
            SandboxError: As ``start``.
        """
        with self._cancelled_on_interrupt(spec.command_id):
            return CommandStream(self, spec)

    def result(self, command_id: str, *, timeout_s: float | None = None) -> CommandResult:
        """Wait for the end of a command that was started elsewhere, and return its result.

        Args:
            command_id: Id of the command.
            timeout_s: How long to wait; None means as long as it runs, 0 not at all.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
            CommandStillRunningError: It has not ended in that time; it goes on.
            OutcomeUnknownError: As ``wait``.
        """
        check_command_id(command_id)
        deadline = None if timeout_s is None else self.clock.monotonic() + timeout_s
        argv: tuple[str, ...] | None = None
        seen = False
        while True:
            asked = self.clock.monotonic()
            window = WINDOW_S if deadline is None else min(WINDOW_S, max(0, deadline - asked))
            answer = self.calls.look(
                command_id,
                part=HEAD_AND_TAIL,
                window_s=window,
                want_argv=argv is None,
                collecting=True,
            )
            answer = checked(answer) if seen else known(answer)
            seen = True
            argv = argv or answer.argv
            if answer.ended:
                return answer.result(argv or ())
            if deadline is not None and self.clock.monotonic() >= deadline:
                raise CommandStillRunningError(
                    f"command {command_id} has not ended within {timeout_s:g} s",
                    command_id=command_id,
                    hint="wait again, or kill it",
                )
            self._pause(asked, answer)

    def state(self, command_id: str) -> CommandState:
        """Say what a command is doing; one call that does not wait.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
        """
        answer = self.calls.look(check_command_id(command_id), part=NOTHING, collecting=True)
        return command_state(answer)

    def output(
        self,
        command_id: str,
        stream: Literal["stdout", "stderr"] = "stdout",
        *,
        offset: int = 0,
        follow: bool = False,
    ) -> Iterator[bytes]:
        """Yield all stored output of a command, in pieces of up to 5 MiB, one call each.

        Args:
            command_id: Id of the command, ended or not.
            stream: Which stream.
            offset: Where to begin, in bytes.
            follow: Whether to wait for more until the command has ended.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
            OutcomeUnknownError: The sandbox cannot be reached.
        """
        never = 10**15
        offsets = (offset, never) if stream == "stdout" else (never, offset)
        limits = (PIECE_BYTES, 0) if stream == "stdout" else (0, PIECE_BYTES)
        return (chunk.data for chunk in self._stored(command_id, offsets, limits, follow=follow))

    def chunks(self, command_id: str, *, follow: bool = False) -> Iterator[OutputChunk]:
        """Yield all stored output of a command, both streams side by side.

        Args:
            command_id: Id of the command, ended or not.
            follow: Whether to wait for more until the command has ended.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
            OutcomeUnknownError: The sandbox cannot be reached.
        """
        return self._stored(command_id, (0, 0), (PIECE_BYTES, PIECE_BYTES), follow=follow)

    def kill(self, command_id: str, *, grace_s: float = 5.0) -> CommandState:
        """End a command: SIGTERM, its own grace, SIGKILL. Waits for that, a little over the grace.

        One that has not run yet never will. Nothing happens to one that has ended. Safe to repeat.

        Args:
            command_id: Id of the command.
            grace_s: The grace it was started with: how long to wait for its end.

        Returns:
            Its state then; ``"running"`` if it has not ended in that time, ``"exited"`` if it had
            ended by itself before.

        Raises:
            CommandNotFoundError: The sandbox knows no such command.
        """
        answer = self.calls.look(
            check_command_id(command_id),
            part=NOTHING,
            window_s=min(WINDOW_S, grace_s + 2),
            kill="kill",
        )
        return command_state(answer)

    def list(self) -> dict[str, CommandState]:
        """Return the state of every command that the sandbox knows, by id; one call."""
        states = self.calls.list()
        names = ("created", "running", "exited", "killed", "lost")
        return {
            name: "killed" if state == "void" else state  # type: ignore[misc]
            for name, state in states.items()
            if state in names or state == "void"
        }

    def purge(self, *, older_than_s: float = 7 * 86400) -> int:
        """Delete what is kept of ended commands; running ones never. One call.

        Their ids stay taken: a command with such an id is not run again.

        Args:
            older_than_s: How long ago they must have ended, rounded up to minutes; 0 means any.

        Returns:
            How many were deleted.
        """
        return self.calls.purge(older_than_s)

    def cancel_quietly(self, command_id: str) -> None:
        """Try once, for a few seconds, to end a command or keep it from starting."""
        with contextlib.suppress(Exception):
            self.calls.look_once(
                command_id, part=NOTHING, window_s=1, kill="cancel", margin_s=CANCEL_S - 1
            )

    def start_following(self, spec: JobSpec, part: Window) -> JobAnswer:
        """Start a command for a stream: return with its first output, or after a second."""
        return checked(self.calls.start(spec, part=part, window_s=1, follow=True))

    def follow(self, command_id: str, part: Window, patience: Patience) -> JobAnswer:
        """Return with more output of a command, or with its end."""
        asked = self.clock.monotonic()
        window = patience.window(WINDOW_S)
        answer = checked(
            self.calls.look(
                command_id,
                part=part,
                window_s=WINDOW_S if patience.over else window,
                follow=not patience.over,
                kill="kill" if patience.over else "",
            )
        )
        if patience.over and not answer.ended:
            raise endless(answer)
        if not answer.stdout and not answer.stderr:
            self._pause(asked, answer)
        return answer

    @contextlib.contextmanager
    def _cancelled_on_interrupt(self, command_id: str) -> Iterator[None]:
        try:
            yield
        except SandboxError:
            raise
        except BaseException:
            self.cancel_quietly(command_id)
            raise

    def _stored(
        self, command_id: str, offsets: tuple[int, int], limits: tuple[int, int], *, follow: bool
    ) -> Iterator[OutputChunk]:
        """Look at a command once, so that what is wrong shows at once, and yield its output."""
        check_command_id(command_id)
        first = self._look_at_output(command_id, Window(offsets, limits), follow=follow)
        return self._from(first, *offsets, limits, follow=follow)

    def _from(
        self, answer: JobAnswer, out: int, err: int, limits: tuple[int, int], *, follow: bool
    ) -> Iterator[OutputChunk]:
        asked = self.clock.monotonic()
        while True:
            if answer.stdout:
                yield OutputChunk("stdout", out, answer.stdout)
                out += len(answer.stdout)
            if answer.stderr:
                yield OutputChunk("stderr", err, answer.stderr)
                err += len(answer.stderr)
            complete = out >= answer.stdout_size and err >= answer.stderr_size
            if complete and (answer.state not in ("created", "running") or not follow):
                return
            if not answer.stdout and not answer.stderr:
                self._pause(asked, answer)
            asked = self.clock.monotonic()
            part = Window((out, err), limits)
            answer = self._look_at_output(answer.command_id, part, follow=follow)

    def _look_at_output(self, command_id: str, part: Window, *, follow: bool) -> JobAnswer:
        window_s = WINDOW_S if follow else 0
        return known(
            self.calls.look(
                command_id, part=part, window_s=window_s, follow=follow, collecting=True
            )
        )

    def _give_up(self, command_id: str) -> JobAnswer:
        """End a command whose own supervisor should have done so long ago."""
        answer = checked(
            self.calls.look(command_id, part=HEAD_AND_TAIL, window_s=WINDOW_S, kill="kill")
        )
        if not answer.ended:
            raise endless(answer)
        return answer

    def _pause(self, asked: float, answer: JobAnswer) -> None:
        """Keep a distance between calls when the sandbox answers early without news."""
        elapsed = self.clock.monotonic() - asked
        if not answer.ended and elapsed < 0.2:
            self.clock.sleep(0.2 - elapsed)
