"""Processes that are cheap to begin: one that has opened nothing forks the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

Say = Callable[[str], None]
"""Tells the process that asked one line of text; it arrives also if the next moment is the last."""


@dataclass(frozen=True)
class Life:
    """What became of a process.

    Attributes:
        exit_code: 0 if its function returned, 1 if it raised, ``-signal`` if it was killed.
        said: The lines that it said; the last ones are the traceback if it raised.
    """

    exit_code: int
    said: tuple[str, ...]

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL


class Nursery:
    """A process that forks one for each function to be called; use it as a context manager.

    Args:
        modules: What it imports, so that the others need not.
        spoil: Called in it before anything else; it holds for the others too.
    """

    def __init__(self, modules: Iterable[str], spoil: Callable[[], None] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, tuple(modules), spoil)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.send(None)
        self._process.join()
        self._connection.close()

    def call(self, function: Callable[..., None], *arguments: Any) -> Life:
        """Call ``function(say, *arguments)`` in a process of its own and wait for its end."""
        self._connection.send((function, arguments))
        life: Life = self._connection.recv()
        return life


def _serve(connection: Any, modules: tuple[str, ...], spoil: Callable[[], None] | None) -> None:
    for module in modules:
        import_module(module)
    if spoil is not None:
        spoil()
    while (task := connection.recv()) is not None:
        connection.send(_live(*task))


def _live(function: Callable[..., None], arguments: tuple[Any, ...]) -> Life:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _die_after(function, arguments, writing)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    return Life(os.waitstatus_to_exitcode(status), tuple(said.splitlines()))


def _die_after(function: Callable[..., None], arguments: tuple[Any, ...], writing: int) -> None:
    """Call the function and end this process, whatever happens."""

    def say(text: str) -> None:
        os.write(writing, text.encode() + b"\n")

    code = 1
    try:
        function(say, *arguments)
        code = 0
    except BaseException:
        say(traceback.format_exc())
    finally:
        os._exit(code)
