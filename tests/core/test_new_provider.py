from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.templates.new_provider import new_provider


def everything(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_new_provider_is_named_throughout(tmp_path: Path) -> None:
    target = new_provider("acme_cloud", tmp_path)
    assert target == tmp_path / "ekairos-sandbox-acme-cloud"
    files = everything(target)
    assert {"README.md", ".gitignore", "src/ekairos_sandbox_acme_cloud/py.typed"} <= set(files)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == "ekairos-sandbox-acme-cloud"
    assert project["dependencies"] == [f"ekairos-sandbox~={metadata.version('ekairos-sandbox')}"]
    assert project["entry-points"]["ekairos_sandbox.providers"] == {
        "acme_cloud": "ekairos_sandbox_acme_cloud.plugin"
    }
    assert "class AcmeCloudProvider(" in files["src/ekairos_sandbox_acme_cloud/provider.py"]
    left = [name for name, text in files.items() if re.search(r"@[A-Z]+@", name + text)]
    assert left == []


def test_what_is_to_be_done_is_marked(tmp_path: Path) -> None:
    files = everything(new_provider("acme", tmp_path))
    marked = {Path(name).name for name, text in files.items() if "TODO" in text}
    assert {"service.py", "provider.py", "connection.py", "options.py", "pyproject.toml"} <= marked


def test_what_is_written_is_tidy(tmp_path: Path) -> None:
    target = new_provider("acme_cloud", tmp_path)
    line = ("--isolated", "--line-length=100", ".")
    ruff = (sys.executable, "-m", "ruff")
    for words in (("format", "--check"), ("check", "--select=E,F,I,B,UP,RUF,PT")):
        done = subprocess.run(
            [*ruff, *words, *line], cwd=target, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Acme",
        "9lives",
        "a-b",
        "a b",
        "class",
        "é",
        "_x",
        "x_",
        "a__b",
        "../up",
        "a/b",
        "a\n",
        "x" + "\0",
    ],
)
def test_a_name_that_is_no_lowercase_identifier_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a provider"):
        new_provider(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["local", "daytona"])
def test_the_name_of_a_provider_that_there_is_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"a provider '{name}' already"):
        new_provider(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    first = new_provider("acme", tmp_path)
    (first / "README.md").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        new_provider("acme", tmp_path)
    assert (first / "README.md").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/ekairos-sandbox-acme' cannot be made"):
        new_provider("acme", tmp_path / "file")
