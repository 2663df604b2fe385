"""Which account requests are made in: base URL, token, team and project.

https://vercel.com/docs/vercel-sandbox/concepts/authentication
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ekairos_sandbox.exceptions import ConfigurationError

DEFAULT_BASE_URL = "https://vercel.com/api"

_SAME_SERVICE = {"https://api.vercel.com": DEFAULT_BASE_URL}
"""Other addresses of the same API."""

_PARTS = ("TOKEN", "TEAM_ID", "PROJECT_ID")
_OWN, _COMMON, _OIDC = "SANDBOX_VERCEL_", "VERCEL_", "VERCEL_OIDC_TOKEN"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token and what it is used for.

    Attributes:
        token: The bearer token; not part of ``repr``.
        team_id: Id of the team.
        project_id: Id of the project.
        origin: What the token was given by, for error messages.
    """

    token: str = field(repr=False)
    team_id: str
    project_id: str
    origin: str = "token"

    @property
    def advice(self) -> str:
        """What to look at when the service refuses them."""
        if self.origin == _OIDC:
            return f"{_OIDC} may have expired; `vercel env pull` fetches a new one"
        return (
            f"check that {self.origin} is valid and may use team {self.team_id} and project "
            f"{self.project_id}"
        )


def find_credentials(
    environ: Mapping[str, str],
    *,
    token: str | None = None,
    team_id: str | None = None,
    project_id: str | None = None,
) -> Credentials:
    """Return the credentials of the first level that has any.

    Levels: the arguments; ``SANDBOX_VERCEL_TOKEN``, ``_TEAM_ID``, ``_PROJECT_ID``; the same names
    without ``SANDBOX_``; ``VERCEL_OIDC_TOKEN``. They are never mixed. ``VERCEL_TEAM_ID`` and
    ``VERCEL_PROJECT_ID`` alone begin no level: deployments on Vercel have them anyway.

    Raises:
        ConfigurationError: There are none, or a level is incomplete; names what is missing.
    """
    given = {"token": token, "team_id": team_id, "project_id": project_id}
    if any(given.values()):
        return _complete(given, "the arguments of VercelProvider")
    own = {_OWN + part: environ.get(_OWN + part) for part in _PARTS}
    if any(own.values()):
        return _complete(own, "the environment")
    common = {_COMMON + part: environ.get(_COMMON + part) for part in _PARTS}
    if common["VERCEL_TOKEN"]:
        return _complete(common, "the environment")
    if environ.get(_OIDC):
        return _of_oidc(environ[_OIDC])
    raise ConfigurationError(
        "there are no credentials for Vercel",
        provider="vercel",
        hint="set SANDBOX_VERCEL_TOKEN, SANDBOX_VERCEL_TEAM_ID and SANDBOX_VERCEL_PROJECT_ID, or "
        "VERCEL_OIDC_TOKEN",
    )


def account_name(base_url: str, credentials: Credentials) -> str:
    """Return the stable identity of an account."""
    base_url = _SAME_SERVICE.get(base_url, base_url)
    return f"{base_url} team={credentials.team_id} project={credentials.project_id}"


def _complete(given: Mapping[str, str | None], where: str) -> Credentials:
    missing = [name for name, value in given.items() if not value]
    if missing:
        there = [name for name, value in given.items() if value]
        raise ConfigurationError(
            f"incomplete credentials for Vercel: {where} has {' and '.join(there)} but not "
            f"{' and '.join(missing)}",
            provider="vercel",
            hint="token, team and project are taken from one place, all three",
        )
    token, team_id, project_id = (value or "" for value in given.values())
    return Credentials(token, team_id, project_id, origin=next(iter(given)))


def _of_oidc(token: str) -> Credentials:
    """Read team and project out of the token. Whether it is genuine is for the service to say."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        team_id, project_id = claims["owner_id"], claims["project_id"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        team_id = project_id = None
    if not isinstance(team_id, str) or not isinstance(project_id, str):
        raise ConfigurationError(
            f"{_OIDC} is no OIDC token of Vercel: it names no team and project",
            provider="vercel",
            hint="`vercel env pull` fetches a new one",
        )
    return Credentials(token, team_id, project_id, origin=_OIDC)
