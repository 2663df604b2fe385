"""What a failure looks like: one line, a hint, an exit code; never a traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from typing import Any

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.escapes import one_line
from ekairos_sandbox.cli.exits import BY_ERROR, Exit
from ekairos_sandbox.cli.session import Session
from ekairos_sandbox.exceptions import OutcomeUnknownError, SandboxError

_HINTS = {
    "sandbox_stopped": "`ekairos-sandbox reconnect {id}` starts it again if it still exists",
    "sandbox_failed": "`ekairos-sandbox reconcile` shows what is left of it; create a new one",
    "command_running": "wait again, or end it with `ekairos-sandbox kill`",
    "provider_not_installed": "{hint}; --provider chooses another",
    "checkpoint_not_found": "`ekairos-sandbox checkpoint list {id}` shows which there are",
    "outcome_unknown": "`ekairos-sandbox wait {id} {command}` finds its result if there is one",
}
"""Hints in the words of the command line, where the library's speak of Python."""

_OPTIONS = re.compile(r"\w+=\{'(\w+)': '(\w+)'\}")


class Signalled(BaseException):
    """A signal asked the process to end; raised where it was, so that everything is let go of.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def report(error: BaseException, session: Session) -> int:
    """Print what went wrong and return the exit code, or ``-n`` to end as by signal n."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, Signalled):
        return -error.number
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    if isinstance(error, render.OutputError):
        return _output_closed(error)
    if session.debug and not isinstance(error, click.ClickException):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        render.complain("error", "interrupted")
        return -signal.SIGINT
    code, message, hint, details = _described(error)
    if session.json:
        shown = {"error": one_line(message), "hint": hint and one_line(hint), **details}
        _print_error({**shown, "exit_code": int(code)})
    else:
        render.complain("error", message)
        if hint:
            render.complain("hint", hint)
    return code


def _described(error: BaseException) -> tuple[Exit, str, str | None, dict[str, Any]]:
    if isinstance(error, SandboxError):
        details = {"code": error.code, "retryable": error.retryable, "outcome": error.outcome}
        code = BY_ERROR.get(error.code, Exit.FAILED)
        return code, error.message, hint_of(error), details
    if isinstance(error, click.ClickException):
        return Exit.USAGE, usage_text(error), _usage_hint(error), {"code": "usage"}
    if isinstance(error, OSError):
        return Exit.FAILED, _system_error(error), None, {"code": "os_error"}
    hint = "this is a defect; `ekairos-sandbox --debug ...` shows where"
    return Exit.FAILED, f"{type(error).__name__}: {_redacted(error)}", hint, {"code": "unexpected"}


def hint_of(error: SandboxError) -> str | None:
    """Return the hint of an error in the words of the command line."""
    hint = error.hint
    command = error.command_id if isinstance(error, OutcomeUnknownError) else None
    if error.code in _HINTS and (error.code != "outcome_unknown" or command):
        hint = _HINTS[error.code].format(
            id=error.sandbox_id or "ID", command=command or "COMMAND", hint=hint or ""
        )
    return hint and spelt_as_options(hint)


def spelt_as_options(text: str) -> str:
    """Return a text in which a provider's options are written as on the command line."""
    return _OPTIONS.sub(r"--option \1=\2", text)


def usage_text(error: click.ClickException) -> str:
    """Return a message of click's in our own way of writing."""
    message = error.format_message().rstrip(".")
    shouted = message[:2].isupper() or message.startswith("--")
    return message if shouted else message[:1].lower() + message[1:]


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "ekairos-sandbox"
    return f"`{path} --help` shows how it is used"


def _system_error(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    return f"{what}: {os.fsdecode(error.filename)!r}" if error.filename else what


def _redacted(error: BaseException) -> str:
    from ekairos_sandbox.redaction import known_secrets, redact

    return redact(str(error), known_secrets(os.environ))


def _output_closed(error: render.OutputError) -> int:
    if error.cause.errno == errno.EPIPE:
        return -getattr(signal, "SIGPIPE", signal.SIGTERM)
    if sys.stderr is not None:
        render.complain("error", f"cannot write the output: {error.cause.strerror}")
    return Exit.FAILED


def _print_error(value: dict[str, Any]) -> None:
    import json

    if sys.stderr is not None:
        sys.stderr.write(json.dumps(value) + "\n")
        sys.stderr.flush()
