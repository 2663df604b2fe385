"""The command line on a scratch home: called in this process, or as a process of its own.

The provider is ``folder`` of ``helpers.folder_provider``, installed for the occasion, so that it
works on every machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from ekairos_sandbox.cli.main import main

TESTS = Path(__file__).resolve().parents[1]

PLUGIN = """
from ekairos_sandbox.hookspecs import hookimpl

@hookimpl
def ekairos_sandbox_provider():
    from helpers.folder_provider import FolderProvider
    return FolderProvider
"""


def install(folder: Path, name: str, source: str = PLUGIN) -> Path:
    """Write a provider's distribution that a folder on ``sys.path`` offers; return the folder."""
    info = folder / f"cli_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"cli_{name}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cli-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ekairos_sandbox.providers]\n{name} = cli_{name}\n")
    return folder


@dataclass(frozen=True)
class Done:
    """How an invocation ended. ``code`` is below 0 if a signal ended it, as in ``subprocess``."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def line(self) -> str:
        """The only line of output."""
        (line,) = self.out.splitlines()
        return line


class CommandLine:
    """Invocations that share a home, a record store and a provider."""

    def __init__(
        self,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
        captured: pytest.CaptureFixture[bytes],
    ) -> None:
        self.home = home
        self.plugins = install(home / "plugins", "folder")
        self._captured = captured
        for name in list(os.environ):
            if name.startswith(("EKAIROS", "SANDBOX", "INSTANT", "NEXT_PUBLIC", "_EKAIROS")):
                monkeypatch.delenv(name)
        self.environ = {
            "HOME": str(home),
            "EKAIROS_FOLDER_ROOT": str(home / "folders"),
            "EKAIROS_SANDBOX_STORE": f"sqlite:///{home}/records.db",
            "SANDBOX_PROVIDER": "folder",
        }
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(str(self.plugins))

    def __call__(self, *words: str) -> Done:
        """Carry out one invocation in this process."""
        self._captured.readouterr()
        code = main(words)
        out, err = self._captured.readouterr()
        return Done(code, out, err.decode())

    def ok(self, *words: str) -> Done:
        """Carry out one invocation that must succeed."""
        done = self(*words)
        assert done.code == 0, done.stderr
        return done

    def create(self, *options: str) -> str:
        """Create a sandbox and return its id."""
        return self.ok("create", *options).line

    def command(self, *words: str) -> list[str]:
        """Return the argument vector of an invocation as a process of its own."""
        return [sys.executable, "-W", "error::ResourceWarning", "-m", "ekairos_sandbox", *words]

    def process_environ(self, **environ: str) -> dict[str, str]:
        """Return the environment of such a process."""
        path = os.pathsep.join((str(self.plugins), str(TESTS)))
        return {"PATH": os.environ["PATH"], "PYTHONPATH": path, **self.environ, **environ}

    def process(
        self,
        *words: str,
        stdin: bytes | IO[bytes] = b"",
        environ: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Done:
        """Carry out one invocation as a process."""
        given: dict[str, Any] = {"input" if isinstance(stdin, bytes) else "stdin": stdin}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **given, **options}
        done = subprocess.run(
            self.command(*words),
            env=self.process_environ(**(environ or {})),
            timeout=60,
            check=False,
            **options,
        )
        return Done(
            done.returncode,
            done.stdout or b"",
            (done.stderr or b"").decode("utf-8", "surrogateescape"),
        )

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start one invocation as a process."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
        return subprocess.Popen(
            self.command(*words), env=self.process_environ(), stderr=subprocess.PIPE, **options
        )

    def end_all(self) -> None:
        """Destroy every sandbox that is left."""
        ids = self("ls", "--all", "-q").out.split()
        if ids:
            self("destroy", *ids)
