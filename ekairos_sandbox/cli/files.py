"""Files and directory trees into a sandbox and out of it."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.escapes import one_line
from ekairos_sandbox.cli.params import CHUNK_BYTES, ID, common_options, our_input, refused_values
from ekairos_sandbox.cli.session import Session, pass_session

if TYPE_CHECKING:
    from ekairos_sandbox.results import TransferStats


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("local", metavar="LOCAL")
@click.argument("remote", metavar="[REMOTE]", required=False)
@common_options
@pass_session
def put(session: Session, sandbox_id: str, local: str, remote: str | None) -> None:
    """Copy a local file or directory into the sandbox.

    REMOTE is what it shall be called there, relative to the sandbox's home; default: the name it
    has here; with `/` at the end: below that directory. Of a directory the contents are merged
    into REMOTE. LOCAL may be - for standard input.
    """
    name = "" if local == "-" else Path(local).absolute().name
    target = _below(remote, name) if remote is None or remote.endswith("/") else remote
    if not target:
        raise click.UsageError("REMOTE is missing: say what it shall be called in the sandbox")
    bar = render.progress(f"put {target}", quiet=session.json)
    with session.service() as service, refused_values(), _source(local) as source, bar as moved:
        stats = service.upload(sandbox_id, source, target, progress=moved)
    _report(session, "put", target, stats)


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("remote", metavar="REMOTE")
@click.argument("local", metavar="[LOCAL]", required=False)
@common_options
@pass_session
def get(session: Session, sandbox_id: str, remote: str, local: str | None) -> None:
    """Copy a file or directory out of the sandbox.

    LOCAL is what it shall be called here; default: its name there, in this directory. A file goes
    below LOCAL if that is a directory; of a directory the contents are merged into LOCAL. LOCAL
    may be - for standard output.
    """
    name = posixpath.basename(remote.rstrip("/"))
    if local is None and name in ("", ".", ".."):
        raise click.UsageError("LOCAL is missing: say what it shall be called here")
    with session.service() as service, refused_values():
        if local == "-":
            with tempfile.TemporaryDirectory(prefix="ekairos-get-") as folder:
                copy = Path(folder) / "file"
                service.download(sandbox_id, remote, copy)
                _print_file(copy, remote)
            return
        target = Path(local or name)
        if local is not None and local.endswith(("/", os.sep)):
            target.mkdir(parents=True, exist_ok=True)
        with render.progress(f"get {remote}", quiet=session.json) as moved:
            try:
                stats = service.download(sandbox_id, remote, target, progress=moved)
            except IsADirectoryError:
                # It is a file there and a directory here; nothing has been written yet.
                target /= name
                stats = service.download(sandbox_id, remote, target, progress=moved)
    _report(session, "got", str(target), stats)


def _below(folder: str | None, name: str) -> str:
    return f"{folder or ''}{name}" if name else ""


@contextmanager
def _source(local: str) -> Iterator[Path]:
    """Return the local file to send; standard input is stored in one first."""
    if local != "-":
        yield Path(local)
        return
    with tempfile.TemporaryDirectory(prefix="ekairos-put-") as folder:
        copy = Path(folder) / "stdin"
        with copy.open("wb") as file:
            file.writelines(our_input())
        copy.chmod(0o644)
        yield copy


def _print_file(path: Path, remote: str) -> None:
    from ekairos_sandbox.results import OutputChunk

    if path.is_dir():
        raise click.UsageError(f"{remote!r} is a directory; say what it shall be called here")
    output = render.GuestOutput()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            output.write(OutputChunk("stdout", 0, chunk))
    output.finish()


def _report(session: Session, verb: str, where: str, stats: TransferStats) -> None:
    if session.json:
        skipped = list(stats.skipped)
        value = {"path": where, "files": stats.files, "bytes": stats.bytes, "skipped": skipped}
        render.print_json(value)
        return
    for name in stats.skipped:
        render.complain("warning", f"left out: {name}")
    files = f"{stats.files} file{'' if stats.files == 1 else 's'}"
    render.say(one_line(f"{verb} {where}: {files}, {render.size(stats.bytes)}"))


COMMANDS = (put, get)
