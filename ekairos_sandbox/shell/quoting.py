"""Bytes as sh text.

Everything here yields one line of printable ASCII where it can, so that it survives transports
that mangle control bytes, line ends or encodings.
"""

from __future__ import annotations

import os
import re

_PLAIN = re.compile(rb"[A-Za-z0-9_@%+=:,./-]+")
_SAFE_IN_FORMAT = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 !#$&()*+,-./:;<=>?@[]^_{|}~"
)


def _in_format(byte: int) -> bytes:
    if byte in _SAFE_IN_FORMAT:
        return bytes([byte])
    return {0x25: b"%%", 0x5C: b"\\\\", 0x0A: b"\\n"}.get(byte, b"\\%03o" % byte)


_IN_FORMAT = tuple(_in_format(byte) for byte in range(256))


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
    text = b"".join(map(_IN_FORMAT.__getitem__, data))
    return b"'\\055" + text[1:] + b"'" if text.startswith(b"-") else b"'" + text + b"'"
