"""Results for the commands of a fake provider, from this machine's own sh."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

from ekairos_sandbox.testing import FakeCommand, FakeProvider, FakeResult
from ekairos_sandbox.testing.fake_guest import HOME

_SLEEP = re.compile(r"(?:echo (?P<said>\w+); )?sleep (?P<seconds>[0-9]{3})(?:; :)?")

Files = dict[str, tuple[bytes, int]]


class HostSh:
    """Says how each command ends by running it here, over a copy of its sandbox's home.

    A home is a folder of this machine, which takes the home's place in arguments, environment and
    output. Commands that do no more than sleep for minutes are not run: they last that long on
    the provider's clock.

    Args:
        fake: The provider whose commands these are.
        folder: Where the homes are kept.
    """

    def __init__(self, fake: FakeProvider, folder: Path) -> None:
        self._fake = fake
        self._folder = folder
        self._lock = threading.Lock()
        fake.handle(self._end_of)

    def _end_of(self, command: FakeCommand) -> FakeResult:
        line = " ".join(command.argv).removeprefix("sh -c ").partition(" sh")[0]
        sleep = _SLEEP.fullmatch(line)
        if sleep is not None:
            said = f"{sleep['said']}\n" if sleep["said"] else ""
            return FakeResult(stdout=said, duration_s=float(sleep["seconds"]))
        sandbox = self._fake.sandbox(command.sandbox_id)
        home = self._folder / sandbox.external_id
        with self._lock:
            _unpack(sandbox.guest.files, home)
            result = _run(command, home)
            _pack(home, sandbox.guest.files)
        return result


def _run(command: FakeCommand, home: Path) -> FakeResult:
    def here(text: str) -> str:
        return text.replace(HOME, str(home))

    variables = {**command.sandbox_env, **command.env}
    try:
        done = subprocess.run(
            [here(word) for word in command.argv],
            input=command.stdin,
            capture_output=True,
            cwd=here(command.cwd),
            env={
                "PATH": os.environ["PATH"],
                **{name: here(value) for name, value in variables.items()},
                "HOME": str(home),
            },
            check=False,
            timeout=30,
        )
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        return FakeResult(code, stderr=f"{command.argv[0]}: {error.strerror}\n")
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    stdout, stderr = (
        stream.replace(str(home).encode(), HOME.encode()) for stream in (done.stdout, done.stderr)
    )
    return FakeResult(code, stdout, stderr)


def _unpack(files: Files, home: Path) -> None:
    """Make the folder hold these files and no others; empty folders stay."""
    home.mkdir(exist_ok=True)
    for path in _files_in(home):
        path.unlink()
    for name, (content, mode) in files.items():
        if name.startswith(f"{HOME}/"):
            path = home / name.removeprefix(f"{HOME}/")
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(mode)


def _pack(home: Path, files: Files) -> None:
    """Make the sandbox hold the files of the folder."""
    for name in [name for name in files if name.startswith(f"{HOME}/")]:
        del files[name]
    for path in _files_in(home):
        kept = path.read_bytes(), path.stat().st_mode & 0o7777
        files[f"{HOME}/{path.relative_to(home)}"] = kept


def _files_in(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if not path.is_dir()]
