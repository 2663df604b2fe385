"""The program: its options, and the commands it is made of."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import click

from ekairos_sandbox.cli import (
    authors,
    checkpoints,
    commands,
    doctor,
    files,
    housekeeping,
    providers,
    render,
    sandboxes,
    schema,
)
from ekairos_sandbox.cli.params import common_options
from ekairos_sandbox.cli.session import Session, pass_session


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes, completion and more: docs/cli.md.",
)
@common_options
@click.option("--debug", is_flag=True, help="Show log messages, and tracebacks of errors.")
@click.version_option(metadata.version("ekairos-sandbox"), prog_name="ekairos-sandbox")
@pass_session
def app(session: Session, debug: bool) -> None:
    """Remote sandboxes by a durable id.

    \b
    ID=$(ekairos-sandbox create --provider local)
    ekairos-sandbox run $ID -- uname -a
    ekairos-sandbox destroy $ID
    """  # noqa: D301 - click wants the character itself
    session.debug = debug
    click.get_current_context().with_resource(_messages_in_lines(debug))


@contextmanager
def _messages_in_lines(debug: bool) -> Iterator[None]:
    """Show warnings and log messages the way errors are shown."""
    ours, root, handler = logging.getLogger("ekairos_sandbox"), logging.getLogger(), _LogLines()
    level, handler.level = ours.level, logging.DEBUG if debug else logging.WARNING
    root.addHandler(handler)
    try:
        if debug:
            ours.setLevel(logging.DEBUG)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        ours.setLevel(level)
        root.removeHandler(handler)


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    del args, kwargs
    render.complain("warning", message)


class _LogLines(logging.Handler):
    """Shows each log message as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        render.complain(record.levelname.lower(), record.getMessage())


for command in (
    *sandboxes.COMMANDS,
    *commands.COMMANDS,
    *files.COMMANDS,
    *checkpoints.COMMANDS,
    *providers.COMMANDS,
    *housekeeping.COMMANDS,
    *doctor.COMMANDS,
    *schema.COMMANDS,
    *authors.COMMANDS,
):
    app.add_command(command)
