"""Operations that a signal stops, at a numbered call or request of a process.

``Stops`` puts every call of a process to its record store and its provider, and below them every
HTTP request, through one place, which lets the signal come before or after it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from helpers.sites import Site
from helpers.steps import SteppedStore
from urllib3.connection import HTTPConnection

from ekairos_sandbox import CommandResult, RaisingService
from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing import faulty
from ekairos_sandbox.testing.faults import Faults

T = TypeVar("T")
Side = Literal["before", "after"]

ID = "7d3f3a52-8d5c-4a53-9d6a-4d1f6f2d8f11"
CONTENT = b"content" * 10_000


class Stops(Faults):
    """The calls of a process, one of which a signal stops.

    Args:
        at: Which, from 1, or the first of this name; 0: none.
        side: Whether the signal comes before it or after its effect.
        number: The signal.

    Attributes:
        trace: The calls so far.
    """

    def __init__(
        self, at: int | str = 0, side: Side = "before", number: int = signal.SIGINT
    ) -> None:
        super().__init__()
        self.trace: list[str] = []
        self.begun = False
        self._at, self._side, self._number = at, side, number

    def run(self, operation: str, call: Callable[[], T]) -> T:
        """Make a call of the provider."""
        return self.step(operation, call)

    def step(self, operation: str, call: Callable[[], T], *, stored: bool = True) -> T:
        """Make a call."""
        del stored
        if not self.begun:
            return call()
        self.trace.append(operation)
        first = operation if self.trace.count(operation) == 1 else None
        due = self._at in (len(self.trace), first)
        if due and self._side == "before":
            signal.raise_signal(self._number)
        answer = call()
        if due and self._side == "after":
            signal.raise_signal(self._number)
        return answer

    def service(self, site: Site) -> RaisingService:
        """Return the service of the process."""
        cls = PluginRegistry().provider_class(site.provider)
        provider = cls(ProviderContext(environ=site.environ))
        return site.service(
            around_store=lambda store: SteppedStore(store, self.step),
            providers=(faulty(provider, self),),
        )


def watch_requests(stops: Stops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the sending of every request, and the waiting for its answer, as calls too."""
    for name in ("request", "getresponse"):
        real: Callable[..., Any] = getattr(HTTPConnection, name)

        def watched(
            *args: Any, _real: Callable[..., Any] = real, _name: str = name, **more: Any
        ) -> Any:
            return stops.step(_name, lambda: _real(*args, **more))

        monkeypatch.setattr(HTTPConnection, name, watched)


@dataclass
class Scene:
    """What an operation acts on."""

    site: Site
    service: RaisingService
    checkpoint: str = ""
    result: CommandResult | None = None


@dataclass(frozen=True)
class Operation:
    """Something to do in a sandbox.

    Attributes:
        act: Does it.
        before: Makes what it needs besides the sandbox.
        ends: Whether the sandbox may be shut down afterwards.
    """

    act: Callable[[Scene], object]
    before: Callable[[Scene], object] = field(default=lambda scene: None)
    ends: bool = False


def _command(scene: Scene) -> None:
    scene.result = scene.service.run_command(
        ID, "echo ran >>log; sleep 0.1; echo done", shell=True, command_id="job"
    )


def _start(scene: Scene) -> None:
    scene.service.start_command(
        ID, "echo ran >>log; sleep 0.1; echo done", shell=True, command_id="job"
    )
    scene.result = scene.service.get_command(ID, "job").wait()


def _stream(scene: Scene) -> None:
    with scene.service.stream_command(
        ID, "echo ran >>log; sleep 0.1; echo done", shell=True, command_id="job"
    ) as stream:
        list(stream)
        scene.result = stream.result()


def _plant(scene: Scene) -> None:
    tree = scene.site.folder / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "a").write_bytes(CONTENT)
    (tree / "b").write_bytes(CONTENT)


def _keep(scene: Scene) -> None:
    scene.service.write_files(ID, {"tree/a": CONTENT, "tree/b": CONTENT})


def _save(scene: Scene) -> None:
    _keep(scene)
    scene.checkpoint = scene.service.create_checkpoint(ID).id


OPERATIONS = {
    "run": Operation(_command),
    "start": Operation(_start),
    "stream": Operation(_stream),
    "write": Operation(_keep),
    "read": Operation(lambda s: s.service.read_file(ID, "tree/a"), _keep),
    "upload": Operation(lambda s: s.service.upload(ID, s.site.folder / "tree", "tree"), _plant),
    "download": Operation(lambda s: s.service.download(ID, "tree", s.site.folder / "copy"), _keep),
    "stop": Operation(lambda s: s.service.stop_sandbox(ID), ends=True),
    "destroy": Operation(lambda s: s.service.destroy_sandbox(ID), ends=True),
    "checkpoint": Operation(lambda s: s.service.create_checkpoint(ID), _keep),
    "restore": Operation(lambda s: s.service.restore_checkpoint(ID, s.checkpoint), _save),
    "reconcile": Operation(
        lambda s: s.service.reconcile(apply=True), lambda s: s.service.stop_sandbox(ID), ends=True
    ),
}


def carry_out(site: Site, name: str, stops: Stops) -> Scene:
    """Make a sandbox and carry an operation out in it, during which a signal may come."""
    with site.service() as service:
        service.create_sandbox(site.config, sandbox_id=ID)
        scene = Scene(site, service)
        OPERATIONS[name].before(scene)
    with stops.service(site) as scene.service:
        stops.begun = True
        try:
            OPERATIONS[name].act(scene)
        finally:
            stops.begun = False
    return scene


def check(site: Site, name: str) -> None:
    """Check what must hold afterwards, and that the sandbox can be used; then clear up."""
    (record,) = site.settle()
    if OPERATIONS[name].ends:
        assert record.status in ("active", "shutdown")
    else:
        assert record.status == "active"
    with site.service() as service:
        if record.status == "active":
            log = service.run_command(ID, "cat log 2>/dev/null; true", shell=True)
            assert log.output in ("", "ran\n"), "it ran twice"
            assert service.run_command(ID, ["echo", "fine"]).output == "fine\n"
            if name in ("write", "upload"):
                kept = service.run_command(ID, "cat tree/a 2>/dev/null; true", shell=True)
                assert kept.stdout_size in (0, len(CONTENT)), "a file was left half-written"
        copy = site.folder / "copy"
        if copy.exists():
            assert {p.stat().st_size for p in copy.iterdir() if p.name[0] != "."} <= {len(CONTENT)}
    site.clear()


def main() -> None:
    """Carry out an operation in a process of its own, which SIGTERM kills, as by default."""
    name, at, side, folder = sys.argv[1:]
    site = Site(dict(os.environ), Path(folder))
    stops = Stops(int(at), "before" if side == "before" else "after", signal.SIGTERM)
    carry_out(site, name, stops)
