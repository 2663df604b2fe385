"""A running command's output, piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import SandboxError
from ekairos_sandbox.jobs.answers import JobAnswer, Window
from ekairos_sandbox.jobs.spec import JobSpec
from ekairos_sandbox.results import CommandResult, OutputChunk

if TYPE_CHECKING:
    from ekairos_sandbox.jobs.runner import JobRunner

PIECE_BYTES = 5 << 20
"""How much of each stream one call fetches at most."""

KEPT_BYTES = 64 * 1024

BACKSTOP_S = 5.0
"""How long after timeout and grace the client itself ends a command."""


class Patience:
    """When the client ends a command, because its supervisor should have done so before."""

    def __init__(self, spec: JobSpec, clock: Clock) -> None:
        self._clock = clock
        self._deadline: float | None = None
        if spec.timeout_s is not None:
            limit_s = spec.timeout_s + spec.grace_s + BACKSTOP_S
            self._deadline = clock.monotonic() + limit_s
        self.over = False

    def window(self, longest_s: float) -> float:
        """Seconds that the next call may wait; sets ``over`` once the deadline has passed."""
        if self._deadline is None:
            return longest_s
        left = self._deadline - self._clock.monotonic()
        self.over = left <= 0
        return max(0.0, min(longest_s, left))


class _HeadAndTail:
    """The first and the last 32 KiB of a stream."""

    def __init__(self) -> None:
        self.size = 0
        self._data = b""

    def add(self, data: bytes) -> None:
        self.size += len(data)
        joined = self._data + data
        if len(joined) > KEPT_BYTES:
            joined = joined[: KEPT_BYTES // 2] + joined[-(KEPT_BYTES // 2) :]
        self._data = joined

    def __bytes__(self) -> bytes:
        return self._data


class CommandStream:
    """The output of a running command: iterate for ``OutputChunk``, then ask for ``result()``.

    Attributes:
        command_id: Id of the command.
    """

    def __init__(self, runner: JobRunner, spec: JobSpec) -> None:
        self.command_id = spec.command_id
        self._runner = runner
        self._spec = spec
        self._kept = (_HeadAndTail(), _HeadAndTail())
        self._ready: deque[OutputChunk] = deque()
        self._detached = False
        self._answer = runner.start_following(spec, self._part())
        self._patience = Patience(spec, runner.clock)
        self._take(self._answer)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a stream is not pickled, as it holds credentials: pass the ids of sandbox and "
            "command, and have get_command(...).chunks(follow=True) go on elsewhere"
        )

    def __iter__(self) -> Iterator[OutputChunk]:
        return self

    def __next__(self) -> OutputChunk:
        while not self._ready:
            if self._complete():
                raise StopIteration
            self._poll()
        return self._ready.popleft()

    def result(self) -> CommandResult:
        """Wait for the end, dropping output that was not read, and return the result.

        Raises:
            SandboxError: As ``JobRunner.wait``.
        """
        while not self._complete():
            self._poll()
        answer = self._answer
        final = JobAnswer(
            command_id=self.command_id,
            state=answer.state,
            exit_code=answer.exit_code,
            why=answer.why,
            stdout=bytes(self._kept[0]),
            stderr=bytes(self._kept[1]),
            stdout_size=self._kept[0].size,
            stderr_size=self._kept[1].size,
            cut=answer.cut,
            duration_ms=answer.duration_ms,
        )
        return final.result(self._spec.argv, timed_out=self._patience.over)

    def detach(self) -> None:
        """Let the command go on when this stream is closed."""
        self._detached = True

    def close(self) -> None:
        """End the command unless it has ended or was detached. Safe to call twice."""
        if not self._answer.ended and not self._detached:
            self._runner.cancel_quietly(self.command_id)
        self._detached = True

    def __enter__(self) -> CommandStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _part(self) -> Window:
        return Window((self._kept[0].size, self._kept[1].size), (PIECE_BYTES, PIECE_BYTES))

    def _complete(self) -> bool:
        answer = self._answer
        return (
            answer.ended
            and self._kept[0].size >= answer.stdout_size
            and self._kept[1].size >= answer.stderr_size
        )

    def _poll(self) -> None:
        try:
            self._answer = self._runner.follow(self.command_id, self._part(), self._patience)
        except SandboxError:
            # Out of reach, perhaps not for long: its result can still be collected by its id.
            self._detached = True
            raise
        self._take(self._answer)

    def _take(self, answer: JobAnswer) -> None:
        if answer.stdout:
            self._ready.append(OutputChunk("stdout", self._kept[0].size, answer.stdout))
            self._kept[0].add(answer.stdout)
        if answer.stderr:
            self._ready.append(OutputChunk("stderr", self._kept[1].size, answer.stderr))
            self._kept[1].add(answer.stderr)
