"""The inside of a sandbox that exists in memory only: commands have scripted results.

It reads the scripts that the library sends as far as it must: which job, which command, which
part of the output. Nothing is run.
"""

from __future__ import annotations

import base64
import posixpath
import re
import shlex
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    ProviderUnavailableError,
    RemoteFileError,
    RemoteFileNotFoundError,
)
from ekairos_sandbox.testing.fake_scripts import (
    b64,
    frame,
    part,
    unformatted,
    variables,
    word,
    words,
)

HOME = "/home/fake"
_STORED_ENV = f"{HOME}/.local/state/ekairos-sandbox/env"


@dataclass(frozen=True, slots=True)
class FakeResult:
    """How a command ends.

    Attributes:
        exit_code: 0-255.
        stdout: What it writes to standard output, at its start.
        stderr: The same for standard error.
        duration_s: How long it runs on the provider's clock.
    """

    exit_code: int = 0
    stdout: bytes | str = b""
    stderr: bytes | str = b""
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.exit_code <= 255:
            raise ValueError("an exit code is from 0 to 255")


@dataclass(frozen=True, slots=True)
class FakeCommand:
    """A command that was started.

    Attributes:
        command_id: Its id.
        argv: Program and arguments.
        stdin: Its standard input.
        env: The variables given with it, not those of the sandbox.
        cwd: Its working directory: the sandbox's home unless another was asked for.
        sandbox_env: The variables that the sandbox was created with.
        sandbox_id: The durable id of the sandbox it was started in.
    """

    command_id: str
    argv: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str = HOME
    sandbox_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    sandbox_id: str = ""


@dataclass(frozen=True)
class _Job:
    digest: str
    argv: bytes
    started: float
    ends: float
    exit_code: int = 0
    why: str = "-"
    stdout: bytes = b""
    stderr: bytes = b""
    void: bool = False
    lost: bool = False


Snapshot = tuple[dict[str, tuple[bytes, int]], str | None, dict[str, str], dict[str, _Job]]
"""Files, epoch, environment and commands of a fake sandbox at one time."""


