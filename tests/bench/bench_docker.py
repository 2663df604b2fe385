"""The Docker provider beside the Docker command line"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, in_turn
from helpers.docker_engine import IMAGE, NoEngineError, docker_engine

from ekairos_sandbox import SandboxService
from ekairos_sandbox.provider import ProviderContext, SandboxRef
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

SOURCE = Path(__file__).parents[2] / "docs/examples/ekairos-sandbox-docker/src"


def rows() -> Iterator[Row]:
    """Compare a warm command and a creation with what the engine's own program takes."""
    sys.path.insert(0, str(SOURCE))
    try:
        with docker_engine() as host:
            yield from _rows(host)
    except NoEngineError as error:
        yield Row("not measured", str(error))


def _rows(host: str) -> Iterator[Row]:
    from ekairos_sandbox_docker.provider import DockerProvider

    provider = DockerProvider(ProviderContext(environ={"DOCKER_HOST": host}))
    docker = ["docker", "--host", host]
    with (
        tempfile.TemporaryDirectory() as folder,
        SandboxService(
            SqliteSandboxRepository(Path(folder) / "r.db"), providers=[provider]
        ) as all_,
    ):
        service = all_.raising
        fields = {"provider": "docker", "provider_options": {"docker": {"image": IMAGE}}}
        box = service.create_sandbox(fields)
        box.run_command("true").check()
        name = str(box.record().external_sandbox_id)
        connection = provider.attach(SandboxRef("", name))
        program, shell, run = in_turn(
            30,
            lambda: subprocess.run([*docker, "exec", name, "true"], check=True),
            lambda: connection.shell(b"true", timeout_s=10, max_bytes=1000),
            lambda: box.run_command("true"),
        )
        yield Row("`docker exec` of `true`", f"{program:.0f} ms")
        yield Row("`shell` of `true`", f"{shell:.0f} ms = {shell / program:.2f} x", "1 x")
        yield Row("`run_command` of `true`", f"{run:.0f} ms = {run / program:.2f} x", "1.5 x")

        def by_program() -> None:
            words = [
                "run",
                "--detach",
                "--init",
                "--network=none",
                IMAGE,
                "tail",
                "-f",
                "/dev/null",
            ]
            made = subprocess.run([*docker, *words], check=True, capture_output=True, text=True)
            subprocess.run([*docker, "exec", made.stdout.strip(), "true"], check=True)

        program, create = in_turn(
            8, by_program, lambda: service.create_sandbox(fields).run_command("true")
        )
        yield Row("`docker run --detach` and `docker exec`", f"{program:.0f} ms")
        yield Row("create + first command", f"{create:.0f} ms = {create / program:.2f} x", "1.5 x")
        for record in service.iter_sandboxes():
            service.destroy_sandbox(record.id)
        service.close()
