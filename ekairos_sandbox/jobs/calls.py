"""Single calls into the sandbox: build the script, ask, read the answer, repeat if that is safe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    CommandStartError,
    EpochMismatchError,
    IdConflictError,
    OutcomeUnknownError,
    ProviderError,
    ProviderUnavailableError,
    RemoteFileError,
    SandboxError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.jobs import scripts
from ekairos_sandbox.jobs.answers import JobAnswer, Window, encode_argv, parse_answer
from ekairos_sandbox.jobs.spec import JobSpec, SpooledInput
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.retry import RetryPolicy, retrying
from ekairos_sandbox.shell import envelope
from ekairos_sandbox.shell.quoting import as_bytes, printf_format, quote

MARGIN_S = 15.0
"""What a call may take beyond the time that its script is told to wait."""

INLINE_STDIN_BYTES = 48 * 1024
INLINE_SCRIPT_BYTES = 512 * 1024
ARGV_BYTES = 4 << 20
LIST_BYTES = 8 << 20
MANY_JOBS = 500
"""Above this number of job directories a start also deletes old ones."""

PURGE_AGE_S = 7 * 86400.0

AWAKE_FIRST_S = 8
"""After how long a command's supervisor begins to keep the machine awake."""

AWAKE_AGAIN_S = 30
"""How often it does so again."""

Kill = Literal["", "kill", "void", "cancel"]
T = TypeVar("T")

_NOT_FOR_SH = frozenset(
    (
        "UID",
        "EUID",
        "PPID",
        "BASHOPTS",
        "SHELLOPTS",
        "GROUPS",
        "OPTIND",
        "LINENO",
        "RANDOM",
        "SECONDS",
        "IFS",
    )
)


class Refused(Exception):
    """The script itself said no; the reason is its only argument."""


class _NotClaimedError(ProviderUnavailableError):
    """The job's supervisor did not come up."""


@dataclass(frozen=True)
class _Delivery:
    """How a job's script and input get into the sandbox.

    Attributes:
        statements: sh that sets ``ek_run`` and ``ek_in``, with whatever travels inside the call.
        uploads: What does not: the name of each file, and its content.
    """

    statements: bytes
    uploads: dict[str, Callable[[], Iterator[bytes]]]


def job_root(home: str) -> str:
    """Return the directory under which everything of ours is kept."""
    return f"{home.rstrip('/')}/.local/state/ekairos-sandbox"


def env_lines(env: Sequence[tuple[str, str]]) -> bytes:
    """Return sh that exports variables; those that an sh cannot hold become arguments of env."""
    lines = []
    for name, value in env:
        if name in _NOT_FOR_SH:
            lines.append(b'set -- "$@" ' + quote(f"{name}={value}"))
        else:
            lines.append(b"export %s=%s" % (name.encode(), quote(value)))
    return b"".join(line + b"\n" for line in lines)


def ask(
    connection: Connection,
    build: Callable[[str], bytes],
    read: Callable[[list[str]], T | None],
    *,
    timeout_s: float,
    max_bytes: int,
) -> T:
    """Run one script and return what ``read`` makes of the first frame that fits.

    Args:
        connection: The way into the sandbox.
        build: Makes the script for a nonce.
        read: Reads the fields of a frame; None if they do not fit.
        timeout_s: Deadline of the call.
        max_bytes: Bound of its output.

    Raises:
        ProviderError: The connection's own; ``outcome="unknown"`` for an answer that was cut or
            damaged.
    """
    nonce = envelope.new_nonce()
    # Not kept in a variable: beside its parts it would double the memory that an answer takes.
    for fields in envelope.frames(
        connection.shell(build(nonce), timeout_s=timeout_s, max_bytes=max_bytes), nonce
    ):
        if fields[0] == "error":
            raise Refused(fields[1] if len(fields) > 1 else "")
        found = read(fields)
        if found is not None:
            return found
    raise ProviderUnavailableError(
        "the sandbox's answer was cut or damaged", operation="shell", outcome="unknown"
    )


def may_repeat(error: SandboxError) -> bool:
    """Whether a call that is safe to repeat is worth repeating after this error."""
    return (
        isinstance(error, ProviderError)
        and not isinstance(error, (SandboxGoneError, SandboxNotRunningError))
        and error.retryable is not False
    )


