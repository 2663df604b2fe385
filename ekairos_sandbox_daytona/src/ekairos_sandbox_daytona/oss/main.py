"""The command line of ``ekairos-daytona-local``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox_daytona.oss.checkout import LAST_REF, REPOSITORY
from ekairos_sandbox_daytona.oss.problems import ExitCode, StackError
from ekairos_sandbox_daytona.oss.settings import VARIABLES, Settings
from ekairos_sandbox_daytona.oss.stack import Stack

PROGRAM = "ekairos-daytona-local"
WAIT_S = 300.0


def entry() -> None:
    """Run the console script and end the process with its exit code."""
    sys.exit(main())


def main(
    argv: Sequence[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    platform: str = sys.platform,
) -> int:
    """Carry out one command and return its exit code, one of ``ExitCode``.

    Args:
        argv: The arguments; None: those of the process.
        environ: The environment; None: that of the process.
        clock: Time and sleep.
        platform: As ``sys.platform``: whose shell and whose Docker the user is told of.
    """
    arguments = _parser().parse_args(argv)
    environ = os.environ if environ is None else environ
    settings = Settings.read(environ, ref=getattr(arguments, "ref", None))
    stack = Stack(settings, environ, clock or SystemClock(), platform, _say, _warn)
    try:
        _carry_out(arguments, stack)
    except StackError as error:
        _warn(f"error: {error.message}")
        if error.hint:
            _warn(f"hint: {error.hint}")
        return error.exit_code
    except OSError as error:
        _warn(f"error: {error}")
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.DONE


def _carry_out(arguments: argparse.Namespace, stack: Stack) -> None:
    match arguments.command:
        case "init":
            stack.init(arguments.repository)
        case "pull":
            stack.pull()
        case "up":
            stack.up(timeout_s=arguments.timeout)
        case "down":
            stack.down()
        case "restart":
            stack.restart(timeout_s=arguments.timeout)
        case "status":
            stack.status()
        case "logs":
            stack.logs(arguments.services, follow=arguments.follow, tail=arguments.tail)
        case "clean":
            stack.clean(confirm=lambda: arguments.yes or _asked())


def _asked() -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stdout.write("remove all of this? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _warn(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    variables = "\n".join(f"  {name:<21}{text}" for name, text in VARIABLES.items())
    codes = ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Run the open-source Daytona on this machine, with git and docker compose.",
        epilog=f"variables:\n{variables}\n\nexit codes:\n  {codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="get Daytona's sources, or check another ref out")
    init.add_argument("--ref", help=f"tag, branch or commit; default {LAST_REF}")
    init.add_argument(
        "--repository", default=REPOSITORY, help="clone from here; default %(default)s"
    )
    up = commands.add_parser("up", help="start it, wait for its API and say how to use it")
    restart = commands.add_parser("restart", help="stop it and start it again; data stays")
    for starting in (up, restart):
        starting.add_argument(
            "--timeout",
            type=_seconds,
            default=WAIT_S,
            metavar="SECONDS",
            help="how long to wait for the API once the containers run; default %(default)g",
        )
    commands.add_parser("down", help="stop it; data stays")
    commands.add_parser("status", help="show the containers and whether the API answers")
    logs = commands.add_parser("logs", help="show what the containers wrote")
    logs.add_argument("services", nargs="*", metavar="SERVICE", help="default: all")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logs.add_argument("--tail", type=_lines, default="200", help="lines of each; or `all`")
    commands.add_parser("pull", help="bring the sources up to date; local changes are kept")
    clean = commands.add_parser("clean", help="stop it and remove all its data")
    clean.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("give seconds, at most a day")
    return seconds


def _lines(text: str) -> str:
    if text != "all" and not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError("give a number of lines, or all")
    return text
