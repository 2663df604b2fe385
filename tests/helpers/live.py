"""What live tests of several kinds need."""

from __future__ import annotations

import os

import pytest

from ekairos_sandbox import RaisingService
from ekairos_sandbox.exceptions import SandboxError
from ekairos_sandbox.repository.instantdb import (
    InstantClient,
    create_temporary_app,
    push_rules,
    push_schema,
)


def instant_client() -> InstantClient:
    """Return a client of an app that has the schema; skip the test if there is none.

    It is one's own if its variables are set, else a new temporary one.
    """
    if os.environ.get("INSTANT_APP_ADMIN_TOKEN"):
        client = InstantClient()
    else:
        try:
            app = create_temporary_app("ekairos-sandbox live test")
        except SandboxError as error:
            pytest.skip(f"no temporary InstantDB app: {error}")
        client = InstantClient(app.app_id, app.admin_token, base_url=app.base_url)
        push_rules(client)
    push_schema(client)
    return client


def destroy_all(service: RaisingService) -> None:
    """Destroy every sandbox that has a record, also if one of them cannot be; then say so."""
    problems: list[SandboxError] = []
    for record in service.iter_sandboxes():
        try:
            service.destroy_sandbox(record.id)
        except SandboxError as error:
            problems.append(error)
    if problems:
        raise ExceptionGroup("sandboxes that may have been left", problems)
