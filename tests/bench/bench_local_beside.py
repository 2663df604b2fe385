"""The local provider beside bare `subprocess`, `bwrap` per command, and llm-sandbox"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.bench_local import BWRAP_OPTIONS
from bench.measure import Row, in_turn, service
from oracles.oracle_env import python_packages

OTHER = "llm-sandbox==0.3.46"
SIZE = 64 << 20

Act = Callable[[], object]


def rows() -> Iterator[Row]:
    """Do the same four things four ways, in turn; ratios are to the first column's bare way."""
    with tempfile.TemporaryDirectory() as name, service() as made, other() as ask:
        folder = Path(name)
        folder.chmod(0o755)
        source = folder / "source"
        source.write_bytes(os.urandom(SIZE))
        box = made.create_sandbox(provider="local")

        def create() -> None:
            made.create_sandbox(provider="local").run_command("true").check()

        acts: dict[str, tuple[int, dict[str, Act]]] = {
            "create + first command": (
                10,
                {
                    "subprocess": lambda: subprocess.run(["true"], check=True),
                    "bwrap": lambda: bwrap(folder, "true"),
                    "llm-sandbox": lambda: ask("create"),
                    "ours": create,
                },
            ),
            "warm command": (
                40,
                {
                    "subprocess": lambda: subprocess.run(["true"], check=True),
                    "bwrap": lambda: bwrap(folder, "true"),
                    "llm-sandbox": lambda: ask("run"),
                    "ours": lambda: box.run_command("true").check(),
                },
            ),
            "64 MiB in": (
                5,
                {
                    "subprocess": lambda: copied(source, folder / "in"),
                    "bwrap": lambda: bwrap(folder, "cat > /box/in", stdin=source),
                    "llm-sandbox": lambda: ask("put", str(source), "/sandbox/in"),
                    "ours": lambda: box.upload(source, "in"),
                },
            ),
            "64 MiB out": (
                5,
                {
                    "subprocess": lambda: copied(folder / "in", folder / "out"),
                    "bwrap": lambda: bwrap(folder, "cat /box/in", stdout=folder / "out"),
                    "llm-sandbox": lambda: ask("get", "/sandbox/in", str(folder / "out-other")),
                    "ours": lambda: box.download("in", folder / "out-ours"),
                },
            ),
        }
        for what, (times, ways) in acts.items():
            usable = {who: act for who, act in ways.items() if ask.works or who != "llm-sandbox"}
            for act in usable.values():
                act()
            spent = dict(zip(usable, in_turn(times, *usable.values()), strict=True))
            ours = spent.pop("ours")
            ratios = ", ".join(
                f"{ours / value:.2f} x {who} ({value:.1f} ms)" for who, value in spent.items()
            )
            yield Row(what, f"{ours:.1f} ms = {ratios}")
        if not ask.works:
            yield Row("llm-sandbox", f"left out: {ask.problem}")


def bwrap(
    folder: Path, script: str, *, stdin: Path | None = None, stdout: Path | None = None
) -> None:
    """Run a script in a sandbox of its own that sees a folder as ``/box``."""
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        taken = stack.enter_context(stdout.open("wb")) if stdout else subprocess.DEVNULL
        command = ["bwrap", *BWRAP_OPTIONS.split(), "--bind", str(folder), "/box"]
        subprocess.run([*command, "sh", "-c", script], stdin=given, stdout=taken, check=True)


def copied(source: Path, target: Path) -> None:
    """Copy a file by a bare process."""
    with source.open("rb") as given, target.open("wb") as taken:
        subprocess.run(["cat"], stdin=given, stdout=taken, check=True)


class Other:
    """A process that works with llm-sandbox, if that can be installed and used here."""

    def __init__(self) -> None:
        self.problem = ""
        self._process: subprocess.Popen[str] | None = None
        try:
            packages = python_packages(OTHER)
        except pytest.fail.Exception as error:
            self.problem = f"it could not be installed: {str(error.msg).splitlines()[0]}"
            return
        worker = Path(__file__).with_name("llm_sandbox_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", str(worker)],
            env={**os.environ, "PYTHONPATH": str(packages)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self("run")
        except BrokenPipeError:
            self.problem = "it does not work on this machine"

    @property
    def works(self) -> bool:
        """Whether it can be asked."""
        return not self.problem

    def __call__(self, *what: str) -> None:
        """Have one thing done."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "done\n":
            raise BrokenPipeError

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()


@contextlib.contextmanager
def other() -> Iterator[Other]:
    """Start llm-sandbox, and end it."""
    made = Other()
    try:
        yield made
    finally:
        made.close()
