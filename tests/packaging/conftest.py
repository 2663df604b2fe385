"""Everything built once, and fresh environments to install it into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("ekairos_sandbox_*/pyproject.toml"))]


class Builds:
    """Runs what builds and installs.

    Attributes:
        folder: Every sdist, and every wheel built from its sdist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, *words: str | Path, cwd: Path = ROOT, environ: Mapping[str, str] | None = None
    ) -> str:
        """Run a command that must succeed and return its output."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("EKAIROS", "SANDBOX"))}
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env={**kept, "SOURCE_DATE_EPOCH": "1700000000", **(environ or {})},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def build(self, project: Path, out: Path) -> None:
        """Build an sdist, and the wheel from it."""
        self.run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, project)

    def environment(self, folder: Path) -> Path:
        """Make a fresh environment and return its Python."""
        venv.create(folder, with_pip=True, symlinks=True)
        return folder / "bin" / "python"

    def install(self, python: Path, *what: str | Path, extra: Path | None = None) -> None:
        """Install into an environment, ours from what was built here."""
        links: list[str | Path] = ["--find-links", self.folder]
        links += ["--find-links", extra] if extra else []
        self.run(python, "-m", "pip", "install", "--quiet", *links, *what, cwd=python.parent)


def interpreter(version: str) -> str | None:
    """Return a Python of this version, such as ``"3.12"``; None if the machine has none."""
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        # Its own python3.12 only works where a version is chosen.
        for full in _output("pyenv", "versions", "--bare").split():
            if full.startswith(f"{version}."):
                candidates.append(_output("pyenv", "prefix", full).strip() + "/bin/python")
    ask = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        if candidate and _output(candidate, "-c", ask).strip() == version:
            return candidate
    return None


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="session")
def python_of() -> Callable[[str], str | None]:
    return interpreter


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Every distribution of the project, built."""
    builds = Builds(tmp_path_factory.mktemp("dist"))
    for folder in FOLDERS:
        builds.build(folder, builds.folder)
    return builds


_DOCKER_SAID: pytest.StashKey[str] = pytest.StashKey()


@pytest.fixture(scope="session")
def docker_said(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Notes for the end of the run what became of the tests on a Docker engine."""

    def note(text: str) -> None:
        pytestconfig.stash[_DOCKER_SAID] = text

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say whether a Docker engine was used, where nobody can overlook it."""
    said = terminalreporter.config.stash.get(_DOCKER_SAID, None)
    if said is not None:
        terminalreporter.section("tests on a Docker engine", "=", bold=True)
        terminalreporter.line(said, bold=True)
