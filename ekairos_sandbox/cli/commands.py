"""Commands that run inside a sandbox: run, start, follow, wait for, end, list."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.exits import Exit
from ekairos_sandbox.cli.failures import Signalled, usage_text
from ekairos_sandbox.cli.params import (
    COMMAND_ID,
    DURATION,
    ID,
    TIMEOUT,
    common_options,
    env_option,
    our_input,
    refused_values,
)
from ekairos_sandbox.cli.session import Session, pass_session

if TYPE_CHECKING:
    from ekairos_sandbox.results import CommandResult

F = TypeVar("F", bound=Callable[..., Any])

raw_option = click.option(
    "--raw", is_flag=True, help="Let the output act on the terminal: colours, and anything else."
)


class _RemoteCommand(click.Command):
    """A command whose words after ``--`` are not its own but those of a command inside."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words after ``--`` apart from ours, whatever they look like."""
        before, words = args, None
        if "--" in args:
            at = args.index("--")
            before, words = args[:at], tuple(args[at + 1 :])
        try:
            rest = super().parse_args(ctx, before)
        except click.BadParameter:
            raise
        except click.UsageError as error:
            if words is not None:
                raise
            raise self._no_command(ctx, usage_text(error)) from error
        if not words and not ctx.resilient_parsing:
            raise self._no_command(ctx, "the command is missing")
        ctx.params["words"] = words or ()
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the words as part of the usage."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARGUMENT]..."]

    def _no_command(self, ctx: click.Context, why: str) -> click.UsageError:
        example = f"{ctx.command_path} ID -- ls -l"
        return click.UsageError(f"{why}; write `--` before the command: `{example}`", ctx)


def _command_options(function: F) -> F:
    for option in reversed(
        (
            click.option("-i", "--stdin", is_flag=True, help="Send our standard input."),
            click.option("-w", "--cwd", metavar="PATH", help="Directory; default: the home."),
            env_option,
            click.option("--timeout", type=TIMEOUT, help="End the command after this time."),
            click.option("--shell", is_flag=True, help="The command is one line for /bin/sh."),
            click.option(
                "--command-id",
                type=COMMAND_ID,
                help="An id of your own; the same call then runs the command once.",
            ),
            click.option(
                "--no-recreate",
                is_flag=True,
                help="Fail if the sandbox is gone, whatever it was created with.",
            ),
        )
    ):
        function = option(function)
    return function


def _call(
    words: tuple[str, ...],
    stdin: bool,
    cwd: str | None,
    env: tuple[tuple[str, str], ...],
    timeout: float | None,
    shell: bool,
    command_id: str | None,
    no_recreate: bool,
) -> dict[str, Any]:
    """Return the arguments of the service's verb; our standard input is read now."""
    from ekairos_sandbox.jobs.spec import SpooledInput, new_command_id

    if cwd == "":
        raise click.UsageError("--cwd is empty: leave it out for the sandbox's home")
    if shell and len(words) != 1:
        raise click.UsageError("with --shell the command is one word: quote it")
    return {
        "command": words[0] if shell else words,
        "shell": shell,
        "stdin": SpooledInput.from_any(our_input()) if stdin else None,
        "cwd": cwd,
        "env": dict(env),
        "timeout_s": timeout,
        "command_id": command_id or new_command_id(),
        "on_gone": "fail" if no_recreate else None,
    }


@click.command(cls=_RemoteCommand)
@click.argument("sandbox_id", metavar="ID", type=ID)
@_command_options
@raw_option
@common_options
@pass_session
def run(
    session: Session, /, sandbox_id: str, raw: bool, words: tuple[str, ...], **options: Any
) -> int:
    """Run a command and exit with its code.

    Its output is shown as it comes. Ctrl-C ends the command. Standard input is empty unless
    --stdin is given.
    """
    output = render.GuestOutput(raw=raw)
    with session.service() as service, refused_values():
        call = _call(words, **options)
        try:
            result = service.run_command(
                sandbox_id, on_output=None if session.json else output.write, **call
            )
        except (KeyboardInterrupt, Signalled):
            again = f"`ekairos-sandbox wait {sandbox_id} {call['command_id']}`"
            render.complain("note", f"the command was told to end; {again} tells how it did")
            raise
    output.finish()
    if result.recreated:
        render.complain("warning", "the sandbox was gone and was made anew: its files are lost")
    if session.json:
        render.print_json(_json(result))
    elif result.dropped:
        render.complain("warning", "it wrote more than the sandbox keeps; the rest is lost")
    return _exit_code(result)


