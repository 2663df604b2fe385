"""Finding and running other programs: git and docker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ekairos_sandbox_daytona.oss.problems import ExitCode, StackError

_KEPT_LINES = 40
# What a git hook or a wrapper may have set for another repository than ours.
_GIT_LOCAL = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: Its exit code.
        output: Its standard output; empty when that went to the terminal.
        error: The last lines of its standard error.
    """

    code: int
    output: str
    error: str

    @property
    def reason(self) -> str:
        """The line of the error output that says most, for a message of one line."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip()]
        telling = [line for line in lines if line.lower().startswith(("fatal:", "error"))]
        return (telling or lines or [f"exit code {self.code}"])[-1]


class Program:
    """A program on ``PATH``.

    Args:
        name: Such as ``"git"``.
        environ: Its environment; ``PATH`` is searched too.
        missing: Raised when it is not there.
    """

    def __init__(self, name: str, environ: Mapping[str, str], missing: StackError) -> None:
        self._name = name
        self._environ = {key: value for key, value in environ.items() if key not in _GIT_LOCAL}
        # Messages are read, and nobody is there to type a password.
        self._environ |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        self._missing = missing

    def path(self) -> str:
        """Return where it is.

        Raises:
            StackError: It is not installed.
        """
        found = shutil.which(self._name, path=self._environ.get("PATH"))
        if found is None:
            raise self._missing
        return found

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> Ended:
        """Run it to its end and return what it wrote."""
        done = subprocess.run(  # noqa: S603 - an argument vector, no shell
            self._vector(arguments),
            cwd=cwd,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def show(self, *arguments: str | Path, stderr: TextIO | None = None) -> Ended:
        """Run it to its end while the user watches its output.

        Standard output goes where ours goes; standard error is passed on line by line.
        """
        stderr = stderr or sys.stderr
        kept: deque[str] = deque(maxlen=_KEPT_LINES)
        sys.stdout.flush()
        with subprocess.Popen(  # noqa: S603 - an argument vector, no shell
            self._vector(arguments),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                kept.append(line)
                stderr.write(line)
        return Ended(process.returncode, "", "".join(kept))

    def _vector(self, arguments: Sequence[str | Path]) -> list[str]:
        return [self.path(), *(str(argument) for argument in arguments)]


def git(environ: Mapping[str, str]) -> Program:
    """Return git."""
    hint = "install it, for example from https://git-scm.com"
    return Program("git", environ, StackError(ExitCode.GIT_MISSING, "git is not installed", hint))


def docker(environ: Mapping[str, str]) -> Program:
    """Return docker."""
    hint = "install Docker Desktop, or Docker Engine with the compose plugin"
    missing = StackError(ExitCode.DOCKER_MISSING, "docker is not installed", hint)
    return Program("docker", environ, missing)
