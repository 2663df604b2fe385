"""The README and the docs say only what is true: their Python blocks run, their tables agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.settings import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"volumes.md"}
"""Pages whose blocks need a service of their own; the tests of its provider run them."""
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in ELSEWHERE),
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks() -> list[object]:
    found: list[object] = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text()), 1):
            name = f"{page.relative_to(ROOT)}-{number}"
            found.append(pytest.param(match.group(1), id=name))
    return found


@pytest.mark.parametrize("block", _blocks())
def test_python_block_in_the_docs_runs(block: str, tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "EKAIROS_SANDBOX_STORE": f"sqlite:///{tmp_path}/sandboxes.db",
        "SANDBOX_PROVIDER": "local",
    }
    script = tmp_path / "block.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_readme_quickstart_prints_what_its_comments_say(tmp_path: Path) -> None:
    block = BLOCK.findall((ROOT / "README.md").read_text())[0]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sandbox_id, *printed = done.stdout.split("\n")
    assert re.fullmatch(r"[0-9a-f-]{36}", sandbox_id)
    assert printed[:2] == ["3 hello", " "]
    assert printed[2].strip() == "3 data/in.txt"


def test_readme_lists_every_variable_that_core_reads() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in VARIABLES if f"`{name}`" not in readme]
    assert missing == []


def test_readme_lists_every_verb() -> None:
    readme = (ROOT / "README.md").read_text()
    verbs = [name for name in vars(RaisingService) if not name.startswith("_") and name != "close"]
    assert [verb for verb in verbs if f"`{verb}`" not in readme] == []


def test_readme_lists_every_installed_provider() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in PluginRegistry().names() if f"| `{name}` |" not in readme] == []
