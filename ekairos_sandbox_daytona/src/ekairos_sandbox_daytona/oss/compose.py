"""The containers, through ``docker compose``."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekairos_sandbox_daytona.oss.problems import ExitCode, StackError
from ekairos_sandbox_daytona.oss.programs import Ended, Program

API_PORT = 3000
"""The port inside the container ``api``, and the one it has outside unless that is changed."""

_TAKEN = ("port is already allocated", "address already in use", "ports are not available")
_CONNECT_S = 0.5


@dataclass(frozen=True, slots=True)
class Layout:
    """What a compose file describes.

    Attributes:
        services: Names of its services.
        volumes: Names that its volumes have in Docker.
        ports: The ports of this machine that it takes.
        api_port: The port of this machine at which the API answers.
    """

    services: tuple[str, ...]
    volumes: tuple[str, ...]
    ports: tuple[int, ...]
    api_port: int = API_PORT

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Layout:
        """Read what ``docker compose config`` prints."""
        services: Mapping[str, Any] = config.get("services") or {}
        published: dict[str, dict[int, int]] = {}
        for name, service in services.items():
            for port in service.get("ports") or ():
                outside = str(port.get("published") or "")
                if outside.isascii() and outside.isdigit():
                    published.setdefault(name, {})[int(port["target"])] = int(outside)
        volumes = (config.get("volumes") or {}).items()
        return cls(
            tuple(services),
            tuple((volume or {}).get("name") or key for key, volume in volumes),
            tuple(sorted(port for ports in published.values() for port in ports.values())),
            published.get("api", {}).get(API_PORT, API_PORT),
        )


class Compose:
    """A compose file and what runs of it.

    Args:
        file: The compose file.
        docker: What docker commands are run with.
        platform: As ``sys.platform``, for hints.
    """

    def __init__(self, file: Path, docker: Program, platform: str) -> None:
        self.file = file
        self._docker = docker
        self._platform = platform

    def check(self) -> None:
        """Raise unless docker with its compose plugin, its daemon and the file are there."""
        self._docker.path()
        if not self.file.is_file():
            raise StackError(
                ExitCode.NOT_INITIALISED,
                f"there is no compose file {self.file}",
                "look at DAYTONA_OSS_COMPOSE, or run `ekairos-daytona-local init`",
            )
        if self._docker.run("compose", "version").code != 0:
            raise StackError(
                ExitCode.DOCKER_MISSING,
                "docker has no compose plugin",
                "install it, for example the package docker-compose-plugin",
            )
        info = self._docker.run("info", "--format", "{{.ServerVersion}}")
        if info.code != 0:
            denied = "permission denied" in info.error.lower()
            raise StackError(
                ExitCode.DAEMON_NOT_RUNNING,
                "the Docker daemon may not be used" if denied else "no Docker daemon is running",
                _daemon_hint(self._platform, denied=denied),
            )

    def layout(self) -> Layout:
        """Return what the compose file describes."""
        done = self._compose("config", "--format", "json")
        if done.code != 0:
            raise StackError(ExitCode.FAILED, f"{self.file} is not usable: {done.reason}")
        try:
            return Layout.parse(json.loads(done.output))
        except (ValueError, AttributeError, KeyError, TypeError):
            raise StackError(
                ExitCode.FAILED,
                "docker compose described its file in an unknown way",
                "a recent Docker Compose 2 is needed",
            ) from None

    def running(self) -> bool:
        """Whether any container of it runs."""
        done = self._compose("ps", "--quiet", "--status", "running")
        return done.code == 0 and bool(done.output.strip())

    def up(self, layout: Layout) -> None:
        """Start everything.

        Raises:
            StackError: Such as ``PORT_TAKEN``, naming the port.
        """
        if not self.running():
            taken = [port for port in layout.ports if _answers(port)]
            if taken:
                raise _taken(", ".join(map(str, taken)))
        done = self._shown("up", "--detach")
        if done.code != 0 and any(text in done.error.lower() for text in _TAKEN):
            raise _taken(done.reason)
        self._finished(done, "up")

    def down(self, *, volumes: bool = False) -> None:
        """Stop and remove the containers, and with ``volumes`` their data."""
        more = ("--volumes", "--remove-orphans") if volumes else ()
        self._finished(self._shown("down", *more), "down")

    def status(self) -> None:
        """Show the containers."""
        self._finished(self._shown("ps", "--all"), "ps")

    def logs(self, services: list[str], *, follow: bool, tail: str) -> None:
        """Show what the containers wrote."""
        more = ["--follow"] if follow else []
        self._finished(self._shown("logs", "--tail", tail, *more, *services), "logs")

    def _compose(self, *arguments: str) -> Ended:
        return self._docker.run("compose", "--file", self.file, *arguments)

    def _shown(self, *arguments: str) -> Ended:
        return self._docker.show("compose", "--file", self.file, *arguments)

    @staticmethod
    def _finished(done: Ended, verb: str) -> None:
        if done.code != 0:
            raise StackError(ExitCode.FAILED, f"docker compose {verb} failed: {done.reason}")


def _answers(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _taken(which: str) -> StackError:
    return StackError(
        ExitCode.PORT_TAKEN,
        f"another program has a port that the stack needs: {which}",
        "stop that program, or publish another port in a compose file of your own "
        "(DAYTONA_OSS_COMPOSE)",
    )


def _daemon_hint(platform: str, *, denied: bool) -> str:
    if denied and platform == "linux":
        return "add yourself to the group docker, and log in again"
    if platform in ("win32", "darwin"):
        return "start Docker Desktop"
    return "start it, for example with `sudo systemctl start docker`"
