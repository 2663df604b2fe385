"""What a newcomer sees first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ekairos_sandbox_local.plugin")

ROOT = Path(__file__).resolve().parents[2]
STUB = """#!/bin/sh
case $1 in --help) echo "--args --as-pid-1 --disable-userns --size"; exit ;; esac
echo "bwrap: No permissions to create new namespace, likely because the kernel does not allow" >&2
exit 1
"""


def _demo(**environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "docs/examples/demo.py")],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _check(output: str) -> None:
    assert "1000! has 2568 digits" in output
    assert output.count("written by the first process") == 2
    assert "step 1, step 2, step 3, finished" in output
    assert "sandbox_stopped" in output
    assert output.endswith("done\n")
    first, second = re.findall(r"process (?:ends|starts) +pid (\d+)", output)
    assert first != second


def test_demo_does_the_main_job() -> None:
    output = _demo()
    _check(output)
    assert "note:" not in output


def test_demo_shows_the_protocol_of_instantdb() -> None:
    output = _demo(STORE="instantdb")
    _check(output)
    assert "an InstantDB server is at" in output


def test_demo_says_why_and_goes_on_where_user_namespaces_are_forbidden() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # a root caller's sandboxes run as another user
        stub = Path(folder, "bwrap")
        stub.write_text(STUB)
        stub.chmod(0o755)
        output = _demo(PATH=f"{folder}:{os.environ['PATH']}")
    _check(output)
    assert "note:" in output
    assert "No permissions to create new namespace" in output
    assert "isolation='none'" in output
