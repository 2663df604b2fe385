"""How things look: plain lines in a pipe, tables and progress on a terminal, JSON on demand.

Text that comes from a sandbox, a provider or a record is made harmless here and only here.
``rich`` is imported when a terminal needs it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import click

from ekairos_sandbox.cli.escapes import Neutraliser, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ekairos_sandbox.results import OutputChunk

PLAIN_PROGRESS_S = 5.0
"""How often a transfer says how far it is when nobody watches a terminal."""

_COLOURS = {
    "active": "green",
    "creating": "yellow",
    "recreating": "yellow",
    "error": "red",
    "running": "green",
    "lost": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "broken": "red",
}


class OutputError(Exception):
    """Our own output cannot be written: a closed pipe, a full disk.

    Attributes:
        cause: What the system said.
    """

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def need_output() -> None:
    """Raise unless there is a standard output, before something is made whose id goes there."""
    if sys.stdout is None:
        raise click.ClickException("standard output is closed, and nothing else tells the id")


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a person sees this stream."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def paint(text: str, style: str, stream: IO[str] | None) -> str:
    """Return text in a colour, if the stream is a terminal whose user did not forbid it."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown")
    if plain or not is_terminal(stream):
        return text
    return click.style(text, fg=style)


def say(text: str = "") -> None:
    """Print a line of our own to standard output."""
    with _writing():
        if sys.stdout is not None:
            sys.stdout.write(f"{text}\n")


def complain(kind: str, message: object) -> None:
    """Print ``kind: message`` as one line to standard error, if it can be written at all."""
    if sys.stderr is None:
        return
    style = {"error": "red", "warning": "yellow"}.get(kind)
    label = f"{one_line(kind)}:"
    label = paint(label, style, sys.stderr) if style else label
    with suppress(OutputError):
        flush()
    with suppress(OSError):
        sys.stderr.write(f"{label} {one_line(message)}\n")
        sys.stderr.flush()


def print_json(value: Any, *, compact: bool = False) -> None:
    """Print one JSON document, ASCII only, so that nothing in it can act on a terminal."""
    if compact:
        say(json.dumps(value, separators=(",", ":")))
    else:
        say(json.dumps(value, indent=2))


def flush() -> None:
    """See to it that what was printed has been written.

    Raises:
        OutputError: It could not be.
    """
    with _writing():
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows: a table on a terminal, lines of fields parted by tabs in a pipe.

    The first column is never cut. Where the terminal is too narrow for the others, each row takes
    two lines.
    """
    cells = [[one_line("" if cell is None else cell) for cell in row] for row in rows]
    if not is_terminal(sys.stdout):
        for row in cells:
            say("\t".join(row))
        return
    console = _console(sys.stdout)
    first = max((len(row[0]) for row in cells), default=0)
    if first + sum(len(title) + 3 for title in titles[1:]) > console.width:
        for row in cells:
            say(row[0])
            say(f"  {'  '.join(cell for cell in row[1:] if cell)}")
        return
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    made.add_column(titles[0], no_wrap=True)
    for title in titles[1:]:
        made.add_column(title, min_width=len(title))
    for row in cells:
        made.add_row(row[0], *(_cell(cell) for cell in row[1:]))
    with _writing():
        console.print(made)


def _cell(text: str) -> Text:
    from rich.text import Text

    return Text(text, style=_COLOURS.get(text, ""), no_wrap=True, overflow="ellipsis")


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, leaving out those without a value."""
    given = [(name, one_line(value)) for name, value in pairs if value not in (None, "", [])]
    if not is_terminal(sys.stdout):
        for name, value in given:
            say(f"{name}\t{value}")
        return
    width = max((len(name) for name, _ in given), default=0)
    for name, value in given:
        value = paint(value, _COLOURS[value], sys.stdout) if value in _COLOURS else value
        say(f"{name:<{width}}  {value}")


def finding(status: str, subject: object, detail: object, hint: object = None) -> None:
    """Print one line of a diagnosis, and below it what to do."""
    label = paint(f"{status:<5}", _COLOURS.get(status, "white"), sys.stdout)
    say(f"{label} {one_line(subject)}: {one_line(detail)}")
    if hint:
        say(f"      {one_line(hint)}")


class GuestOutput:
    """Passes on what a command writes, to our standard output and standard error.

    Exactly as it is into a pipe or file; made harmless for a terminal, unless ``raw``.
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._neutralisers = {
            name: None if raw or not is_terminal(stream) else Neutraliser()
            for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
        }

    def write(self, chunk: OutputChunk) -> None:
        """Write a piece at once.

        Raises:
            OutputError: It cannot be written.
        """
        self._put(chunk.stream, chunk.data)

    def finish(self) -> None:
        """Write what was held back for the rest of a character."""
        for name in ("stdout", "stderr"):
            self._put(name, b"", final=True)

    def _put(self, name: str, data: bytes, *, final: bool = False) -> None:
        neutraliser = self._neutralisers[name]
        stream = getattr(sys, name)
        if stream is None:
            return
        with _writing():
            if neutraliser is not None:
                stream.write(neutraliser.feed(data, final=final))
            elif data:
                write_bytes(stream, data)
            stream.flush()


def write_bytes(stream: IO[str], data: bytes) -> None:
    """Write bytes as they are to a text stream's file."""
    stream.flush()
    stream.buffer.write(data)  # type: ignore[attr-defined]
    stream.buffer.flush()  # type: ignore[attr-defined]


@contextmanager
def working(label: str, *, quiet: bool = False) -> Iterator[None]:
    """Show on a terminal that something is under way."""
    if quiet or not is_terminal(sys.stderr):
        yield
        return
    with _console(sys.stderr).status(_label(label)):
        yield


@contextmanager
def progress(
    label: str, *, quiet: bool = False, monotonic: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int | None], None]]:
    """Show how far a transfer is: a bar on a terminal, now and then a line in a pipe."""
    if quiet:
        yield lambda done, total: None
        return
    if not is_terminal(sys.stderr):
        yield _PlainProgress(label, monotonic)
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
    )
    with bars.Progress(*columns, console=_console(sys.stderr), transient=True) as shown:
        task = shown.add_task(one_line(label), total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


class _PlainProgress:
    """Says how far a transfer is, at most every few seconds."""

    def __init__(self, label: str, monotonic: Callable[[], float]) -> None:
        self._label = label
        self._monotonic = monotonic
        self._due = monotonic() + PLAIN_PROGRESS_S

    def __call__(self, done: int, total: int | None) -> None:
        now = self._monotonic()
        if now >= self._due:
            self._due = now + PLAIN_PROGRESS_S
            of = f" of {size(total)}" if total else ""
            complain(self._label, f"{size(done)}{of}")


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 1024:
        return f"{count} B"
    number = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        number /= 1024
        if number < 1024 or unit == "TiB":
            break
    return f"{number:.1f} {unit}"


def age(epoch_ms: int | None, now_ms: int) -> str:
    """Return how long ago a time was, in its largest unit."""
    if epoch_ms is None:
        return ""
    seconds = max(0, (now_ms - epoch_ms) // 1000)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def moment(epoch_ms: int | None) -> str:
    """Return a time as UTC text."""
    if epoch_ms is None:
        return ""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{epoch_ms} ms"


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _label(text: str) -> Text:
    from rich.text import Text

    return Text(one_line(text))
