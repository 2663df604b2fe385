"""Operations on a real arena, the situations that they begin in, and what they must achieve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.arenas import Arena, lose
from helpers.moments import Deadly

from ekairos_sandbox import RaisingService
from ekairos_sandbox.provider import Capability, Provider

LINES = "".join(f"{number}\n" for number in range(1, 2001))
NEW, OLD = b"new" * 30_000, b"old" * 20_000


@dataclass(frozen=True)
class Case:
    """One operation and when its process is killed.

    Attributes:
        operation: Which.
        deadly: When the process that carries it out is killed.
        then: When the process that reconciles next is killed; None: there is no such process.
        sandbox_id: The durable id.
        token: What the command leaves as its mark.
    """

    operation: str
    deadly: Deadly = None
    then: int | None = None
    sandbox_id: str = ""
    token: str = ""


@dataclass(frozen=True)
class Scene:
    """What an operation acts on, in the process that carries it out."""

    arena: Arena
    case: Case
    service: RaisingService

    @property
    def id(self) -> str:
        return self.case.sandbox_id

    @property
    def provider(self) -> Provider[Any]:
        return self.service._operations.ledger.provider(self.arena.name)

    @property
    def tree(self) -> Path:
        """A directory tree of this machine."""
        return self.arena.folder / "tree"

    @property
    def copy(self) -> Path:
        """Where a tree is downloaded to."""
        return self.arena.folder / f"copy-{self.case.token}"

    @property
    def stored(self) -> Path:
        """Holds the id of a checkpoint."""
        return self.arena.folder / "checkpoint"

    def copied(self) -> dict[str, bytes]:
        """Return what was downloaded, without what bears a temporary name."""
        files = [path for path in self.copy.rglob("[!.]*") if path.is_file()]
        return {path.name: path.read_bytes() for path in files}

    def command(self, *, slow: bool = False) -> list[str]:
        script = 'echo "$1" >>"$2"; seq 2000; echo err >&2; exit 3'
        argv = ["sh", "-c", f"sleep 0.1; {script}" if slow else script, "sh"]
        return [*argv, self.case.token, str(self.arena.effects)]

    def effects(self) -> int:
        return self.arena.effects.read_text().split().count(self.case.token)


@dataclass(frozen=True)
class Operation:
    """Something to do, and what it needs to be there before.

    Attributes:
        name: What tests call it.
        act: Does it, and checks what it is told.
        before: Makes the situation.
        asleep: Whether an hour has passed since.
        warm: Whether its process has a connection already.
        ruins: What was killed before: other operations, and at which moment.
        runs: Whether it runs the command, or collects the result of one that ``before`` ran.
        ends: How the record may say that the sandbox ended.
        halfway: Checks what may be seen of it when it was killed.
        needs: What the provider must offer.
    """

    name: str
    act: Callable[[Scene], object]
    before: Callable[[Scene], object] = lambda scene: made(scene)
    asleep: bool = False
    warm: bool = False
    ruins: tuple[tuple[str, str], ...] = ()
    runs: bool = False
    ends: tuple[str | None, ...] = (None,)
    halfway: Callable[[Scene], object] = lambda scene: None
    needs: Capability | None = None

    @property
    def lives(self) -> bool:
        """Whether there is a sandbox all the time."""
        return self.ends == (None,) and self.before is not _nothing


def made(scene: Scene) -> None:
    scene.arena.create(scene.service, scene.id, env_from=["API_KEY"])


def _nothing(scene: Scene) -> None:
    del scene


def _sleep(scene: Scene) -> None:
    """Stop it at the provider, as its own limits would."""
    ledger = scene.service._operations.ledger
    scene.provider.stop(ledger.ref(ledger.get(scene.id)))


def _asleep(scene: Scene) -> None:
    made(scene)
    _sleep(scene)


def _ran(scene: Scene) -> None:
    """A command has ended, and the provider has stopped the sandbox since."""
    made(scene)
    _run(scene)
    _sleep(scene)


def _lost(scene: Scene) -> None:
    made(scene)
    lose(scene.arena, scene.service)


def _stopped(scene: Scene) -> None:
    made(scene)
    scene.service.stop_sandbox(scene.id)


def _kept(scene: Scene) -> None:
    made(scene)
    scene.service.write_files(scene.id, {"a": OLD, "tree/a": OLD, "tree/b/c": b"c"})


def _planted(scene: Scene) -> None:
    _kept(scene)
    (scene.tree / "b").mkdir(parents=True, exist_ok=True)
    (scene.tree / "a").write_bytes(NEW)
    (scene.tree / "b" / "c").write_bytes(b"c")


def _saved(scene: Scene) -> None:
    _kept(scene)
    _checkpoint(scene)
    scene.service.write_files(scene.id, {"a": NEW})


def _run(scene: Scene) -> None:
    _check(scene.service.run_command(scene.id, scene.command(), command_id="job-1"))


def _collect(scene: Scene) -> None:
    _check(scene.service.get_command(scene.id, "job-1").wait())


def _start(scene: Scene) -> None:
    started = scene.service.start_command(scene.id, scene.command(slow=True), command_id="job-1")
    _check(started.wait())


def _check(result: Any) -> None:
    assert (result.exit_code, result.output, result.error) == (3, LINES, "err\n"), result
    assert not result.truncated


def _write(scene: Scene) -> None:
    scene.service.write_files(scene.id, {"a": NEW, "new/b": NEW})
    assert scene.service.read_file(scene.id, "new/b") == NEW


def _read(scene: Scene) -> None:
    assert scene.service.read_file(scene.id, "a") == OLD


def _upload(scene: Scene) -> None:
    scene.service.upload(scene.id, scene.tree, "tree")
    assert scene.service.read_file(scene.id, "tree/a") == NEW


def _download(scene: Scene) -> None:
    scene.service.download(scene.id, "tree", scene.copy)
    assert scene.copied() == {"a": OLD, "c": b"c"}


def _whole(path: str) -> Callable[[Scene], None]:
    """Return a check that a file inside is the old or the new one, never part of one."""

    def check(scene: Scene) -> None:
        assert scene.service.read_file(scene.id, path) in (OLD, NEW)

    return check


def _whole_copy(scene: Scene) -> None:
    found = scene.copied()
    assert (found.get("a", OLD), found.get("c", b"c")) == (OLD, b"c")


def _make(scene: Scene) -> None:
    scene.arena.create(scene.service, None)


def _stop(scene: Scene) -> None:
    assert scene.service.stop_sandbox(scene.id).status == "shutdown"


def _destroy(scene: Scene) -> None:
    assert scene.service.destroy_sandbox(scene.id).status == "shutdown"


def _reconnect(scene: Scene) -> None:
    scene.service.reconnect_to_sandbox(scene.id)


def _checkpoint(scene: Scene) -> None:
    scene.stored.write_text(scene.service.create_checkpoint(scene.id).id)


def _reconcile(scene: Scene) -> None:
    assert all(action.applied for action in scene.service.reconcile(apply=True).actions)


def _restore(scene: Scene) -> None:
    scene.service.restore_checkpoint(scene.id, scene.stored.read_text())
    assert scene.service.read_file(scene.id, "a") == OLD


def _disorder(scene: Scene) -> None:
    """One that is lost, and one that the operations killed next can spoil."""
    _make(scene)
    lose(scene.arena, scene.service)
    made(scene)


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("create", _make, _nothing),
        Operation("create with an id", made, _nothing),
        Operation("run warm", _run, warm=True, runs=True),
        Operation("run cold", _run, runs=True),
        Operation("run on stopped", _run, _asleep, asleep=True, runs=True),
        Operation("run on lost", _run, _lost, runs=True, ends=(None, "lost")),
        Operation("start and wait", _start, runs=True),
        Operation("collect from stopped", _collect, _ran, asleep=True, runs=True),
        Operation("write", _write, _kept, halfway=_whole("a")),
        Operation("write on lost", _write, _lost, ends=(None, "lost")),
        Operation("read", _read, _kept),
        Operation("upload", _upload, _planted, halfway=_whole("tree/a")),
        Operation("download", _download, _kept, halfway=_whole_copy),
        Operation("stop", _stop, ends=(None, "requested")),
        Operation("stop on lost", _stop, _lost, ends=(None, "lost", "requested")),
        Operation("destroy", _destroy, ends=(None, "requested")),
        Operation("destroy on stopped", _destroy, _stopped, asleep=True, ends=("requested",)),
        Operation("reconnect", _reconnect),
        Operation(
            "reconnect on stopped", _reconnect, _stopped, asleep=True, ends=(None, "requested")
        ),
        Operation("checkpoint", _checkpoint, _kept, needs=Capability.CHECKPOINTS),
        Operation("restore", _restore, _saved, halfway=_whole("a"), needs=Capability.CHECKPOINTS),
        Operation(
            "reconcile",
            _reconcile,
            _disorder,
            ends=(None, "lost", "requested"),
            ruins=(
                ("create", "after create"),
                ("create", "after record create"),
                ("stop", "after record transition"),
            ),
        ),
    )
}