class FakeGuest:
    """One sandbox's inside.

    Args:
        clock: Decides when commands end.
        run: Called once for each command that starts; says how it ends.

    Attributes:
        files: Content and mode by absolute path.
        epoch: The mark of its preparation; None until then.
        env: The variables that the sandbox was created with.
    """

    def __init__(self, clock: Clock, run: Callable[[FakeCommand], FakeResult]) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}
        self.epoch: str | None = None
        self.env: dict[str, str] = {}
        self._clock = clock
        self._run = run
        self._jobs: dict[str, _Job] = {}
        self._purged: set[str] = set()
        self._lock = threading.RLock()

    def shell(self, script: bytes) -> bytes:
        """Answer one script.

        Raises:
            ProviderUnavailableError: It is none of the scripts that are understood here.
        """
        text = script.decode("utf-8", "surrogateescape")
        if 'say "stat:$(' in text or 'rm -f "$P" && say done' in text:
            return self._file(text)
        nonce = word(text, r"ek_nonce=(\w+)")
        if "ek_new=" in text:
            return self._prepare(text, nonce)
        if "ek_list=" in text:
            return self._list(nonce)
        if "ek_count=0\nek_purge\nek_say" in text:
            return self._purge(text, nonce)
        if "ek_job=" in text:
            return self._job(text, nonce)
        raise ProviderUnavailableError("a fake sandbox does not understand this script")

    def end_all(self) -> None:
        """End every command that runs, as stopping the sandbox does; what became of it is lost."""
        with self._lock:
            for name, job in self._jobs.items():
                if self._state(job) == "running":
                    self._jobs[name] = replace(job, ends=self._clock.monotonic(), lost=True)

    def snapshot(self) -> Snapshot:
        """Return the state of the files, for ``restore``."""
        with self._lock:
            return dict(self.files), self.epoch, dict(self.env), dict(self._jobs)

    def restore(self, state: Snapshot) -> None:
        """Return to a state of ``snapshot``; the commands that ran then do not run again."""
        with self._lock:
            self.files, self.epoch = dict(state[0]), state[1]
            self.env, self._jobs = dict(state[2]), dict(state[3])
            self.end_all()

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            RemoteFileNotFoundError: There is none.
            RemoteFileError: It is a directory.
        """
        with self._lock:
            self._refuse_directory(path)
            try:
                return self.files[posixpath.normpath(path)][0]
            except KeyError:
                raise RemoteFileNotFoundError(f"no such file: {path!r}", path=path) from None

    def write(self, path: str, content: bytes, mode: int) -> None:
        """Write a file; directories need not be made.

        Raises:
            RemoteFileError: A directory is in the way, or a file where one would have to be.
        """
        name = posixpath.normpath(path)
        with self._lock:
            self._refuse_directory(path)
            if any(name.startswith(f"{other}/") for other in self.files):
                raise RemoteFileError(f"a file is in the way of {path!r}", path=path)
            self.files[name] = (content, mode)

    def _refuse_directory(self, path: str) -> None:
        if self._is_directory(path):
            raise RemoteFileError(f"is a directory: {path!r}", path=path)

    def _is_directory(self, path: str) -> bool:
        below = f"{posixpath.normpath(path).rstrip('/')}/"
        return any(name.startswith(below) for name in (*self.files, f"{HOME}/"))

    def _file(self, text: str) -> bytes:
        """Say what a path is, or remove it."""
        nonce = word(text, r"; N=(\w+)")
        odd = re.search(r"\nP=\$\(printf '([^']*)'\)", text)
        path = unformatted(odd[1])[:-1].decode() if odd else word(text, r"\nP=(\S+|'[^\n]*')\n")
        with self._lock:
            if "say done" in text:
                self.files.pop(path, None)
                return frame(nonce, "done")
            if path in self.files:
                content, mode = self.files[path]
                return frame(nonce, "stat", str(len(content)), f"{stat.S_IFREG | mode:x}")
            if self._is_directory(path):
                return frame(nonce, "stat", "4096", f"{stat.S_IFDIR | 0o755:x}")
        return frame(nonce, "no", "0", "noent", "b")

    def _prepare(self, text: str, nonce: str) -> bytes:
        epoch = word(text, r'echo "(\S*)" >"\$ek_new/epoch"')
        given = re.search(r"printf '([^']*)' >\"\$ek_new/env\"", text)
        with self._lock:
            if '[ -z "y" ] || [ -f "$ek_root/env" ]' not in text:
                self._store_env(unformatted(given[1]) if given else b"")
            elif _STORED_ENV in self.files:
                self._store_env(self.files.pop(_STORED_ENV)[0])
            if epoch:
                self.epoch = epoch
        return frame(nonce, "prepared", "b", b64(HOME.encode()))

    def _store_env(self, lines: bytes) -> None:
        self.env = variables(lines.decode("utf-8", "surrogateescape"))

    def _list(self, nonce: str) -> bytes:
        with self._lock:
            states = [f"{name}={self._state(job)}" for name, job in sorted(self._jobs.items())]
        return frame(nonce, "list", *states)

    def _purge(self, text: str, nonce: str) -> bytes:
        minutes = re.search(r"-name status -mmin \+([0-9]+)", text)
        limit = self._clock.monotonic() - (60 * int(minutes[1]) if minutes else 0)
        with self._lock:
            done = [
                name
                for name, job in self._jobs.items()
                if self._state(job) != "running" and job.ends <= limit
            ]
            self._purged.update(done)
            for name in done:
                del self._jobs[name]
        return frame(nonce, "purged", str(len(done)))

    def _job(self, text: str, nonce: str) -> bytes:
        command_id = word(text, r"ek_id=(\S+)")
        if "ek_refuse() {" in text:
            with self._lock:
                refusal = self._start(text, command_id)
            if refusal:
                return frame(nonce, "error", refusal)
        kill = word(text, r"ek_kill=(\w*)")
        window = int(word(text, r"ek_window=([0-9]+)"))
        with self._lock:
            job = self._killed(command_id, kill)
            rest = 0.0 if job is None else job.ends - self._clock.monotonic()
        if rest > 0 and window > 0:
            follow = word(text, r"ek_follow=(\w*)")
            self._clock.sleep(min(rest, 1 if follow else window))
        with self._lock:
            return self._answer(text, nonce, command_id)

    def _start(self, text: str, command_id: str) -> str:
        """Start a command unless it was started before; return why not, or ""."""
        if self.epoch is None or word(text, r'\[ "\$ek_epoch" = (\S+) \]') != self.epoch:
            return "epoch"
        digest = word(text, r'\[ "\$ek_digest" != (\w+) \]')
        known = self._jobs.get(command_id)
        if known is not None:
            return "" if known.digest == digest or known.void else "conflict"
        if command_id in self._purged:
            return "purged"
        supervisor = self._delivered(text, "run").decode("utf-8", "surrogateescape")
        argv = word(supervisor, r"""printf '%s\.' '([^']*)' >"\$ek_job/argv""").encode()
        argv_words = base64.b64decode(argv).split(b"\0")[:-1]
        env = supervisor.partition('. "$ek_root/env"\n')[2].partition("export EKAIROS_JOB=")[0]
        change = words(supervisor, r"\|\| cd /\n(.*?) \|\| \{ echo nocwd")
        command = FakeCommand(
            command_id,
            tuple(each.decode("utf-8", "surrogateescape") for each in argv_words),
            stdin=self._delivered(text, "in"),
            env=variables(env),
            cwd=posixpath.normpath(posixpath.join(HOME, *change[2:])),
            sandbox_env=dict(self.env),
        )
        result = self._run(command)
        now = self._clock.monotonic()
        limit = word(supervisor, r"ek_timeout=([0-9.]*)")
        late = bool(limit) and result.duration_s > float(limit)
        self._jobs[command_id] = _Job(
            digest,
            argv,
            started=now,
            ends=now + (float(limit) if late else result.duration_s),
            exit_code=143 if late else result.exit_code,
            why="timeout" if late else "-",
            stdout=_bytes(result.stdout),
            stderr=_bytes(result.stderr),
        )
        return ""

    def _killed(self, command_id: str, kill: str) -> _Job | None:
        job = self._jobs.get(command_id)
        now = self._clock.monotonic()
        if job is None and kill in ("void", "cancel"):
            job = self._jobs[command_id] = _Job("-", b"", now, now, void=True)
        elif job is not None and kill in ("kill", "cancel") and self._state(job) == "running":
            job = replace(job, ends=now, exit_code=143, why="cancel")
            self._jobs[command_id] = job
        return job

    def _answer(self, text: str, nonce: str, command_id: str) -> bytes:
        job = self._jobs.get(command_id)
        if job is None:
            state = "purged" if command_id in self._purged else "unknown"
            job = _Job("", b"", 0, 0)
        else:
            state = self._state(job)
            state = "exited" if state == "killed" else state
        ended = state == "exited"
        code, why = (str(job.exit_code), job.why) if ended else ("-", "-")
        times = [f"{at:.2f}" if ended else "-" for at in (job.started, job.ends)]
        sizes = [str(len(job.stdout)), str(len(job.stderr))]
        argv = job.argv.decode() + "." if "ek_job/argv" in text and job.argv else ""
        wanted = re.search(r'\[ -z "y" \] \|\| \[ ! -f "\$ek_job/argv"', text)
        parts = [
            b64(part(text, name, data)) for name, data in (("out", job.stdout), ("err", job.stderr))
        ]
        return frame(
            nonce,
            *("job", "b", state, code, why, "-", *times, "n", *sizes, *parts),
            argv if wanted else "",
            ",".join((state, code, why, *sizes)),
        )

    def _state(self, job: _Job) -> str:
        if job.void or job.lost:
            return "void" if job.void else "lost"
        if job.ends > self._clock.monotonic():
            return "running"
        return "exited" if job.why == "-" else "killed"

    def _delivered(self, text: str, what: str) -> bytes:
        """Return the supervisor's script or the input: part of the call, or uploaded before."""
        inline = re.search(rf"""printf %s '([^']*)' >"\$ek_{what}\"""", text) or re.search(
            rf"""printf '([^']*)' >"\$ek_{what}\"""", text
        )
        if inline:
            return unformatted(inline[1])
        uploaded = re.search(rf"ek_{what}=('[^']*'|/\S+)", text)
        path = shlex.split(uploaded[1])[0] if uploaded else ""
        return self.files.pop(path, (b"", 0))[0]


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data
