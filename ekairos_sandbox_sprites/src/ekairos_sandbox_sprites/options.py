"""Options of the Sprites provider, and its settings from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.provider import ProviderOptions

TOKEN_VARIABLES = ("SPRITES_API_TOKEN", "SPRITES_TOKEN", "SPRITE_TOKEN")
URL_VARIABLES = ("SPRITES_API_BASE_URL", "SPRITES_API_URL")
DELETE_ON_STOP_VARIABLE = "SANDBOX_SPRITES_DELETE_ON_STOP"
DEFAULT_URL = "https://api.sprites.dev"

RESERVED_LABELS = "ekairos-"
"""Labels that begin so are this library's own."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class UrlSettings(ProviderOptions):
    """Who may use a sprite's own URL.

    Attributes:
        auth: ``"sprite"`` (default): only requests that bear a Sprites token of the organisation.
            ``"public"``: everybody.
    """

    auth: Literal["sprite", "public"] = "sprite"


class SpritesOptions(ProviderOptions):
    """How a sprite is made and ended.

    Attributes:
        name: Its name, unique in the organisation: 1 to 63 lower-case letters, digits and inner
            hyphens; None (default) makes one up. One that exists without this library's labels is
            used as it is and never deleted unasked. The URL of a name of more than 48 characters
            does not resolve.
        wait_for_capacity: True (default): a creation waits until the service has room; False: it
            fails at once when there is none.
        url_settings: Who may use its URL.
        delete_on_stop: True: ``stop`` deletes the sprite with its files and checkpoints. False:
            ``stop`` ends the commands that run and leaves it at that, as the service knows no
            stop; an unused sprite falls asleep by itself and goes on costing its storage. None
            (default): what ``SANDBOX_SPRITES_DELETE_ON_STOP`` says, else True.
        labels: Further labels; none may begin with ``ekairos-``.
    """

    name: str | None = None
    wait_for_capacity: bool = True
    url_settings: UrlSettings = UrlSettings()
    delete_on_stop: bool | None = None
    labels: tuple[str, ...] = Field(default=(), max_length=32)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        if name is not None and not is_name(name):
            raise ValueError("must be 1 to 63 lower-case letters, digits and inner hyphens")
        return name

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            if not label or len(label) > 100 or not label.isprintable():
                raise ValueError("must hold texts of 1 to 100 printable characters")
            if label.startswith(RESERVED_LABELS):
                raise ValueError(f"must not hold labels that begin with {RESERVED_LABELS}")
        return labels


def is_name(name: str) -> bool:
    """Tell whether the service accepts a text as a sprite's name."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class SpritesSettings:
    """What the environment says.

    Attributes:
        token: The API token; never shown.
        token_setting: The variable it came from.
        base_url: Where the API is.
        url_setting: The variable that came from.
        delete_on_stop: Whether ``stop`` deletes, where neither options nor record say.
    """

    token: str = field(repr=False)
    token_setting: str
    base_url: str = DEFAULT_URL
    url_setting: str = URL_VARIABLES[0]
    delete_on_stop: bool = True

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> SpritesSettings:
        """Read the settings.

        Raises:
            ConfigurationError: No token is set, or a variable cannot be read; names it.
        """
        token_setting, token = _first(environ, TOKEN_VARIABLES)
        if not token:
            raise ConfigurationError(
                "no token for Sprites is set",
                provider="sprites",
                hint=f"set {TOKEN_VARIABLES[0]} to a token from sprites.dev/account",
            )
        url_setting, base_url = _first(environ, URL_VARIABLES)
        return cls(
            token=token,
            token_setting=token_setting,
            base_url=base_url or DEFAULT_URL,
            url_setting=url_setting,
            delete_on_stop=_flag(environ, DELETE_ON_STOP_VARIABLE, default=True),
        )

    @property
    def organization(self) -> str | None:
        """The organisation that the token names itself, as ``slug/number``, or None.

        Tokens have the form ``org-slug/org-id/token-id/secret`` (help of the CLI's
        ``auth setup``). The number matters: everybody's own organisation is called ``personal``.
        """
        parts = self.token.split("/")
        if len(parts) != 4 or not parts[0] or not parts[1].isascii() or not parts[1].isdigit():
            return None
        return f"{parts[0]}/{parts[1]}"


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    """Return the first of some variables that is set, and its value."""
    for name in names:
        value = environ.get(name, "").strip()
        if value:
            return name, value
    return names[0], ""


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name, "").strip().lower()
    if not text:
        return default
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ConfigurationError(f"{name} is neither true nor false", hint="use true or false")
