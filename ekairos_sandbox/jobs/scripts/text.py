"""Making one script of templates."""

from __future__ import annotations

import re

from ekairos_sandbox.shell.quoting import quote

_PLACEHOLDER = re.compile(rb"@\{([a-z_]+)\}")


def compact(text: str) -> str:
    """Leave out comments and indentation: they need not travel with every call."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#")) + "\n"


def fill(template: str, **values: bytes | str | int) -> bytes:
    """Replace each ``@{name}``: ``bytes`` go in as they are, text and numbers as quoted words.

    Raises:
        KeyError: A placeholder has no value.
    """
    words = {
        name: value if isinstance(value, bytes) else quote(str(value))
        for name, value in values.items()
    }
    return _PLACEHOLDER.sub(lambda found: words[found[1].decode()], template.encode())


def script(*parts: bytes) -> bytes:
    """Join parts into one script that runs completely or not at all."""
    return b"{\n" + b"".join(parts) + b"\nexit\n}\n"
