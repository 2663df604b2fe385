"""Reading the scripts that the library sends as far as must be, and framing answers to them."""

from __future__ import annotations

import base64
import re
import shlex

from ekairos_sandbox.exceptions import ProviderUnavailableError


def words(text: str, pattern: str) -> list[str]:
    """Return the words that a pattern finds, without the quotes of sh.

    Raises:
        ProviderUnavailableError: It finds nothing.
    """
    found = re.search(pattern, text, re.DOTALL)
    if found is None:
        raise ProviderUnavailableError("a fake sandbox does not understand this script")
    return shlex.split(found[1])


def word(text: str, pattern: str) -> str:
    """Return the only word that a pattern finds, "" for none; see ``words``."""
    found = words(text, pattern)
    return found[0] if found else ""


def variables(lines: str) -> dict[str, str]:
    """Return the variables that lines of sh export or hand to env(1)."""
    return dict(found.split("=", 1) for found in shlex.split(lines) if "=" in found)


def unformatted(text: str) -> bytes:
    """Return what ``printf`` makes of a format of ``shell.quoting.printf_format``."""
    plain = {"%%": b"%", "\\\\": b"\\", "\\n": b"\n"}
    pieces = re.findall(r"%%|\\\\|\\n|\\[0-7]{3}|[^%\\]+", text)
    return b"".join(
        plain.get(piece)
        or (bytes([int(piece[1:], 8)]) if piece.startswith("\\") else piece.encode())
        for piece in pieces
    )


def part(text: str, name: str, data: bytes) -> bytes:
    """Return what a script asks for of the output ``out`` or ``err``."""
    found = re.search(rf'ek_part "\$ek_job/{name}" "\$ek_.*?" (\S+) ([0-9]+)', text)
    if found is None:
        raise ProviderUnavailableError("a fake sandbox does not understand this script")
    offset, limit = found[1], int(found[2])
    if offset != "-":
        return data[int(offset) : int(offset) + limit]
    if len(data) <= limit:
        return data
    return data[: limit // 2] + data[len(data) - (limit - limit // 2) :]


def frame(nonce: str, *fields: str) -> bytes:
    """Return an answer."""
    return f"\n@EK1:{nonce}:{':'.join(fields)}:{nonce}@\n".encode()


def b64(data: bytes) -> str:
    """Return bytes as they are part of an answer."""
    return base64.b64encode(data).decode()
