"""The README and the docs say only what is true: their Python blocks run, their tables agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.snippets import python_blocks, run_python

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


def _blocks() -> list[object]:
    found: list[object] = []
    for page in PAGES:
        for number, block in enumerate(python_blocks(page), 1):
            found.append(pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.mark.parametrize("block", _blocks())
def test_python_block_in_the_docs_runs(block: str, tmp_path: Path) -> None:
    environ = {
        "EKAIROS_SANDBOX_STORE": f"sqlite:///{tmp_path}/sandboxes.db",
        "SANDBOX_PROVIDER": "local",
    }
    run_python(block, tmp_path, environ)


def test_readme_quickstart_prints_what_its_comments_say(tmp_path: Path) -> None:
    printed_text = run_python(python_blocks(ROOT / "README.md")[0], tmp_path, {})
    sandbox_id, *printed = printed_text.split("\n")
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
