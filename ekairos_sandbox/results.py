"""What the verbs return: ``Ok`` or ``Err`` at the edge, and plain immutable values inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, NoReturn, TypeAlias, TypeVar

from ekairos_sandbox.exceptions import CommandFailedError, SandboxError

if TYPE_CHECKING:
    from ekairos_sandbox.models import SandboxRecord

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[T_co]):
    """A verb succeeded; ``data`` is what it returns."""

    data: T_co
    ok: Literal[True] = field(default=True, init=False)

    def unwrap(self) -> T_co:
        """Return ``data``."""
        return self.data

    def __bool__(self) -> NoReturn:
        raise TypeError("a result is neither true nor false: test `.ok`, or call `.unwrap()`")


@dataclass(frozen=True, slots=True)
class Err:
    """A verb failed.

    Attributes:
        error: The message, safe to show.
        code: The stable code of the error, e.g. ``"sandbox_stopped"``.
        exception: The exception that ``service.raising`` would have raised.
    """

    error: str
    code: str
    exception: SandboxError
    ok: Literal[False] = field(default=False, init=False)

    def unwrap(self) -> NoReturn:
        """Raise the exception."""
        raise self.exception

    def __bool__(self) -> NoReturn:
        raise TypeError("a result is neither true nor false: test `.ok`, or call `.unwrap()`")


ServiceResult: TypeAlias = Ok[T_co] | Err
"""What the verbs of ``SandboxService`` return; ``.ok`` tells which."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. A non-zero exit and a timeout are results, not errors.

    Attributes:
        command_id: Id of the command; ``get_command`` finds it again.
        command: The argument vector that was run.
        exit_code: 0-255; 128 + n when signal n ended it; None when it timed out or was cancelled.
        stdout: At most 64 KiB of standard output: all of it, or head and tail if ``truncated``.
        stderr: The same of standard error.
        stdout_size: Bytes of standard output that were stored in the sandbox.
        stderr_size: The same of standard error.
        truncated: Whether ``stdout`` or ``stderr`` hold less than the command wrote.
        dropped: Whether the sandbox itself kept less than the command wrote: more than is stored
            of a stream, or its disk was full. What is stored can be fetched in whole.
        timed_out: Whether the timeout ended it.
        cancelled: Whether ``kill`` or Ctrl-C ended it.
        duration_ms: How long it ran inside the sandbox, in steps of 10 ms.
        recreated: Whether the sandbox had to be made anew for this command: its earlier files
            are gone.
    """

    command_id: str
    command: tuple[str, ...]
    exit_code: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_size: int = 0
    stderr_size: int = 0
    truncated: bool = False
    dropped: bool = False
    timed_out: bool = False
    cancelled: bool = False
    duration_ms: int = 0
    recreated: bool = False

    @property
    def success(self) -> bool:
        """Whether the command ended by itself with exit code 0."""
        return self.exit_code == 0

    @property
    def output(self) -> str:
        """``stdout`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def error(self) -> str:
        """``stderr`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stderr.decode("utf-8", "replace")

    def check(self) -> CommandResult:
        """Return self if the command succeeded.

        Raises:
            CommandFailedError: The command exited non-zero, timed out or was cancelled.
        """
        if self.success:
            return self
        if self.timed_out:
            how = "timed out"
        elif self.cancelled:
            how = "was cancelled"
        else:
            how = f"exited with code {self.exit_code}"
        raise CommandFailedError(
            f"command {self.command_id} {how}", command_id=self.command_id, result=self
        )


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of a running command's output.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        offset: Where in the stream the piece begins, in bytes.
        data: The bytes; never empty.
    """

    stream: Literal["stdout", "stderr"]
    offset: int
    data: bytes


CommandState = Literal["created", "running", "exited", "killed", "lost"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored state of a sandbox's files.

    Attributes:
        id: The provider's id of it.
        created_at: Epoch milliseconds, or None if the provider does not say.
        comment: The text given when it was made, or "".
    """

    id: str
    created_at: int | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class PreviewUrl:
    """Where a port of the sandbox can be reached.

    Attributes:
        url: The address.
        token: A secret that the address needs, or None; not part of ``repr``.
        headers: Headers to send with each request, the token among them; not part of ``repr``.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class TransferStats:
    """What an upload or download moved.

    Attributes:
        files: Number of regular files.
        bytes: Bytes of file content.
        skipped: Names that were left out, each with the reason (links that point outside, devices).
    """

    files: int
    bytes: int
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordPage:
    """One page of records.

    Attributes:
        records: The records, newest first.
        cursor: Pass it on to get the next page; None on the last page.
        broken: Ids of records of this page that could not be read, each with the reason.
    """

    records: tuple[SandboxRecord, ...]
    cursor: str | None = None
    broken: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ReconcileAction:
    """One thing that ``reconcile`` found.

    Attributes:
        kind: What: ``"finish-create"``, ``"release"``, ``"lost"``, ``"expired"``,
            ``"unrecorded"``, ``"skipped"``.
        sandbox_id: The durable id.
        provider: The provider's name.
        external_id: The provider's id of the sandbox, if known.
        detail: One sentence in words.
        applied: Whether it was done; False in a dry run and where ``error`` says why not.
        error: Why it could not be done, or None.
    """

    kind: str
    sandbox_id: str
    provider: str
    external_id: str | None
    detail: str
    applied: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """What ``reconcile`` found and did.

    Attributes:
        actions: Everything that is not as recorded.
        checked: Number of records looked at.
        applied: Whether changes were allowed.
    """

    actions: tuple[ReconcileAction, ...]
    checked: int
    applied: bool

    @property
    def errors(self) -> tuple[ReconcileAction, ...]:
        """The actions that failed."""
        return tuple(a for a in self.actions if a.error is not None)
