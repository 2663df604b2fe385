"""Stored states of a sandbox's files."""

from __future__ import annotations

from dataclasses import asdict

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.escapes import one_line
from ekairos_sandbox.cli.params import ID, common_options
from ekairos_sandbox.cli.session import Session, pass_session


@click.group()
def checkpoint() -> None:
    """Store the files of a sandbox, and go back."""


@checkpoint.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.option("--comment", default="", metavar="TEXT", help="Kept with it.")
@common_options
@pass_session
def create(session: Session, sandbox_id: str, comment: str) -> None:
    """Store the state of the files and print its id."""
    with session.service() as service, render.working("storing the files", quiet=session.json):
        made = service.create_checkpoint(sandbox_id, comment)
    if session.json:
        render.print_json(asdict(made))
    else:
        render.say(one_line(made.id))


@checkpoint.command("list")
@click.argument("sandbox_id", metavar="ID", type=ID)
@common_options
@pass_session
def list_(session: Session, sandbox_id: str) -> None:
    """List the stored states, oldest first."""
    with session.service() as service:
        found = service.list_checkpoints(sandbox_id)
    if session.json:
        render.print_json([asdict(one) for one in found])
        return
    rows = [(one.id, render.moment(one.created_at), one.comment) for one in found]
    render.table(("ID", "CREATED", "COMMENT"), rows)


@checkpoint.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("checkpoint_id", metavar="CHECKPOINT")
@common_options
@pass_session
def restore(session: Session, sandbox_id: str, checkpoint_id: str) -> None:
    """Return the files to a stored state; commands that run are ended."""
    busy = render.working("restoring the files", quiet=session.json)
    with session.service() as service, busy:
        service.restore_checkpoint(sandbox_id, checkpoint_id)
    if session.json:
        render.print_json({"sandbox_id": sandbox_id, "restored": checkpoint_id})
    else:
        render.say(one_line(checkpoint_id))


COMMANDS = (checkpoint,)
