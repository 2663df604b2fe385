"""Where the command line begins and ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from types import FrameType

PROG = "ekairos-sandbox"
COMPLETE_VARIABLE = "_EKAIROS_SANDBOX_COMPLETE"
INSTALL = "pip install 'ekairos-sandbox[cli]'"


def entry() -> None:
    """Run the command line and leave the process with its exit code."""
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f"the command line needs {' and '.join(missing)}: {INSTALL}\n")
        sys.exit(1)
    try:
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            # Not where somebody chose to ignore them, as nohup does.
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
        code = main()
    except KeyboardInterrupt:
        code = -signal.SIGINT
    if code < 0:
        # A shell goes on with its script or loop unless the signal itself is what ended us.
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; nothing is raised.

    Returns:
        The exit code, or ``-n`` if the process should end as by signal n.
    """
    from click import ClickException

    from ekairos_sandbox.cli.app import app
    from ekairos_sandbox.cli.failures import report
    from ekairos_sandbox.cli.render import OutputError, flush
    from ekairos_sandbox.cli.session import Session

    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, PROG, COMPLETE_VARIABLE, instruction)
    session = Session()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        _prepare_streams()
        with app.make_context(PROG, [*words], obj=session) as context:
            code = int(app.invoke(context) or 0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends here
        if isinstance(error, ClickException):
            # No option counts yet where another one of the same command was wrong.
            session.json |= "--json" in takewhile(lambda word: word != "--", words)
        code = report(error, session)
    try:
        flush()
    except OutputError as error:
        code = code or report(error, session)
    _drop_unwritable()
    return code


def _prepare_streams() -> None:
    """Let no letter that the terminal's encoding lacks break the output."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _drop_unwritable() -> None:
    """Drop what cannot be written any more, or Python would complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _end(number: int, frame: FrameType | None) -> None:
    from ekairos_sandbox.cli.failures import Signalled

    del frame
    raise Signalled(number)
