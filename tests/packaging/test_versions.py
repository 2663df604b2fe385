"""All distributions are released together."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("ekairos_sandbox_*/pyproject.toml"))]


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_every_distribution_has_the_same_version() -> None:
    assert len({_read(path)["project"]["version"] for path in PROJECTS}) == 1


def test_every_provider_depends_on_the_core_of_its_own_series() -> None:
    version = _read(PROJECTS[0])["project"]["version"]
    pins = {
        path.parent.name: [
            d for d in _read(path)["project"]["dependencies"] if d.startswith("ekairos-sandbox")
        ]
        for path in PROJECTS[1:]
    }
    assert pins == {name: [f"ekairos-sandbox~={version}"] for name in pins}


def test_every_provider_is_an_extra_of_the_core_and_part_of_all() -> None:
    core = _read(PROJECTS[0])["project"]
    names = [path.parent.name.removeprefix("ekairos_sandbox_") for path in PROJECTS[1:]]
    extras = core["optional-dependencies"]
    assert {name: extras.get(name) for name in names} == {
        name: [f"ekairos-sandbox-{name}~={core['version']}"] for name in names
    }
    assert extras["all"] == [f"ekairos-sandbox[{','.join(sorted(names))}]"]


def test_every_provider_is_a_workspace_member_checked_by_mypy() -> None:
    core = _read(PROJECTS[0])["tool"]
    for path in PROJECTS[1:]:
        folder = path.parent.name
        assert f"{folder}/src/{folder}" in core["mypy"]["files"]
        assert core["uv"]["sources"][folder.replace("_", "-")] == {"workspace": True}


def test_every_distribution_ships_the_same_licence() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert [(path.parent / "LICENSE").read_text() == licence for path in PROJECTS] == [True] * len(
        PROJECTS
    )
