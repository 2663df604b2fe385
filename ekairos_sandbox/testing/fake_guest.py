"""The inside of a sandbox that exists in memory only: commands have scripted results.

It reads the scripts that the library sends as far as it must: which job, which command, which
part of the output. Nothing is run.
"""

from __future__ import annotations

import base64
import re
import shlex
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import ProviderUnavailableError

HOME = "/home/fake"


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


@dataclass(frozen=True, slots=True)
class FakeCommand:
    """A command that was started.

    Attributes:
        command_id: Its id.
        argv: Program and arguments.
        stdin: Its standard input.
        env: The variables given with it, not those of the sandbox.
        sandbox_id: The durable id of the sandbox it was started in.
    """

    command_id: str
    argv: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    sandbox_id: str = ""


@dataclass
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


class FakeGuest:
    """One sandbox's inside.

    Args:
        clock: Decides when commands end.
        run: Called once for each command that starts; says how it ends.

    Attributes:
        files: Content and mode by absolute path.
        epoch: The mark of its preparation; None until then.
    """

    def __init__(self, clock: Clock, run: Callable[[FakeCommand], FakeResult]) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}
        self.epoch: str | None = None
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
        text = script.decode("ascii", "surrogateescape")
        if 'say "stat:$(' in text or 'rm -f "$P" && say done' in text:
            return self._file(text)
        nonce = _word(text, r"ek_nonce=(\w+)")
        if "ek_new=" in text:
            return self._prepare(text, nonce)
        if "ek_list=" in text:
            return self._list(nonce)
        if "ek_count=0\nek_purge\nek_say" in text:
            return self._purge(nonce)
        if "ek_job=" in text:
            return self._job(text, nonce)
        raise ProviderUnavailableError("a fake sandbox does not understand this script")

    def end_all(self) -> None:
        """End every command that runs, as stopping the sandbox does."""
        with self._lock:
            now = self._clock.monotonic()
            for name, job in list(self._jobs.items()):
                if job.ends > now:
                    del self._jobs[name]

    def snapshot(self) -> tuple[dict[str, tuple[bytes, int]], str | None, dict[str, _Job]]:
        """Return the state of the files, for ``restore``."""
        with self._lock:
            return dict(self.files), self.epoch, dict(self._jobs)

    def restore(
        self, state: tuple[dict[str, tuple[bytes, int]], str | None, dict[str, _Job]]
    ) -> None:
        """Return to a state of ``snapshot``."""
        with self._lock:
            self.files, self.epoch, self._jobs = dict(state[0]), state[1], dict(state[2])

    def _file(self, text: str) -> bytes:
        """Say what a path is, or remove it."""
        nonce = _word(text, r"; N=(\w+)")
        odd = re.search(r"\nP=\$\(printf '([^']*)'\)", text)
        path = _unformatted(odd[1])[:-1].decode() if odd else _word(text, r"\nP=(\S+|'[^\n]*')\n")
        with self._lock:
            if "say done" in text:
                self.files.pop(path, None)
                return _frame(nonce, "done")
            if path in self.files:
                content, mode = self.files[path]
                return _frame(nonce, "stat", str(len(content)), f"{stat.S_IFREG | mode:x}")
            if any(name.startswith(f"{path.rstrip('/')}/") for name in self.files):
                return _frame(nonce, "stat", "4096", f"{stat.S_IFDIR | 0o755:x}")
        return _frame(nonce, "no", "0", "noent", "b")

    def _prepare(self, text: str, nonce: str) -> bytes:
        epoch = _word(text, r'echo "(\S*)" >"\$ek_new/epoch"')
        with self._lock:
            if epoch:
                self.epoch = epoch
        return _frame(nonce, "prepared", "b", _b64(HOME.encode()))

    def _list(self, nonce: str) -> bytes:
        with self._lock:
            states = [f"{name}={self._state(job)}" for name, job in sorted(self._jobs.items())]
        return _frame(nonce, "list", *states)

    def _purge(self, nonce: str) -> bytes:
        with self._lock:
            done = [name for name, job in self._jobs.items() if self._state(job) != "running"]
            self._purged.update(done)
            for name in done:
                del self._jobs[name]
        return _frame(nonce, "purged", str(len(done)))

    def _job(self, text: str, nonce: str) -> bytes:
        command_id = _word(text, r"ek_id=(\S+)")
        if "ek_refuse() {" in text:
            with self._lock:
                refusal = self._start(text, command_id)
            if refusal:
                return _frame(nonce, "error", refusal)
        kill = _word(text, r"ek_kill=(\w*)")
        window = int(_word(text, r"ek_window=([0-9]+)"))
        with self._lock:
            job = self._killed(command_id, kill)
            rest = 0.0 if job is None else job.ends - self._clock.monotonic()
        if rest > 0 and window > 0:
            follow = _word(text, r"ek_follow=(\w*)")
            self._clock.sleep(min(rest, 1 if follow else window))
        with self._lock:
            return self._answer(text, nonce, command_id)

    def _start(self, text: str, command_id: str) -> str:
        """Start a command unless it was started before; return why not, or ""."""
        if self.epoch is None or _word(text, r'\[ "\$ek_epoch" = (\S+) \]') != self.epoch:
            return "epoch"
        digest = _word(text, r'\[ "\$ek_digest" != (\w+) \]')
        known = self._jobs.get(command_id)
        if known is not None:
            return "" if known.digest == digest or known.void else "conflict"
        if command_id in self._purged:
            return "purged"
        supervisor = self._delivered(text, "run").decode("ascii", "surrogateescape")
        argv = _word(supervisor, r"""printf '%s\.' '([^']*)' >"\$ek_job/argv""").encode()
        words = base64.b64decode(argv).split(b"\0")[:-1]
        variables = supervisor.partition('. "$ek_root/env"\n')[2].partition("export EKAIROS_JOB=")[
            0
        ]
        command = FakeCommand(
            command_id,
            tuple(word.decode("utf-8", "surrogateescape") for word in words),
            self._delivered(text, "in"),
            dict(word.split("=", 1) for word in shlex.split(variables) if "=" in word),
        )
        result = self._run(command)
        now = self._clock.monotonic()
        limit = _word(supervisor, r"ek_timeout=([0-9.]*)")
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
            job.ends, job.exit_code, job.why = now, 143, "cancel"
        return job

    def _answer(self, text: str, nonce: str, command_id: str) -> bytes:
        job = self._jobs.get(command_id)
        if job is None:
            state = "purged" if command_id in self._purged else "unknown"
            job = _Job("", b"", 0, 0)
        else:
            state = "void" if job.void else "running" if self._state(job) == "running" else "exited"
        ended = state == "exited"
        code, why = (str(job.exit_code), job.why) if ended else ("-", "-")
        times = [f"{at:.2f}" if ended else "-" for at in (job.started, job.ends)]
        sizes = [str(len(job.stdout)), str(len(job.stderr))]
        argv = job.argv.decode() + "." if "ek_job/argv" in text and job.argv else ""
        wanted = re.search(r'\[ -z "y" \] \|\| \[ ! -f "\$ek_job/argv"', text)
        parts = [
            _b64(_part(text, name, data))
            for name, data in (("out", job.stdout), ("err", job.stderr))
        ]
        return _frame(
            nonce,
            *("job", "b", state, code, why, "-", *times, "n", *sizes, *parts),
            argv if wanted else "",
            ",".join((state, code, why, *sizes)),
        )

    def _state(self, job: _Job) -> str:
        if job.void:
            return "void"
        if job.ends > self._clock.monotonic():
            return "running"
        return "exited" if job.why == "-" else "killed"

    def _delivered(self, text: str, what: str) -> bytes:
        """Return the supervisor's script or the input: part of the call, or uploaded before."""
        inline = re.search(rf"""printf %s '([^']*)' >"\$ek_{what}\"""", text) or re.search(
            rf"""printf '([^']*)' >"\$ek_{what}\"""", text
        )
        if inline:
            return _unformatted(inline[1])
        uploaded = re.search(rf"ek_{what}=('[^']*'|/\S+)", text)
        path = shlex.split(uploaded[1])[0] if uploaded else ""
        return self.files.pop(path, (b"", 0))[0]


