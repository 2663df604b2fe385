"""Which organisation the credentials in use belong to."""

from __future__ import annotations

import json

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox_daytona.api import NAME, DaytonaApi, body_of


def account_of(api: DaytonaApi) -> str:
    """Return the API's URL with the organisation that the credentials belong to.

    A JWT comes with one. An API key belongs to one, which newer releases of the API name; older
    ones name its user alone.

    Raises:
        ProviderError: The API refuses the credentials or cannot be reached.
    """
    url, organization = api.http.base_url, api.settings.organization_id
    if organization is None:
        answer = api.ask("ApiKeysApi", "get_current_api_key", operation="account")
        key = body_of(answer, operation="account")
        organization = key.get("organizationId")
        if not organization:
            return f"{url}#user={key.get('userId')}"
    return f"{url}#organization={organization}"


def prove_account(api: DaytonaApi, account: str, *, operation: str) -> None:
    """Make sure that a sandbox which is not found cannot be in another organisation of the user.

    Raises:
        ProviderError: It can be: the API names the user of the key only, who is in several.
    """
    if "#organization=" in account:
        return
    answer = api.ask("OrganizationsApi", "list_organizations", operation=operation)
    found = json.loads(answer.body)
    if isinstance(found, list) and len(found) == 1:
        return
    raise ProviderError(
        "the sandbox was not found, but this Daytona server does not say which of its user's "
        "organisations the API key belongs to",
        provider=NAME,
        operation=operation,
        retryable=False,
        hint="use DAYTONA_JWT_TOKEN and DAYTONA_ORGANIZATION_ID, or a newer server",
    )
