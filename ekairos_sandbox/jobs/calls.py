"""Single calls into the sandbox, each repeated where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    CommandStartError,
    EpochMismatchError,
    IdConflictError,
    OutcomeUnknownError,
    ProviderUnavailableError,
    RemoteFileError,
    SandboxError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.jobs.answers import JobAnswer, Window, parse_answer
from ekairos_sandbox.jobs.asking import Refused, ask, may_repeat
from ekairos_sandbox.jobs.call_scripts import CallScripts, Kill
from ekairos_sandbox.jobs.spec import JobSpec
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.retry import RetryPolicy, retrying
from ekairos_sandbox.shell import envelope

MARGIN_S = 15.0
"""What a call may take beyond the time that its script is told to wait."""

ARGV_BYTES = 4 << 20
LIST_BYTES = 8 << 20

T = TypeVar("T")


class _NotClaimedError(ProviderUnavailableError):
    """The job's supervisor did not come up."""


class JobCalls:
    """The calls that a ``JobRunner`` is made of, each with its repetitions."""

    def __init__(
        self, connection: Connection, *, home: str, epoch: str, clock: Clock, policy: RetryPolicy
    ) -> None:
        self.connection = connection
        self.home = home
        self.scripts = CallScripts(connection, home=home, epoch=epoch)
        self.clock = clock
        self.policy = policy

    def start(self, spec: JobSpec, *, part: Window, window_s: float, follow: bool) -> JobAnswer:
        """Start a job, at most once whatever happens, and take a first look at it."""
        call = self.scripts.start(
            spec, envelope.new_nonce(), part=part, window_s=window_s, follow=follow
        )
        for path, chunks in call.uploads.items():
            self._upload(spec, path, chunks)
        unsure = False

        def attempt() -> JobAnswer:
            nonlocal unsure
            try:
                answer = ask(
                    self.connection,
                    call.script,
                    lambda fields: parse_answer(fields, spec.command_id, part),
                    timeout_s=window_s + MARGIN_S + part.transfer_s,
                    max_bytes=part.max_bytes,
                )
                if answer.state == "created":
                    raise _NotClaimedError("the job did not come up", outcome="unknown")
            except SandboxError as error:
                unsure = unsure or error.outcome == "unknown"
                raise
            return answer

        try:
            return retrying(self._patience(window_s), self.clock, when=may_repeat)(attempt)
        except Refused as refusal:
            error = _refusal(str(refusal), spec.command_id, self.home)
            settle = unsure and isinstance(error, CommandStartError)
            if unsure and isinstance(error, EpochMismatchError):
                raise _unknown(spec.command_id, "the sandbox was restored or replaced") from error
        except _NotClaimedError:
            settle = True
            error = CommandStartError(
                "the sandbox could not start the command: its supervisor did not come up",
                command_id=spec.command_id,
                hint="the sandbox may be out of processes or memory",
            )
        except SandboxNotRunningError as stopped:
            if unsure:
                # What the sandbox still holds tells, once it runs again.
                stopped.outcome = "unknown"
            raise
        except SandboxError as failed:
            if unsure:
                gone = isinstance(failed, SandboxGoneError)
                why = "the sandbox no longer exists" if gone else "the sandbox cannot be reached"
                raise _unknown(spec.command_id, why) from failed
            raise
        return self._settle(spec.command_id, part, error) if settle else _throw(error)

    def _settle(self, command_id: str, part: Window, error: SandboxError) -> JobAnswer:
        """Make sure that a job that did not start never will; or find that it did."""
        answer = self.look(command_id, part=part, window_s=1, kill="void")
        if answer.state == "void":
            raise error
        if answer.state in ("created", "unknown"):
            raise _unknown(command_id, "it could not be kept from starting later") from error
        return answer

    def look(
        self,
        command_id: str,
        *,
        part: Window,
        window_s: float = 0,
        follow: bool = False,
        kill: Kill = "",
        want_argv: bool = False,
        collecting: bool = False,
    ) -> JobAnswer:
        """Wait for a job, up to ``window_s`` seconds, and return what it is doing.

        With ``collecting`` nothing is under way that could be lost: a sandbox that is stopped is
        told as that, so that it can be started and asked again.
        """
        return self._repeat(
            lambda: self.look_once(
                command_id,
                part=part,
                window_s=window_s,
                follow=follow,
                kill=kill,
                want_argv=want_argv,
            ),
            command_id,
            window_s=window_s,
            collecting=collecting,
        )

    def look_once(
        self,
        command_id: str,
        *,
        part: Window,
        window_s: float = 0,
        follow: bool = False,
        kill: Kill = "",
        want_argv: bool = False,
        margin_s: float = MARGIN_S,
    ) -> JobAnswer:
        """Do the same without repetitions."""
        return ask(
            self.connection,
            lambda nonce: self.scripts.look(
                nonce,
                command_id,
                part=part,
                window_s=window_s,
                follow=follow,
                kill=kill,
                want_argv=want_argv,
            ),
            lambda fields: parse_answer(fields, command_id, part, want_argv=want_argv),
            timeout_s=window_s + margin_s + part.transfer_s,
            max_bytes=part.max_bytes + (ARGV_BYTES if want_argv else 0),
        )

    def list(self) -> dict[str, str]:
        """Return the state of every job by its command id."""

        def read(fields: Sequence[str]) -> dict[str, str] | None:
            if fields[0] != "list":
                return None
            pairs = [entry.partition("=") for entry in fields[1:]]
            return {name: state for name, _, state in pairs}

        return self._repeat(
            lambda: ask(
                self.connection,
                self.scripts.list,
                read,
                timeout_s=60,
                max_bytes=LIST_BYTES,
            )
        )

    def purge(self, older_than_s: float) -> int:
        """Delete ended jobs whose end is longer ago than this; return how many."""

        def read(fields: Sequence[str]) -> int | None:
            good = fields[0] == "purged" and len(fields) == 2 and fields[1].isdecimal()
            return int(fields[1]) if good else None

        return self._repeat(
            lambda: ask(
                self.connection,
                lambda nonce: self.scripts.purge(nonce, older_than_s),
                read,
                timeout_s=120,
                max_bytes=envelope.SLACK_BYTES,
            )
        )

    def _patience(self, window_s: float) -> RetryPolicy:
        """Allow for a first call that is only given up after all of its time."""
        budget_s = self.policy.budget_s + window_s + MARGIN_S
        return replace(self.policy, budget_s=budget_s)

    def _repeat(
        self,
        call: Callable[[], T],
        command_id: str | None = None,
        *,
        window_s: float = 0,
        collecting: bool = False,
    ) -> T:
        try:
            return retrying(self._patience(window_s), self.clock, when=may_repeat)(call)
        except SandboxError as error:
            stopped = isinstance(error, SandboxNotRunningError)
            if command_id is None or (stopped and collecting):
                raise
            gone = isinstance(error, (SandboxGoneError, SandboxNotRunningError))
            why = "the sandbox no longer runs" if gone else "the sandbox cannot be reached"
            raise _unknown(command_id, why) from error

    def _upload(self, spec: JobSpec, path: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        try:
            retrying(self.policy, self.clock, when=may_repeat)(
                lambda: self.connection.write_file(path, chunks(), mode=0o600)
            )
        except RemoteFileError as error:
            raise CommandStartError(
                f"the command's input could not be stored in the sandbox: {error.message}",
                command_id=spec.command_id,
            ) from error
        except SandboxError as error:
            # Whatever became of the upload: the command did not run.
            error.outcome = "failed"
            raise


def _refusal(reason: str, command_id: str, home: str) -> SandboxError:
    if reason == "epoch":
        return EpochMismatchError(
            "the sandbox is not the one that was prepared: it was restored or replaced meanwhile; "
            "the command did not run"
        )
    if reason == "conflict":
        return IdConflictError(
            f"the command id {command_id!r} already stands for another command",
            hint="choose another command_id, or repeat exactly the same command",
        )
    if reason == "purged":
        return _unknown(command_id, "it ended long ago and its result was deleted")
    return CommandStartError(
        f"the command did not run: its files could not be written below {home}",
        command_id=command_id,
        hint="the disk of the sandbox is full or read-only",
    )


def _unknown(command_id: str, why: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"command {command_id}: {why}, and it is not known whether or how the command ended",
        command_id=command_id,
        hint=f"get_command({command_id!r}) collects the result if the sandbox still has it",
    )


def _throw(error: SandboxError) -> JobAnswer:
    raise error