def _word(text: str, pattern: str) -> str:
    """Return what a pattern finds, without the quotes of sh.

    Raises:
        ProviderUnavailableError: Nothing.
    """
    found = re.search(pattern, text)
    if found is None:
        raise ProviderUnavailableError("a fake sandbox does not understand this script")
    words = shlex.split(found[1])
    return words[0] if words else ""


def _unformatted(text: str) -> bytes:
    """Return what ``printf`` makes of a format of ``shell.quoting.printf_format``."""
    plain = {"%%": b"%", "\\\\": b"\\", "\\n": b"\n"}
    pieces = re.findall(r"%%|\\\\|\\n|\\[0-7]{3}|[^%\\]+", text)
    return b"".join(
        plain.get(piece)
        or (bytes([int(piece[1:], 8)]) if piece.startswith("\\") else piece.encode())
        for piece in pieces
    )


def _part(text: str, name: str, data: bytes) -> bytes:
    found = re.search(rf'ek_part "\$ek_job/{name}" "\$ek_.*?" (\S+) ([0-9]+)', text)
    if found is None:
        raise ProviderUnavailableError("a fake sandbox does not understand this script")
    offset, limit = found[1], int(found[2])
    if offset != "-":
        return data[int(offset) : int(offset) + limit]
    if len(data) <= limit:
        return data
    return data[: limit // 2] + data[len(data) - (limit - limit // 2) :]


def _frame(nonce: str, *fields: str) -> bytes:
    return f"\n@EK1:{nonce}:{':'.join(fields)}:{nonce}@\n".encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data
