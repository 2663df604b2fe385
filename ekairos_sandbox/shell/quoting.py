"""Bytes as sh text.

Everything here yields one line of printable ASCII where it can, so that it survives transports
that mangle control bytes, line ends or encodings.
"""

from __future__ import annotations

import os
import re

_PLAIN = re.compile(rb"[A-Za-z0-9_@%+=:,./-]+")
_UNSAFE_IN_FORMAT = re.compile(rb"""[^A-Za-z0-9 !#$&()*+,./:;<=>?@[\]^_{|}~-]""")
_IN_FORMAT = {bytes([byte]): b"\\%03o" % byte for byte in range(256)}
_IN_FORMAT |= {b"%": b"%%", b"\\": b"\\\\", b"\n": b"\\n"}


def as_bytes(text: str | bytes) -> bytes:
    """Return text as the bytes a POSIX system takes it for, undecodable ones included.

    Raises:
        ValueError: It holds a NUL character, which no argument, name or variable can.
    """
    data = os.fsencode(text) if isinstance(text, str) else text
    if b"\0" in data:
        raise ValueError("must not hold a NUL character")
    return data


def quote(text: str | bytes) -> bytes:
    """Quote one word for sh.

    Raises:
        ValueError: It holds a NUL character.
    """
    data = as_bytes(text)
    if data and _PLAIN.fullmatch(data):
        return data
    return b"'" + data.replace(b"'", b"'\\''") + b"'"


def printf_format(data: bytes) -> bytes:
    r"""Return ``data`` as a quoted format for ``printf``: ``printf <this>`` prints exactly it.

    One line of printable ASCII; other bytes become ``\ooo``, and so does a leading ``-``, which
    would begin an option. NUL works in dash, bash and busybox.
    """
    text = _UNSAFE_IN_FORMAT.sub(lambda found: _IN_FORMAT[found[0]], data)
    return b"'\\055" + text[1:] + b"'" if text.startswith(b"-") else b"'" + text + b"'"