@click.command(cls=_RemoteCommand)
@click.argument("sandbox_id", metavar="ID", type=ID)
@_command_options
@common_options
@pass_session
def start(session: Session, /, sandbox_id: str, words: tuple[str, ...], **options: Any) -> None:
    """Start a command and print its command id.

    It goes on by itself; `logs` and `wait` find it again from anywhere.
    """
    if options["command_id"] is None:
        render.need_output()
    with session.service() as service, refused_values():
        command = service.start_command(sandbox_id, **_call(words, **options))
    if session.json:
        render.print_json({"sandbox_id": command.sandbox_id, "command_id": command.command_id})
    else:
        render.say(command.command_id)


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("command_id", metavar="COMMAND", type=COMMAND_ID)
@click.option("-f", "--follow", is_flag=True, help="Wait for more until the command has ended.")
@raw_option
@common_options
@pass_session
def logs(session: Session, sandbox_id: str, command_id: str, follow: bool, raw: bool) -> None:
    """Show what a command has written.

    Its two streams go to standard output and standard error. With --json one object a line:
    stream, offset, and data in base64. Ctrl-C leaves the command running.
    """
    output = render.GuestOutput(raw=raw)
    with session.service() as service:
        for chunk in service.get_command(sandbox_id, command_id).chunks(follow=follow):
            if session.json:
                data = base64.b64encode(chunk.data).decode()
                value = {"stream": chunk.stream, "offset": chunk.offset, "data_base64": data}
                render.print_json(value, compact=True)
                render.flush()
            else:
                output.write(chunk)
    output.finish()


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("command_id", metavar="COMMAND", type=COMMAND_ID)
@click.option("--timeout", type=DURATION, help="Wait at most this long; the command goes on.")
@common_options
@pass_session
def wait(session: Session, sandbox_id: str, command_id: str, timeout: float | None) -> int:
    """Wait for a command and exit with its code.

    `logs` shows its output.
    """
    with session.service() as service:
        result = service.get_command(sandbox_id, command_id).wait(timeout)
    if session.json:
        render.print_json(_json(result))
    return _exit_code(result)


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("command_id", metavar="COMMAND", type=COMMAND_ID)
@common_options
@pass_session
def kill(session: Session, sandbox_id: str, command_id: str) -> None:
    """End a command and all that it started.

    Safe to repeat; says how it ended.
    """
    with session.service() as service:
        result = service.get_command(sandbox_id, command_id).kill()
    if session.json:
        render.print_json(_json(result))
    elif result.cancelled:
        render.say("killed")
    elif result.timed_out:
        render.say("timed out before")
    else:
        render.say(f"exited before with code {result.exit_code}")


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@common_options
@pass_session
def ps(session: Session, sandbox_id: str) -> None:
    """List the commands that a sandbox knows."""
    with session.service() as service:
        states = service.list_commands(sandbox_id)
    if session.json:
        render.print_json(states)
    else:
        render.table(("COMMAND", "STATE"), sorted(states.items()))


def _exit_code(result: CommandResult) -> int:
    """Return the command's own code, or say why it has none."""
    if result.timed_out:
        render.complain("error", "the command was ended by its timeout")
        return Exit.TIMED_OUT
    if result.cancelled or result.exit_code is None:
        render.complain("error", "the command was killed")
        return Exit.KILLED
    return result.exit_code


def _json(result: CommandResult) -> dict[str, Any]:
    return {
        "command_id": result.command_id,
        "command": list(result.command),
        "exit_code": result.exit_code,
        "timed_out": result.timed_out,
        "cancelled": result.cancelled,
        "duration_ms": result.duration_ms,
        "recreated": result.recreated,
        "stdout": result.output,
        "stderr": result.error,
        "stdout_base64": _exact(result.stdout),
        "stderr_base64": _exact(result.stderr),
        "stdout_size": result.stdout_size,
        "stderr_size": result.stderr_size,
        "truncated": result.truncated,
        "dropped": result.dropped,
    }


def _exact(data: bytes) -> str | None:
    """Return bytes in base64 if their text does not say exactly what they are."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()
    return None


COMMANDS = (run, start, logs, wait, kill, ps)
