"""Keeping known secrets out of text that leaves the process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|_KEY$|CREDENTIAL|PRIVATE|DATABASE_URL|DSN$",
    re.IGNORECASE,
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


def likely_secrets(value: Any, known: Iterable[str] = (), path: str = "params") -> Iterator[str]:
    """Yield where JSON seems to hold a secret, such as ``"params.db.password"``.

    That is text under a key whose name says so, and any of the ``known`` secrets.
    """
    secrets = {secret for secret in known if len(secret) >= MIN_LENGTH}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        where = f"{path}.{key}"
        if isinstance(item, Mapping | list | tuple):
            yield from likely_secrets(item, secrets, where)
        elif isinstance(item, str) and (
            item in secrets or (item and isinstance(key, str) and _SECRET_NAME.search(key))
        ):
            yield where
