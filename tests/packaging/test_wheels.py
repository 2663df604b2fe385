"""What is built can be installed and holds what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("ekairos_sandbox_*/pyproject.toml"))]
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]


def _name(folder: Path) -> str:
    return "ekairos_sandbox" if folder == ROOT else folder.name


def _wheel(builds: Any, name: str) -> list[str]:
    (wheel,) = builds.folder.glob(f"{name}-*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_every_distribution_builds_an_sdist_and_a_wheel(builds: Any) -> None:
    built = list(builds.folder.iterdir())
    assert {path.name.split("-0")[0] for path in built} == {_name(folder) for folder in FOLDERS}
    kinds = [path.suffix for path in built]
    assert kinds.count(".whl") == kinds.count(".gz") == len(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=_name)
def test_wheel_holds_its_package_its_types_and_its_licence_only(builds: Any, folder: Path) -> None:
    name = _name(folder)
    files = _wheel(builds, name)
    tops = {file.split("/")[0].split("-")[0] for file in files}
    assert tops == {name}
    assert f"{name}/py.typed" in files
    assert [file for file in files if file.endswith("licenses/LICENSE")] != []
    assert [file for file in files if "/tests/" in file or file.endswith(".pyc")] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=_name)
def test_sdist_holds_what_the_wheel_is_built_from(builds: Any, folder: Path) -> None:
    (sdist,) = [p for p in builds.folder.glob("*.tar.gz") if p.name.split("-0")[0] == _name(folder)]
    with tarfile.open(sdist) as archive:
        files = {member.name.split("/", 1)[1] for member in archive if "/" in member.name}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= files
    assert [file for file in files if file.startswith(("tests/", "docs/"))] == []


def test_building_again_gives_the_same_bytes(builds: Any, tmp_path: Path) -> None:
    for folder in FOLDERS:
        builds.build(folder, tmp_path)
    first = {path.name: path.read_bytes() for path in builds.folder.glob("*.whl")}
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.whl")} == first


def test_an_index_would_take_them(builds: Any) -> None:
    files = sorted(builds.folder.iterdir())
    builds.run(sys.executable, "-m", "twine", "check", "--strict", *files)


def test_core_alone_lists_no_provider_and_each_extra_adds_its_own(
    builds: Any, tmp_path: Path
) -> None:
    python = builds.environment(tmp_path / "env")
    ask = "from ekairos_sandbox.plugins import PluginRegistry; print(PluginRegistry().names())"
    builds.install(python, "ekairos-sandbox")
    assert builds.run(python, "-I", "-W", "error", "-c", ask, cwd=tmp_path) == "[]\n"
    names: list[str] = []
    for folder in FOLDERS[1:]:
        name = folder.name.removeprefix("ekairos_sandbox_")
        builds.install(python, f"ekairos-sandbox[{name}]")
        names = sorted([*names, name])
        assert builds.run(python, "-I", "-W", "error", "-c", ask, cwd=tmp_path) == f"{names}\n"
    builds.run(python, "-m", "pip", "check", cwd=tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_of_it_installs_and_imports_in_silence(
    builds: Any, python_of: Callable[[str], str | None], tmp_path: Path, version: str
) -> None:
    program = python_of(version)
    if program is None:
        pytest.skip(f"no Python {version} here")
    builds.run(program, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    builds.install(python, "ekairos-sandbox[all,testing]")
    builds.run(python, "-m", "pip", "check", cwd=tmp_path)
    modules = ", ".join(["ekairos_sandbox.testing", *(f"{f.name}.plugin" for f in FOLDERS[1:])])
    script = f"import {modules}"
    assert builds.run(python, "-I", "-W", "error", "-c", script, cwd=tmp_path) == ""


def test_installed_wheels_run_the_quickstart(builds: Any, tmp_path: Path) -> None:
    python = builds.environment(tmp_path / "env")
    builds.install(python, "ekairos-sandbox[local]")
    script = (
        "import json, ekairos_sandbox as e\n"
        f"from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository as S\n"
        f"with e.SandboxService(S({str(tmp_path / 'r.db')!r})) as service:\n"
        "    sandbox = service.raising.create_sandbox(provider='local')\n"
        "    result = sandbox.run_command('echo', ['installed'])\n"
        "    sandbox.destroy()\n"
        "print(json.dumps([e.__file__, result.output]))\n"
    )
    path, output = json.loads(builds.run(python, "-I", "-W", "error", "-c", script, cwd=tmp_path))
    assert output == "installed\n"
    assert Path(path).is_relative_to(tmp_path)


def test_the_command_line_comes_with_its_extra_and_asks_for_it_without(
    builds: Any, tmp_path: Path
) -> None:
    python = builds.environment(tmp_path / "env")
    program = python.with_name("ekairos-sandbox")
    builds.install(python, "ekairos-sandbox")
    bare = subprocess.run([program, "ls"], capture_output=True, text=True, check=False)
    assert (bare.returncode, bare.stdout) == (1, "")
    needs = "the command line needs click and rich: pip install 'ekairos-sandbox[cli]'\n"
    assert bare.stderr == needs
    builds.install(python, "ekairos-sandbox[cli]", "click==8.2.0", "rich==13.0.0")
    assert builds.run(program, "--version").startswith("ekairos-sandbox, version ")
    assert "folder" not in builds.run(program, "providers")
    environ = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    assert subprocess.check_output([program, "ls"], env=environ) == b""
