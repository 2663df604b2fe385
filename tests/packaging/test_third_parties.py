"""Somebody who has only the wheels and docs/writing-a-provider.md can publish a provider."""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.docker_engine import IMAGE, NoEngineError, docker_engine

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docs" / "examples" / "ekairos-sandbox-docker"

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]


class Stranger:
    """Somebody's environment outside the checkout, with nothing but wheels in it."""

    def __init__(self, builds: Any, folder: Path) -> None:
        self.builds = builds
        self.folder = folder
        self.python: Path = builds.environment(folder / "env")

    def publish(self, project: Path) -> None:
        """Build a distribution and install its wheel with what its tests need."""
        dist = self.folder / "dist"
        self.builds.build(project, dist)
        (wheel,) = dist.glob("*.whl")
        self.builds.run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
        self.builds.install(self.python, f"{wheel}[test]")
        self.builds.run(self.python, "-m", "pip", "check", cwd=self.folder)

    def test(self, **environ: str) -> str:
        """Run the tests that the sdist holds, without its sources; return the last line."""
        (sdist,) = (self.folder / "dist").glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            members = [m for m in archive if m.name.split("/")[1] in ("tests", "pyproject.toml")]
            # Python 3.11 has known filters since 3.11.4 only.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(self.folder / "tests", members)
        (project,) = (self.folder / "tests").iterdir()
        words = ("-I", "-m", "pytest", "-q", "-p", "no:cacheprovider")
        output: str = self.builds.run(self.python, *words, cwd=project, environ=environ)
        return output.strip().splitlines()[-1]


@pytest.fixture
def stranger(builds: Any, tmp_path: Path) -> Stranger:
    return Stranger(builds, tmp_path)


def test_the_templates_own_tests_pass_at_once(stranger: Stranger) -> None:
    stranger.builds.install(stranger.python, "ekairos-sandbox[cli,testing]")
    program = stranger.python.parent / "ekairos-sandbox"
    stranger.builds.run(program, "new-provider", "acme_cloud", cwd=stranger.folder)
    project = stranger.folder / "ekairos-sandbox-acme-cloud"
    stranger.publish(project)
    last = stranger.test()
    assert int(re.findall(r"(\d+) passed", last)[0]) > 190
    assert "failed" not in last
    checked = stranger.builds.run(
        sys.executable, "-m", "mypy", "--python-executable", stranger.python, cwd=project
    )
    assert checked.startswith("Success")


@pytest.fixture(scope="module")
def engine(docker_said: Callable[[str], None]) -> Iterator[str]:
    """``DOCKER_HOST`` of an engine of our own."""
    try:
        with docker_engine() as host:
            yield host
    except NoEngineError as error:
        docker_said(f"NOT RUN against a Docker engine: {error}")
        pytest.skip(f"no Docker engine: {error}")


@pytest.mark.docker
def test_the_docker_example_passes_the_conformance_suite_on_a_real_engine(
    stranger: Stranger, engine: str, docker_said: Callable[[str], None]
) -> None:
    stranger.publish(DOCKER)
    last = stranger.test(DOCKER_HOST=engine, EKAIROS_DOCKER_TEST_IMAGE=IMAGE)
    assert int(re.findall(r"(\d+) passed", last)[0]) > 190
    assert "failed" not in last
    ask = ("docker", "--host", engine, "version", "--format={{.Server.Version}}")
    version = stranger.builds.run(*ask)
    docker_said(f"Docker Engine {version.strip()}: {last.strip('= ')}")
