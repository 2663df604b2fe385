"""All that ekairos-sandbox asks of a provider, on a real engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import docker
import pytest
from ekairos_sandbox_docker.options import DockerOptions
from ekairos_sandbox_docker.provider import DockerProvider

from ekairos_sandbox.testing import ProviderConformance


class TestDocker(ProviderConformance):
    options = {  # noqa: RUF012
        "image": os.environ.get("EKAIROS_DOCKER_TEST_IMAGE") or DockerOptions().image,
        "network": "bridge",
    }
    config = {"ports": (8080,)}  # noqa: RUF012
    provider_factory = "ekairos_sandbox_docker.provider:DockerProvider"
    big_file_bytes = 16 * 1024 * 1024
    big_output_bytes = 20_000_000

    @pytest.fixture(scope="class")
    @classmethod
    def make_untagged(cls, sdk: docker.DockerClient, image: str) -> Callable[[str], None]:
        def make(name: str) -> None:
            sdk.containers.run(image, ["tail", "-f", "/dev/null"], name=name, detach=True)

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def unreachable(
        cls, provider: DockerProvider
    ) -> Callable[[], AbstractContextManager[None]] | None:
        if not provider.engine.host.startswith("unix://"):
            return None
        link = Path(provider.engine.host.removeprefix("unix://"))  # of conftest.py

        @contextmanager
        def cut_off() -> Iterator[None]:
            target = link.readlink()
            link.unlink()
            provider.close()  # or what is open would go on
            try:
                yield
            finally:
                link.symlink_to(target)

        return cut_off
