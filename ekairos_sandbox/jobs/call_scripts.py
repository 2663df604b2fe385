"""The scripts of the calls about jobs, filled in for one sandbox."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ekairos_sandbox.jobs import scripts
from ekairos_sandbox.jobs.answers import Window, encode_argv
from ekairos_sandbox.jobs.spec import JobSpec, SpooledInput
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.shell.quoting import as_bytes, printf_format, quote

INLINE_STDIN_BYTES = 48 * 1024
INLINE_SCRIPT_BYTES = 512 * 1024
MANY_JOBS = 500
"""Above this number of job directories a start also deletes old ones."""

PURGE_AGE_S = 7 * 86400.0

AWAKE_FIRST_S = 8
"""After how long a command's supervisor begins to keep the machine awake."""

AWAKE_AGAIN_S = 30
"""How often it does so again."""

Kill = Literal["", "kill", "void", "cancel"]

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


@dataclass(frozen=True)
class StartCall:
    """A call that starts a job.

    Attributes:
        script: Makes its script for a nonce.
        uploads: What has to be in the sandbox before, by path: the content of each file.
    """

    script: Callable[[str], bytes]
    uploads: dict[str, Callable[[], Iterator[bytes]]]


@dataclass(frozen=True)
class _Delivery:
    """How a job's script and input get into the sandbox.

    Attributes:
        statements: sh that sets ``ek_run`` and ``ek_in``, with whatever travels inside the call.
        uploads: What does not: the path of each file, and its content.
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


class CallScripts:
    """Makes the scripts of all calls about the jobs of one sandbox.

    Args:
        connection: What it says of its scripts' length counts, and its ``keep_awake``.
        home: As ``prepare`` returned it.
        epoch: As given to ``prepare``.
    """

    def __init__(self, connection: Connection, *, home: str, epoch: str) -> None:
        self._connection = connection
        self._home = home
        self._root = job_root(home)
        self._epoch = epoch

    def start(
        self, spec: JobSpec, token: str, *, part: Window, window_s: float, follow: bool
    ) -> StartCall:
        """Start a job and take a first look at it.

        As much as possible travels in the call itself: all, or all but the input, or neither that
        nor the supervisor's script.
        """
        digest, given = spec.digest(), spec.input
        run = self._supervisor(spec, token, digest)
        limit = self._connection.max_script_bytes or INLINE_SCRIPT_BYTES
        longest = min(limit, INLINE_SCRIPT_BYTES)
        longest -= len(scripts.script(self._head("0" * 16, spec.command_id)))
        small = given is not None and given.size <= INLINE_STDIN_BYTES
        for inline_script, inline_input in ((True, small), (True, False), (False, False)):
            delivery = self._delivery(token, run, given, inline_script, inline_input)
            body = self._start_body(delivery, digest, part, window_s, follow=follow)
            if len(body) <= longest:
                break
        return StartCall(
            lambda nonce: scripts.script(self._head(nonce, spec.command_id), body),
            delivery.uploads,
        )

    def look(
        self,
        nonce: str,
        command_id: str,
        *,
        part: Window,
        window_s: float,
        follow: bool,
        kill: Kill,
        want_argv: bool,
    ) -> bytes:
        """Wait for a job and tell what it is doing."""
        return scripts.script(
            self._head(nonce, command_id),
            b"ek_bell= ek_sup=\n",
            scripts.fill(scripts.JUDGE),
            _wait(part, window_s, follow=follow, kill=kill),
            scripts.fill(scripts.SWEEP),
            _answer(part, want_argv=want_argv),
        )

    def list(self, nonce: str) -> bytes:
        """Tell the state of every job."""
        return scripts.script(
            self._head(nonce, "-"), scripts.fill(scripts.JUDGE), scripts.fill(scripts.LIST)
        )

    def purge(self, nonce: str, older_than_s: float) -> bytes:
        """Delete jobs that ended long ago."""
        return scripts.script(
            self._head(nonce, "-"),
            scripts.fill(scripts.JUDGE),
            _purge(older_than_s),
            b'ek_count=0\nek_purge\nek_say "purged:$ek_count"\n',
        )

    def _delivery(
        self,
        token: str,
        run: bytes,
        given: SpooledInput | None,
        inline_script: bool,
        inline_input: bool,
    ) -> _Delivery:
        uploads: dict[str, Callable[[], Iterator[bytes]]] = {}
        if given is None:
            text = b"ek_in=/dev/null"
        elif inline_input:
            content = printf_format(b"".join(given.chunks()))
            text = b'ek_in=$ek_job/in.$ek_nonce && printf %s >"$ek_in"' % content
        else:
            path = self._uploaded(f"{token}.in")
            uploads[path] = given.chunks
            text = b"ek_in=%s" % quote(path)
        # The script after the input: whoever has claimed the job empties both, and a supervisor
        # whose script was emptied does not remove the input.
        if inline_script:
            text += b' && ek_run=$ek_job/run.$ek_nonce && printf %s >"$ek_run"' % printf_format(run)
        else:
            path = self._uploaded(f"{token}.run")
            uploads[path] = lambda: iter([run])
            text += b" && ek_run=%s" % quote(path)
        return _Delivery(text, uploads)

    def _uploaded(self, name: str) -> str:
        return f"{self._root}/up/{name}"

    def _head(self, nonce: str, command_id: str) -> bytes:
        return scripts.fill(scripts.HEAD, nonce=nonce, root=self._root, id=command_id)

    def _start_body(
        self, delivery: _Delivery, digest: str, part: Window, window_s: float, *, follow: bool
    ) -> bytes:
        uploads = [quote(path) for path in delivery.uploads]
        parts = (
            b"ek_bell=\n",
            scripts.fill(scripts.SESSION),
            scripts.fill(scripts.JUDGE),
            scripts.fill(
                scripts.START,
                epoch=self._epoch,
                digest=digest,
                deliver=delivery.statements,
                cleanup=b" ".join([b"rm -f", *uploads]) if uploads else b":",
            ),
            _purge(PURGE_AGE_S),
            scripts.fill(scripts.HOUSEKEEPING, many=MANY_JOBS),
            _wait(part, window_s, follow=follow),
            scripts.fill(scripts.SWEEP),
            scripts.fill(scripts.SAME),
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
            root=self._root,
            mark=token,
            id=spec.command_id,
            digest=digest,
            timeout="" if spec.timeout_s is None else f"{max(spec.timeout_s, 0.01):.3f}",
            grace=math.ceil(spec.grace_s * 10),
            blocks=max(1, math.ceil(spec.stored_cap_bytes / 512)),
            argv=encode_argv(spec.argv),
            env=env_lines(list(spec.env.items())),
            home=self._home,
            cwd=b":" if cwd is None else b"cd -- " + quote(as_bytes(cwd)),
            prog=spec.argv[0],
            words=words,
            awake=self._awake(),
        )

    def _awake(self) -> bytes:
        fragment = self._connection.keep_awake
        if not fragment:
            return b""
        return scripts.fill(
            scripts.AWAKE, keep_awake=fragment.encode(), first=AWAKE_FIRST_S, again=AWAKE_AGAIN_S
        )


def _wait(part: Window, window_s: float, *, follow: bool, kill: Kill = "") -> bytes:
    out_offset, err_offset = part.offsets or (0, 0)
    return scripts.fill(
        scripts.WAIT,
        window=math.ceil(window_s),
        follow="y" if follow else "",
        kill=kill,
        out_offset=out_offset,
        err_offset=err_offset,
        out_full=out_offset + part.limits[0],
        err_full=err_offset + part.limits[1],
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
