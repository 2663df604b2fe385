"""Settling what crashes left behind, and keeping stores in order; fit for cron."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.escapes import one_line
from ekairos_sandbox.cli.exits import Exit
from ekairos_sandbox.cli.params import DURATION, ID, common_options
from ekairos_sandbox.cli.providers import check_installed
from ekairos_sandbox.cli.session import Session, pass_session
from ekairos_sandbox.exceptions import ConfigurationError

if TYPE_CHECKING:
    from ekairos_sandbox.results import ReconcileAction, ReconcileReport


@click.command()
@click.option("--apply", is_flag=True, help="Do it; without this it is only said.")
@click.option(
    "--destroy-unrecorded",
    is_flag=True,
    help="With --apply: also destroy sandboxes that bear our mark and have no record.",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="Only these; default: every provider that a record names.",
)
@common_options
@pass_session
def reconcile(
    session: Session, apply: bool, destroy_unrecorded: bool, providers: tuple[str, ...]
) -> int:
    """Settle what a crash left behind.

    Compares the records with what the providers have. Exits with 0 if nothing is left to settle,
    112 if something is, 113 if something could not be looked at or settled.
    """
    if destroy_unrecorded and not apply:
        raise click.UsageError("--destroy-unrecorded needs --apply")
    for name in providers:
        check_installed(name)
    with session.service() as service, render.working("comparing", quiet=session.json):
        report = service.reconcile(
            apply=apply, destroy_unrecorded=destroy_unrecorded, providers=providers or None
        )
    if session.json:
        render.print_json({**asdict(report), "left": len(_left(report))})
    else:
        _print(report)
    if report.errors:
        return Exit.INCOMPLETE
    return Exit.FINDINGS if _left(report) else Exit.DONE


def _left(report: ReconcileReport) -> list[ReconcileAction]:
    return [action for action in report.actions if not action.applied and action.error is None]


def _print(report: ReconcileReport) -> None:
    for action in report.actions:
        subject = " ".join(filter(None, (action.kind, action.provider, action.sandbox_id)))
        status = "fail" if action.error else "ok" if action.applied else "warn"
        render.finding(status, subject, action.detail, action.error)
    left, failed = _left(report), len(report.errors)
    settled = len(report.actions) - len(left) - failed
    render.say(
        f"{report.checked} records checked, {settled} settled, {len(left)} left, {failed} failed"
    )
    if left and not report.applied:
        render.complain("note", "nothing was changed; --apply does it")
    elif any(action.kind == "unrecorded" for action in left):
        render.complain("note", "--destroy-unrecorded destroys those without a record")


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.option(
    "--older",
    type=DURATION,
    default=7 * 86400.0,
    help="Only of commands that ended longer ago than this; default 7d, 0 for all.",
)
@common_options
@pass_session
def purge(session: Session, sandbox_id: str, older: float) -> None:
    """Delete the output of ended commands.

    Prints of how many.
    """
    with session.service() as service:
        count = service.purge_commands(sandbox_id, older_than_s=older)
    if session.json:
        render.print_json({"purged": count})
    else:
        render.say(str(count))


@click.group()
def store() -> None:
    """Look after the record store."""


@store.command()
@click.option("--moved", is_flag=True, help="This file is now the only one.")
@click.option(
    "--copied",
    is_flag=True,
    help="The other file is still in use; this one leaves the sandboxes to it.",
)
@common_options
@pass_session
def rekey(session: Session, moved: bool, copied: bool) -> None:
    """Let a SQLite file that was moved or copied be used where it stands now."""
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

    if moved == copied:
        raise click.UsageError("say which: --moved or --copied")
    with session.repository() as repository:
        if not isinstance(repository, SqliteSandboxRepository):
            raise ConfigurationError("only a SQLite store is bound to a place")
        if not repository.path.exists():
            raise ConfigurationError(f"there is no file {str(repository.path)!r}")
        repository.rekey(copied=copied)
        if session.json:
            render.print_json({"path": str(repository.path), "owner": repository.owner})
        else:
            render.say(one_line(repository.path))


COMMANDS = (reconcile, purge, store)
