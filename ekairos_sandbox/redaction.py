"""Keeping known secrets out of text that leaves the process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL|PRIVATE", re.IGNORECASE
)
MIN_LENGTH = 6
"""Shorter values are left alone: replacing them would garble harmless text."""


def known_secrets(environ: Mapping[str, str]) -> set[str]:
    """Return the values of environment variables whose names say that they are secret."""
    return {value for name, value in environ.items() if value and _SECRET_NAME.search(name)}


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with every known secret replaced by ``***``."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_LENGTH:
            text = text.replace(secret, "***")
    return text
