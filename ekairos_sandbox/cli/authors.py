"""For those who write a provider."""

from __future__ import annotations

from pathlib import Path

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.escapes import one_line
from ekairos_sandbox.cli.params import json_option
from ekairos_sandbox.cli.session import Session, pass_session


@click.command("new-provider")
@click.argument("name", metavar="NAME")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="PATH",
    help="Where the new folder is made; default: here.",
)
@json_option
@pass_session
def new_provider(session: Session, name: str, folder: Path) -> None:
    """Write the distribution of a new provider, and print its folder.

    It is small and complete, and its tests pass; TODO marks what is yours to fill in.
    """
    from ekairos_sandbox.templates.new_provider import new_provider as write

    written = write(name, folder)
    if session.json:
        render.print_json({"name": name, "folder": str(written)})
    else:
        render.say(one_line(str(written)))


COMMANDS = (new_provider,)
