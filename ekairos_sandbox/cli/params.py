"""Options and types of arguments that several commands share."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from ekairos_sandbox.cli.render import complain, is_terminal
from ekairos_sandbox.cli.session import Session
from ekairos_sandbox.exceptions import ConfigurationError

if TYPE_CHECKING:
    from io import BufferedReader

    _ParamType = click.ParamType[Any]
else:
    # Older releases of click have no parameter here.
    _ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

CHUNK_BYTES = 1 << 20
COMPLETED_IDS = 50

_LONGEST_S = 10**9
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SandboxId(_ParamType):
    """The durable id of a sandbox."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id in its canonical form."""
        from ekairos_sandbox.models import check_sandbox_id

        try:
            return check_sandbox_id(value)
        except ConfigurationError as error:
            self.fail(f"{value!r} is no sandbox id; {error.message}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the newest ids, if the records are in a file; never asks over a network."""
        del param
        with suppress(Exception):
            session = ctx.find_object(Session) or Session()
            return [
                CompletionItem(sandbox_id, help=status)
                for sandbox_id, status in _ids_in_file(session)
                if sandbox_id.startswith(incomplete)
            ]
        return []


def _ids_in_file(session: Session) -> Iterator[tuple[str, str]]:
    from ekairos_sandbox.models import RecordQuery
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

    with session.repository() as repository:
        if isinstance(repository, SqliteSandboxRepository) and repository.path.exists():
            for record in repository.list(RecordQuery(limit=COMPLETED_IDS)).records:
                yield record.id, record.status


class CommandId(_ParamType):
    """The id of a command in a sandbox."""

    name = "command"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id as it is, if it can be one."""
        from ekairos_sandbox.jobs.spec import check_command_id

        try:
            return check_command_id(value)
        except ValueError as error:
            self.fail(f"{value!r} is no command id: {error}", param, ctx)


class Duration(_ParamType):
    """A length of time, in seconds: ``90``, ``1.5s``, ``10m``, ``2h``, ``7d``, ``500ms``.

    Args:
        at_least: Seconds; shorter ones are refused.
    """

    name = "duration"

    def __init__(self, at_least: float = 0.0) -> None:
        self._at_least = at_least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        found = _DURATION.fullmatch(value.strip().lower())
        if found is None:
            self.fail(f"{value!r} is no duration; write 90, 1.5s, 10m, 2h, 7d or 500ms", param, ctx)
        seconds = float(found[1]) * _SECONDS[found[2]]
        if seconds < self._at_least:
            self.fail(f"it must be at least {self._at_least:g}s", param, ctx)
        if seconds > _LONGEST_S:
            self.fail(f"it must be at most {_LONGEST_S // 86400}d", param, ctx)
        return seconds


class Variable(_ParamType):
    """``NAME=VALUE``; or ``NAME``, whose value is taken from our own environment."""

    name = "name[=value]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return name and value. Never shows the value."""
        from ekairos_sandbox.models import ENV_NAME

        if isinstance(value, tuple):
            return value
        name, given, text = value.partition("=")
        if not ENV_NAME.fullmatch(name):
            self.fail("a variable is written NAME=VALUE, or NAME to pass on our own", param, ctx)
        if not given:
            session = ctx.find_object(Session) if ctx else None
            environ = (session or Session()).environ
            if name not in environ:
                self.fail(f"{name} is not set here; write {name}=VALUE", param, ctx)
            text = environ[name]
        return name, text


class Setting(_ParamType):
    """``KEY=VALUE``; the value is JSON if it can be read as such, else text."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Return key and value. Never shows the value."""
        if isinstance(value, tuple):
            return value
        key, given, text = value.partition("=")
        if not key or not given:
            self.fail("write KEY=VALUE", param, ctx)
        try:
            return key, json.loads(text)
        except (ValueError, RecursionError):
            return key, text


ID = SandboxId()
COMMAND_ID = CommandId()
DURATION = Duration()
TIMEOUT = Duration(at_least=0.001)
LIFETIME = Duration(at_least=1.0)
VARIABLE = Variable()
SETTING = Setting()


def _want_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    session = ctx.ensure_object(Session)
    session.json = session.json or value


def _choose_store(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    session = ctx.ensure_object(Session)
    if value is None or ctx.resilient_parsing:
        session.store = value or session.store
        return
    from ekairos_sandbox.settings import parse_store

    session.store = value
    if value != "instantdb":
        try:
            parse_store(value, session.environ)
        except ConfigurationError as error:
            # Not shown: it may be the URL of a database, password and all.
            raise click.BadParameter(f"this is no store; {error.hint}", ctx, param) from error


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_want_json,
        help="Print JSON, errors too.",
    )(function)


def store_option(function: F) -> F:
    """Add ``--store``."""
    return click.option(
        "--store",
        metavar="STORE",
        expose_value=False,
        callback=_choose_store,
        help="Record store: instantdb, sqlite:///relative/path.db or sqlite:////absolute/path.db.",
    )(function)


def common_options(function: F) -> F:
    """Add ``--json`` and ``--store``."""
    return json_option(store_option(function))


provider_option = click.option(
    "--provider", metavar="NAME", help="Only this provider, for example local."
)

env_option = click.option(
    "-e",
    "--env",
    multiple=True,
    type=VARIABLE,
    metavar="NAME[=VALUE]",
    help="Set a variable; NAME alone passes on our own, which keeps the value off the screen.",
)


def our_input() -> Iterator[bytes]:
    """Yield our standard input to its end; nothing if it is closed."""
    if sys.stdin is None:
        return
    if is_terminal(sys.stdin):
        complain("note", "reading standard input to its end (Ctrl-D)")
    source = cast("BufferedReader", sys.stdin.buffer)
    # Not `read`, which on a terminal wants Ctrl-D twice.
    while chunk := source.read1(CHUNK_BYTES):
        yield chunk


@contextmanager
def refused_values() -> Iterator[None]:
    """Turn the library's refusal of a value into a mistake on the command line."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error
