"""Text of unknown origin, made harmless for a terminal.

Whatever a sandbox sends may hold sequences that move the cursor, rewrite what was printed before,
set the window's title, or make the terminal type. Shown here are letters, line ends and tabs; any
other control is made visible the way ``cat -v`` does.
"""

from __future__ import annotations

import codecs
import re

# C0 and C1 controls, DEL, marks that turn the direction of writing around, separators of lines,
# and halves of characters (bytes of an argument or a file name that are no text).
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_END = re.compile(r"\s*[\r\n]+\s*")


def visible(text: str) -> str:
    """Return text in which every control but line end and tab is spelt out."""
    return _CONTROL.sub(lambda match: _spelt(ord(match.group())), text)


def one_line(text: object) -> str:
    """Return text as one line, for a table, an error or a title."""
    return visible(_LINE_END.sub(" ", str(text)).strip().replace("\t", " "))


def _spelt(code: int) -> str:
    if code < 0x20 or code == 0x7F:
        return f"^{chr(code ^ 0x40)}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Neutraliser:
    """Turns the bytes of one stream into harmless text, piece by piece.

    A carriage return alone, by which a line could overwrite itself, becomes a line end.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Return what can be shown by now; ``final``: there will be no more."""
        text = self._held + self._decoder.decode(data, final)
        # The line feed that belongs to a carriage return may come with the next piece.
        self._held = "\r" if text.endswith("\r") and not final else ""
        text = text.removesuffix(self._held) if self._held else text
        return visible(text.replace("\r\n", "\n").replace("\r", "\n"))
