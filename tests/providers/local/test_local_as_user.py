"""When the tests run as root: all of this folder once more, as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from ekairos_sandbox_local.users import first_closed

import ekairos_sandbox
import ekairos_sandbox_local

UID = 54_321
_HERE = Path(__file__).parent
_TESTS = _HERE.parents[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests run as an ordinary user already")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_holds_for_an_ordinary_user(scratch: Path) -> None:
    python = readable_python(scratch)
    code = scratch / "code"
    skip = shutil.ignore_patterns("mypy*", "ruff*", "pip*", "setuptools*", "__pycache__")
    shutil.copytree(sysconfig.get_path("purelib"), code / "site", ignore=skip)
    for package in (ekairos_sandbox, ekairos_sandbox_local):
        folder = Path(str(package.__file__)).parent
        shutil.copytree(folder, code / "site" / folder.name, ignore=skip, dirs_exist_ok=True)
    shutil.copytree(_HERE, code / "tests" / "providers" / "local", ignore=skip)
    (code / "tests" / "helpers").mkdir()
    shutil.copy(_TESTS / "helpers" / "local_sandboxes.py", code / "tests" / "helpers")
    shutil.copy(_TESTS.parent / "pyproject.toml", code)
    subprocess.run(["chmod", "-R", "a+rX", str(code)], check=True)
    home = scratch / "home"
    home.mkdir()
    os.chown(home, UID, UID)

    result = subprocess.run(
        [
            *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--", python),
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=120"),
            *("--ignore=tests/providers/local/test_local_as_user.py", "tests/providers/local"),
        ],
        cwd=code,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(code / "site"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout


def readable_python(scratch: Path) -> str:
    """Return a Python of this version that everybody may run, copying this one if need be."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    for candidate in (base / "bin" / version, Path("/usr/bin") / version):
        if candidate.exists() and first_closed(candidate) is None:
            return str(candidate)
    skip = shutil.ignore_patterns("test", "idlelib", "tkinter", "site-packages", "config-*")
    shutil.copytree(base / "lib" / version, scratch / "python" / "lib" / version, ignore=skip)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy(library, scratch / "python" / "lib")
    (scratch / "python" / "bin").mkdir()
    return str(shutil.copy(base / "bin" / version, scratch / "python" / "bin" / version))