class JobCalls:
    """The calls that a ``JobRunner`` is made of, each with its repetitions."""

    def __init__(
        self, connection: Connection, *, home: str, epoch: str, clock: Clock, policy: RetryPolicy
    ) -> None:
        self.connection = connection
        self.home = home
        self.root = job_root(home)
        self.epoch = epoch
        self.clock = clock
        self.policy = policy

    def start(self, spec: JobSpec, *, part: Window, window_s: float, follow: bool) -> JobAnswer:
        """Start a job, at most once whatever happens, and take a first look at it."""
        token, digest = envelope.new_nonce(), spec.digest()
        body = self._deliver(spec, token, digest, part, window_s, follow=follow)
        unsure = False

        def attempt() -> JobAnswer:
            nonlocal unsure
            try:
                answer = ask(
                    self.connection,
                    lambda nonce: scripts.script(self._head(nonce, spec.command_id), body),
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
            lambda nonce: scripts.script(
                self._head(nonce, command_id),
                b"ek_bell= ek_sup=\n",
                scripts.fill(scripts.JUDGE),
                self._wait(part, window_s, follow=follow, kill=kill),
                scripts.fill(scripts.SWEEP),
                _answer(part, want_argv=want_argv),
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
                lambda nonce: scripts.script(
                    self._head(nonce, "-"),
                    scripts.fill(scripts.JUDGE),
                    scripts.fill(scripts.LIST),
                ),
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
                lambda nonce: scripts.script(
                    self._head(nonce, "-"),
                    scripts.fill(scripts.JUDGE),
                    _purge(older_than_s),
                    b'ek_count=0\nek_purge\nek_say "purged:$ek_count"\n',
                ),
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

    def _deliver(
        self,
        spec: JobSpec,
        token: str,
        digest: str,
        part: Window,
        window_s: float,
        *,
        follow: bool,
    ) -> bytes:
        """Upload what is too large to go with the call; return the call's script but its head."""
        run, given = self._supervisor(spec, token, digest), spec.input
        longest = min(self.connection.max_script_bytes or INLINE_SCRIPT_BYTES, INLINE_SCRIPT_BYTES)
        longest -= len(scripts.script(self._head("0" * 16, spec.command_id)))
        small = given is not None and given.size <= INLINE_STDIN_BYTES
        for inline_script, inline_input in ((True, small), (True, False), (False, False)):
            delivery = self._delivery(token, run, given, inline_script, inline_input)
            body = self._start_body(delivery, digest, part, window_s, follow=follow)
            if len(body) <= longest:
                break
        for name, chunks in delivery.uploads.items():
            self._upload(spec, name, chunks)
        return body

    def _delivery(
        self,
        token: str,
        run: bytes,
        given: SpooledInput | None,
        inline_script: bool,
        inline_input: bool,
    ) -> _Delivery:
        uploads: dict[str, Callable[[], Iterator[bytes]]] = {}
        if inline_script:
            text = b'ek_run=$ek_job/run.$ek_nonce && printf %s >"$ek_run"' % printf_format(run)
        else:
            uploads[f"{token}.run"] = lambda: iter([run])
            text = b"ek_run=%s" % quote(self._uploaded(f"{token}.run"))
        if given is None:
            text += b" && ek_in=/dev/null"
        elif inline_input:
            content = printf_format(b"".join(given.chunks()))
            text += b' && ek_in=$ek_job/in.$ek_nonce && printf %s >"$ek_in"' % content
        else:
            uploads[f"{token}.in"] = given.chunks
            text += b" && ek_in=%s" % quote(self._uploaded(f"{token}.in"))
        return _Delivery(text, uploads)

    def _uploaded(self, name: str) -> str:
        return f"{self.root}/up/{name}"

    def _upload(self, spec: JobSpec, name: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        path = self._uploaded(name)
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

    def _head(self, nonce: str, command_id: str) -> bytes:
        return scripts.fill(scripts.HEAD, nonce=nonce, root=self.root, id=command_id)

    def _start_body(
        self, delivery: _Delivery, digest: str, part: Window, window_s: float, *, follow: bool
    ) -> bytes:
        uploads = [quote(self._uploaded(name)) for name in delivery.uploads]
        parts = (
            b"ek_bell=\n",
            scripts.fill(scripts.SESSION),
            scripts.fill(scripts.JUDGE),
            scripts.fill(
                scripts.START,
                epoch=self.epoch,
                digest=digest,
                deliver=delivery.statements,
                cleanup=b" ".join([b"rm -f", *uploads]) if uploads else b":",
            ),
            _purge(PURGE_AGE_S),
            scripts.fill(scripts.HOUSEKEEPING, many=MANY_JOBS),
            self._wait(part, window_s, follow=follow),
            scripts.fill(scripts.SWEEP),
            _answer(part),
        )
        return b"".join(parts)

    def _supervisor(self, spec: JobSpec, token: str, digest: str) -> bytes:
        words = b" ".join(quote(word) for word in spec.argv)
        if "=" in spec.argv[0]:
            # env(1) would take the program's name for a variable.
            words = b'"$ek_sh" -c \'exec "$@"\' sh ' + words
        cwd = spec.cwd
        if cwd is not None and not cwd.startswith("/"):
            cwd = f"./{cwd}"
        return scripts.fill(
            scripts.SUPERVISOR,
            root=self.root,
            mark=token,
            id=spec.command_id,
            digest=digest,
            timeout="" if spec.timeout_s is None else f"{max(spec.timeout_s, 0.01):.3f}",
            grace=math.ceil(spec.grace_s * 10),
            blocks=max(1, math.ceil(spec.stored_cap_bytes / 512)),
            argv=encode_argv(spec.argv),
            env=env_lines(list(spec.env.items())),
            home=self.home,
            cwd=b":" if cwd is None else b"cd -- " + quote(as_bytes(cwd)),
            prog=spec.argv[0],
            words=words,
            awake=self._awake(),
        )

    def _awake(self) -> bytes:
        fragment = self.connection.keep_awake
        if not fragment:
            return b""
        return scripts.fill(
            scripts.AWAKE, keep_awake=fragment.encode(), first=AWAKE_FIRST_S, again=AWAKE_AGAIN_S
        )

    def _wait(self, part: Window, window_s: float, *, follow: bool, kill: Kill = "") -> bytes:
        out_offset, err_offset = part.offsets or (0, 0)
        return scripts.fill(
            scripts.WAIT,
            window=math.ceil(window_s),
            follow="y" if follow else "",
            kill=kill,
            out_offset=out_offset,
            err_offset=err_offset,
        )


def _answer(part: Window, *, want_argv: bool = False) -> bytes:
    out_from, err_from = part.offsets or ("-", "-")
    return scripts.fill(
        scripts.ANSWER,
        out_from=out_from,
        err_from=err_from,
        out_limit=part.limits[0],
        err_limit=part.limits[1],
        want_argv=b"y" if want_argv else b"",
    )


def _purge(older_than_s: float) -> bytes:
    minutes = math.ceil(older_than_s / 60)
    return scripts.fill(scripts.PURGE, age=b"-mmin +%d" % minutes if minutes else b"")


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
