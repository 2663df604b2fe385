"""Keeping known secrets out of text that leaves the process."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ekairos_sandbox.exceptions import SandboxError

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|_KEY$|CREDENTIAL|PRIVATE|DATABASE_URL|DSN$",
    re.IGNORECASE,
)
MIN_LENGTH = 6
"""Shorter values are left alone: replacing them would garble harmless text."""

_SHORTENED = "…"


def known_secrets(environ: Mapping[str, str]) -> set[str]:
    """Return the values of environment variables whose names say that they are secret."""
    return {value for name, value in environ.items() if value and _SECRET_NAME.search(name)}


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with every known secret replaced by ``***``.

    Also where its lines were put on one, and where the text was shortened within it, as ``…`` at
    the end says.
    """
    forms = {form for secret in secrets for form in (secret, " ".join(secret.split()))}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= MIN_LENGTH:
            text = _without_begin_of(form, text.replace(form, "***"))
    return text


def redact_error(error: BaseException, secrets: Collection[str]) -> None:
    """Take known secrets out of the texts of an error, and of those that led to it."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop()
        seen.add(id(current))
        current.args = tuple(
            redact(arg, secrets) if isinstance(arg, str) else arg for arg in current.args
        )
        if isinstance(current, SandboxError) and current.hint is not None:
            current.hint = redact(current.hint, secrets)
        before = (current.__cause__, current.__context__)
        waiting += [item for item in before if item is not None and id(item) not in seen]


def _without_begin_of(secret: str, text: str) -> str:
    if text.endswith(_SHORTENED):
        text = text.removesuffix(_SHORTENED)
        for length in range(min(len(secret), len(text)), MIN_LENGTH - 1, -1):
            if text.endswith(secret[:length]):
                text = text[:-length] + "***"
                break
        text += _SHORTENED
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
