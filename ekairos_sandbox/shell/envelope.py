r"""Finding a script's answer among whatever else came out of the sandbox.

A script answers with one line::

    LF "@EK1:" nonce ":" field *(":" field) ":" nonce "@" LF

``nonce`` is new for each call, so text that a program printed, or an answer to an older call,
never fits. Fields hold printable ASCII without ``:`` and ``@``; anything else travels in base64.
Every byte outside 0x21-0x7E is dropped before the search, so banners, framing bytes, CRLF and
inserted control characters do no harm. A cut or damaged answer is no answer.
"""

from __future__ import annotations

import binascii
import re
import secrets

# One pattern for all calls, because compiling one takes longer than the search. The last mark is
# not used up: it may be the first one of the next frame.
_FRAME = re.compile(rb"@EK1:([0-9a-f]{16}):([^@]*):([0-9a-f]{16})(?=@)")
_OUTSIDE = bytes(b for b in range(256) if not 0x21 <= b <= 0x7E)

SLACK_BYTES = 64 * 1024
"""Room for banners and other foreign output around an answer."""


def new_nonce() -> str:
    """Return 16 hexadecimal digits."""
    return secrets.token_hex(8)


def frames(output: bytes, nonce: str) -> list[list[str]]:
    """Return the fields of every complete answer to this call, the last one first.

    The caller checks number, kind and lengths of the fields, and takes the first that fits.
    """
    output = output.translate(None, _OUTSIDE)
    both = (nonce.encode(), nonce.encode())
    found = [match.span(2) for match in _FRAME.finditer(output) if match.group(1, 3) == both]
    # Cut out and decoded in one step: an answer with much output is large.
    view = memoryview(output)
    return [str(view[start:end], "ascii").split(":") for start, end in reversed(found)]


def decode(field: str, code: str = "b") -> bytes | None:
    """Decode a field; None if it is not exactly what was encoded.

    Args:
        field: The field.
        code: ``"b"`` for base64, ``"x"`` for hexadecimal, where a sandbox has no base64.
    """
    try:
        if code == "x":
            return binascii.unhexlify(field)
        return binascii.a2b_base64(field, strict_mode=True) if code == "b" else None
    except (binascii.Error, ValueError):
        return None


def encoded_size(size: int) -> int:
    """Upper bound of what ``size`` bytes take up as wrapped base64, line ends included."""
    return (size + 2) // 3 * 4 * 80 // 76 + 80
