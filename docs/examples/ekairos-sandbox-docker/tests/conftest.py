"""The engine that the tests use: the one of ``DOCKER_HOST``; without it they are skipped.

``EKAIROS_DOCKER_TEST_IMAGE`` names an image with a POSIX sh, by default that of the options.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import docker
import pytest
from ekairos_sandbox_docker.options import DockerOptions
from ekairos_sandbox_docker.provider import DockerProvider

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox.provider import ProviderContext

IMAGE = os.environ.get("EKAIROS_DOCKER_TEST_IMAGE") or DockerOptions().image


@pytest.fixture(scope="session")
def image() -> str:
    return IMAGE


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerProvider]:
    """The provider; a local engine's socket is reached by a link of our own, to be cut off."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    environ = {k: v for k, v in os.environ.items() if k.startswith("DOCKER_")}
    if host.startswith("unix://"):
        link = tmp_path_factory.mktemp("docker") / "docker.sock"
        link.symlink_to(host.removeprefix("unix://"))
        environ["DOCKER_HOST"] = f"unix://{link}"
    provider = DockerProvider(ProviderContext(environ=environ))
    try:
        provider.account()
    except ProviderError as error:
        pytest.skip(f"no Docker engine: {error}")
    yield provider
    provider.close()


@pytest.fixture(scope="session")
def sdk(provider: DockerProvider) -> Iterator[docker.DockerClient]:
    """The engine without the provider."""
    client = docker.DockerClient(base_url=provider.engine.host)
    yield client
    client.close()
