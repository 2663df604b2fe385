"""What the environment, or a client of the SDK, says about the Daytona account in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ekairos_sandbox.exceptions import ConfigurationError

_TRUE = frozenset(("1", "true", "yes", "y", "on"))
_FALSE = frozenset(("0", "false", "no", "n", "off"))


@dataclass(frozen=True, slots=True)
class DaytonaSettings:
    """Where Daytona is and who we are there.

    Attributes:
        api_url: Base URL of the API, such as ``https://app.daytona.io/api``.
        token: API key, or JWT.
        organization_id: The organisation of a JWT; None for an API key, which belongs to one.
        target: Region in which sandboxes are made; None: the organisation's default.
        url_setting: What the URL was set with, for errors.
        token_setting: The same for the token.
    """

    api_url: str
    token: str = field(repr=False)
    organization_id: str | None = None
    target: str | None = None
    url_setting: str = "DAYTONA_API_URL"
    token_setting: str = "DAYTONA_API_KEY"  # noqa: S105 - the name of a variable

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> DaytonaSettings:
        """Read ``DAYTONA_API_URL``, ``DAYTONA_API_KEY`` and their alternatives.

        Raises:
            ConfigurationError: One of them is missing; says which.
        """
        names = ("DAYTONA_API_URL", "DAYTONA_SERVER_URL")
        url_setting = next((name for name in names if _text(environ, name)), None)
        if url_setting is None:
            raise ConfigurationError(
                "DAYTONA_API_URL is not set",
                provider="daytona",
                hint="the hosted service is https://app.daytona.io/api",
            )
        target = _text(environ, "DAYTONA_TARGET")
        url = environ[url_setting].strip()
        key = _text(environ, "DAYTONA_API_KEY")
        if key is not None:
            return cls(url, key, target=target, url_setting=url_setting)
        jwt = _text(environ, "DAYTONA_JWT_TOKEN")
        organization = _text(environ, "DAYTONA_ORGANIZATION_ID")
        if jwt is None or organization is None:
            raise ConfigurationError(
                "there are no Daytona credentials",
                provider="daytona",
                hint="set DAYTONA_API_KEY, or DAYTONA_JWT_TOKEN and DAYTONA_ORGANIZATION_ID",
            )
        return cls(url, jwt, organization, target, url_setting, "DAYTONA_JWT_TOKEN")

    @classmethod
    def from_client(cls, client: Any) -> DaytonaSettings:
        """Take over what a ``daytona.Daytona`` of the caller, or of its old name, was made with.

        Raises:
            TypeError: It is no such client.
        """
        # The client has no public attributes for them; these are in all releases allowed here.
        url, key = getattr(client, "_api_url", None), getattr(client, "_api_key", None)
        token = key or getattr(client, "_jwt_token", None)
        if not isinstance(url, str) or not isinstance(token, str):
            raise TypeError("client is no daytona.Daytona")
        organization = None if key else getattr(client, "_organization_id", None)
        return cls(
            url,
            token,
            organization,
            getattr(client, "_target", None),
            "the client's api_url",
            "the client's credentials",
        )


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for options that were not given.

    Attributes:
        ephemeral: Whether a sandbox is deleted when it stops.
        delete_on_stop: Whether ``stop`` deletes a sandbox that is not ephemeral.
        log_volumes: Whether mounts are logged.
        declarative: Whether sandboxes are made from a declarative image.
        declarative_base: Its base image.
        declarative_python: Its Python version.
        declarative_pip: Packages that it has.
    """

    ephemeral: bool = True
    delete_on_stop: bool = False
    log_volumes: bool = False
    declarative: bool = False
    declarative_base: str | None = None
    declarative_python: str | None = None
    declarative_pip: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Defaults:
        """Read the ``SANDBOX_DAYTONA_...`` variables.

        Raises:
            ConfigurationError: A switch is neither on nor off; names it.
        """
        prefix = "SANDBOX_DAYTONA_"
        packages = (_text(environ, prefix + "DECLARATIVE_PIP") or "").split(",")
        return cls(
            ephemeral=_switch(environ, prefix + "EPHEMERAL", default=True),
            delete_on_stop=_switch(environ, prefix + "DELETE_ON_STOP"),
            log_volumes=_switch(environ, prefix + "LOG_VOLUMES"),
            declarative=_switch(environ, prefix + "DECLARATIVE_IMAGE"),
            declarative_base=_text(environ, prefix + "DECLARATIVE_BASE"),
            declarative_python=_text(environ, prefix + "DECLARATIVE_PYTHON"),
            declarative_pip=tuple(name.strip() for name in packages if name.strip()),
        )


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _switch(environ: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    text = environ.get(name, "").strip().lower()
    if not text:
        return default
    if text not in _TRUE | _FALSE:
        raise ConfigurationError(
            f"{name} is neither on nor off", provider="daytona", hint="use 1 or 0"
        )
    return text in _TRUE
