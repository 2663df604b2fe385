"""The schema and the rules of an InstantDB app; ``INSTANT_APP_ID`` and its kin name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.escapes import one_line
from ekairos_sandbox.cli.params import json_option
from ekairos_sandbox.cli.session import Session, pass_session

if TYPE_CHECKING:
    from ekairos_sandbox.repository.instantdb import InstantClient


@contextmanager
def _client(session: Session) -> Iterator[InstantClient]:
    from ekairos_sandbox.repository.instantdb import InstantClient

    with InstantClient(environ=session.environ) as client:
        yield client


@click.group()
def schema() -> None:
    """What the library needs in an InstantDB app."""


@schema.command()
@json_option
def show() -> None:
    """Print them as JSON; needs no app."""
    from ekairos_sandbox.repository.instantdb.domain import sandbox_domain

    render.print_json(sandbox_domain.schema)


@schema.command()
@json_option
@pass_session
def plan(session: Session) -> None:
    """Say what a push would add."""
    _push(session, plan_only=True)


@schema.command()
@json_option
@pass_session
def push(session: Session) -> None:
    """Add what is missing; removes nothing, safe to repeat."""
    _push(session, plan_only=False)


def _push(session: Session, *, plan_only: bool) -> None:
    from ekairos_sandbox.repository.instantdb.domain import push_schema

    with _client(session) as client, render.working("asking the server", quiet=session.json):
        done = push_schema(client, plan_only=plan_only)
    if session.json:
        render.print_json({"steps": list(done.steps), "applied": done.applied})
        return
    for step in done.steps:
        render.say(one_line(step))
    render.say("pushed" if done.applied else f"{len(done.steps)} steps to do")


@schema.command()
@json_option
@pass_session
def check(session: Session) -> None:
    """Say what is missing; exits with 100 if something is."""
    from ekairos_sandbox.repository.instantdb import domain

    with _client(session) as client:
        domain.check(client)
    _say(session, "complete", complete=True)


@click.group()
def rules() -> None:
    """Who may read and write those entities."""


@rules.command("push")
@json_option
@pass_session
def push_rules(session: Session) -> None:
    """Close them to guests and users; leaves other rules as they are."""
    from ekairos_sandbox.repository.instantdb import domain

    with _client(session) as client:
        changed = domain.push_rules(client)
    _say(session, "closed to guests and users" if changed else "closed already", changed=changed)


def _say(session: Session, text: str, **value: object) -> None:
    if session.json:
        render.print_json(value)
    else:
        render.say(text)


COMMANDS = (schema, rules)
