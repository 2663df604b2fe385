"""What is built can be installed and holds what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("ekairos_sandbox_*/pyproject.toml"))]

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]


def _run(*words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith(("EKAIROS", "SANDBOX"))},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sdist, and every wheel built from its sdist."""
    out = tmp_path_factory.mktemp("dist")
    for folder in FOLDERS:
        _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, folder)
    return out


def _wheel(dist: Path, name: str) -> list[str]:
    (wheel,) = dist.glob(f"{name}-*.whl")
    return zipfile.ZipFile(wheel).namelist()


def _environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True, symlinks=True)
    return folder / "bin" / "python"


def test_every_distribution_builds_an_sdist_and_a_wheel(dist: Path) -> None:
    names = {path.name.split("-0")[0] for path in dist.iterdir()}
    assert names == {"ekairos_sandbox", *(folder.name for folder in FOLDERS[1:])}
    assert len(list(dist.glob("*.whl"))) == len(list(dist.glob("*.tar.gz"))) == len(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_wheel_holds_its_package_its_types_and_its_licence_only(dist: Path, folder: Path) -> None:
    name = "ekairos_sandbox" if folder == ROOT else folder.name
    files = _wheel(dist, name)
    tops = {file.split("/")[0].split("-")[0] for file in files}
    assert tops == {name}
    assert f"{name}/py.typed" in files
    assert [file for file in files if file.endswith("licenses/LICENSE")] != []
    assert [file for file in files if "/tests/" in file or file.endswith(".pyc")] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_sdist_holds_what_the_wheel_is_built_from(dist: Path, folder: Path) -> None:
    name = "ekairos_sandbox" if folder == ROOT else folder.name
    (sdist,) = [p for p in dist.glob("*.tar.gz") if p.name.split("-0")[0] == name]
    with tarfile.open(sdist) as archive:
        files = {member.name.split("/", 1)[1] for member in archive if "/" in member.name}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= files
    assert [file for file in files if file.startswith(("tests/", "docs/"))] == []


def test_core_alone_lists_no_provider_and_each_extra_adds_its_own(
    dist: Path, tmp_path: Path
) -> None:
    python = _environment(tmp_path / "env")
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--find-links", dist]
    ask = "from ekairos_sandbox.plugins import PluginRegistry; print(PluginRegistry().names())"
    _run(*pip, "ekairos-sandbox", cwd=tmp_path)
    assert _run(python, "-I", "-W", "error", "-c", ask, cwd=tmp_path) == "[]\n"
    names: list[str] = []
    for folder in FOLDERS[1:]:
        name = folder.name.removeprefix("ekairos_sandbox_")
        _run(*pip, f"ekairos-sandbox[{name}]", cwd=tmp_path)
        names = sorted([*names, name])
        assert _run(python, "-I", "-W", "error", "-c", ask, cwd=tmp_path) == f"{names}\n"
    _run(python, "-m", "pip", "check", cwd=tmp_path)


def test_installed_wheels_run_the_quickstart(dist: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "env")
    _run(
        python, "-m", "pip", "install", "--quiet", "--find-links", dist, "ekairos-sandbox[local]",
        cwd=tmp_path,
    )  # fmt: skip
    script = (
        "import json, ekairos_sandbox as e\n"
        f"from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository as S\n"
        f"with e.SandboxService(S({str(tmp_path / 'r.db')!r})) as service:\n"
        "    sandbox = service.raising.create_sandbox(provider='local')\n"
        "    result = sandbox.run_command('echo', ['installed'])\n"
        "    sandbox.destroy()\n"
        "print(json.dumps([e.__file__, result.output]))\n"
    )
    path, output = json.loads(_run(python, "-I", "-W", "error", "-c", script, cwd=tmp_path))
    assert output == "installed\n"
    assert Path(path).is_relative_to(tmp_path)
