"""Environment variables that core reads, in one table.

Providers read their own; each documents them in its README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.models import PROVIDER_NAME

DEFAULT_PROVIDER = "sprites"

VARIABLES: Mapping[str, str] = {
    "SANDBOX_PROVIDER": "Provider used when the config names none; default `sprites`.",
    "EKAIROS_SANDBOX_STORE": (
        "Where records are kept: `instantdb`, `sqlite:///relative/path.db` or "
        "`sqlite:////absolute/path.db`; default: InstantDB when its variables are set, else, for "
        "the provider `local` only, a SQLite file in the user's data folder."
    ),
    "INSTANT_APP_ID": "InstantDB app id.",
    "NEXT_PUBLIC_INSTANT_APP_ID": "The same, read when `INSTANT_APP_ID` is not set.",
    "INSTANT_APP_ADMIN_TOKEN": "InstantDB admin token of that app.",
    "INSTANT_API_URI": "Base URL of the InstantDB server; default the hosted service.",
}
"""Every variable that core reads, and what it is for."""


def default_provider(environ: Mapping[str, str]) -> str:
    """Return the provider to use when the config names none.

    Raises:
        ConfigurationError: ``SANDBOX_PROVIDER`` is not a provider name.
    """
    name = environ.get("SANDBOX_PROVIDER", "").strip()
    if not name:
        return DEFAULT_PROVIDER
    if not PROVIDER_NAME.fullmatch(name):
        raise ConfigurationError(
            "SANDBOX_PROVIDER is not a provider name",
            hint="use the name of an installed provider, for example `local`",
        )
    return name


@dataclass(frozen=True, slots=True)
class StoreSetting:
    """Which record store to open.

    Attributes:
        kind: ``"sqlite"`` or ``"instantdb"``.
        path: File of a SQLite store; None means the one in the user's data folder.
        local_only: Nothing was configured: the store may serve the provider ``local`` only, so
            that no durable id is lost with a container's disk unnoticed.
    """

    kind: Literal["sqlite", "instantdb"]
    path: str | None = None
    local_only: bool = False


def store_setting(environ: Mapping[str, str]) -> StoreSetting:
    """Return which record store the environment asks for.

    Raises:
        ConfigurationError: The variables contradict each other or are incomplete; names them.
    """
    text = environ.get("EKAIROS_SANDBOX_STORE", "").strip()
    if text:
        return parse_store(text, environ)
    app = _app_id_variable(environ)
    token = bool(environ.get("INSTANT_APP_ADMIN_TOKEN"))
    if app and token:
        return StoreSetting("instantdb")
    if app or token:
        missing = "INSTANT_APP_ADMIN_TOKEN" if app else "INSTANT_APP_ID"
        raise ConfigurationError(
            f"{missing} is not set, but {app or 'INSTANT_APP_ADMIN_TOKEN'} is",
            hint="set both for InstantDB, or EKAIROS_SANDBOX_STORE to choose another store",
        )
    return StoreSetting("sqlite", local_only=True)


def parse_store(text: str, environ: Mapping[str, str]) -> StoreSetting:
    """Read the text of ``EKAIROS_SANDBOX_STORE``.

    Raises:
        ConfigurationError: It is not one of the known forms, or lacks what it needs.
    """
    if text == "instantdb":
        missing = [
            name
            for name, there in (
                ("INSTANT_APP_ID", _app_id_variable(environ)),
                ("INSTANT_APP_ADMIN_TOKEN", environ.get("INSTANT_APP_ADMIN_TOKEN")),
            )
            if not there
        ]
        if missing:
            raise ConfigurationError(f"the InstantDB store needs {' and '.join(missing)}")
        return StoreSetting("instantdb")
    if text.startswith("sqlite:///") and len(text) > len("sqlite:///"):
        return StoreSetting("sqlite", str(Path(text.removeprefix("sqlite:///")).expanduser()))
    raise ConfigurationError(
        "EKAIROS_SANDBOX_STORE is not a store",
        hint="use instantdb, sqlite:///relative/path.db or sqlite:////absolute/path.db",
    )


def _app_id_variable(environ: Mapping[str, str]) -> str | None:
    for name in ("INSTANT_APP_ID", "NEXT_PUBLIC_INSTANT_APP_ID"):
        if environ.get(name):
            return name
    return None
