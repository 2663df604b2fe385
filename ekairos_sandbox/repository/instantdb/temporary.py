"""Apps for trying things out: made without an account, gone after two weeks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.exceptions import RepositoryUnavailableError, SandboxError
from ekairos_sandbox.http import HttpClient
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.repository.instantdb.client import DEFAULT_BASE_URL
from ekairos_sandbox.repository.instantdb.errors import error_of, unreachable
from ekairos_sandbox.repository.instantdb.wire import encoded, parsed


@dataclass(frozen=True, slots=True)
class TemporaryApp:
    """An app that the server deletes by itself.

    Attributes:
        app_id: Its id.
        admin_token: Its admin token.
        base_url: Its server.
        expires_at: When it ends, epoch ms; None if the server did not say.
    """

    app_id: str
    admin_token: str = field(repr=False)
    base_url: str
    expires_at: int | None = None


def create_temporary_app(
    title: str,
    *,
    schema: Mapping[str, Any] | None = None,
    rules: Mapping[str, Any] | None = None,
    base_url: str | None = None,
    environ: Mapping[str, str] | None = None,
    proxies: Mapping[str, str] | None = None,
    verify: bool | str = True,
    allow_http: bool = False,
) -> TemporaryApp:
    """Make an app that lives for 14 days. Needs no account; sent once, never repeated.

    Args:
        title: Its title.
        schema: Pushed to it, e.g. ``sandbox_domain.schema``; None leaves it empty.
        rules: Its rule document; None allows everything to everybody.
        base_url: The server; None reads ``INSTANT_API_URI``, else it is the hosted service.
        environ: Where to read; None means ``os.environ``.
        proxies: As for ``InstantClient``.
        verify: As for ``InstantClient``.
        allow_http: As for ``InstantClient``.

    Raises:
        RepositoryError: The server is not reachable, or makes no such apps (any more).
    """
    environ = os.environ if environ is None else environ
    http = HttpClient(
        base_url or environ.get("INSTANT_API_URI") or DEFAULT_BASE_URL,
        proxies=proxies,
        verify=verify,
        allow_http=allow_http,
        setting="INSTANT_API_URI",
    )
    body: dict[str, Any] = {"title": title}
    if schema is not None:
        body["schema"] = {"links": {}, "rooms": {}, **schema}
    if rules is not None:
        body["rules"] = {"code": rules}
    try:
        answer = http.request(
            "POST",
            "/dash/apps/ephemeral",
            headers={"Content-Type": "application/json"},
            data=encoded(body),
            authenticated=False,
        )
    except TransportError as error:
        problem: SandboxError = unreachable(error)
    else:
        if answer.status == 200:
            return _app(parsed(answer), http.base_url)
        now_ms = SystemClock().now_ms()
        problem = error_of(answer, app_id=None, base_url=http.base_url, now_ms=now_ms)
    finally:
        http.close()
    raise problem


def _app(body: Mapping[str, Any], base_url: str) -> TemporaryApp:
    app = body.get("app")
    if not isinstance(app, Mapping) or not {"id", "admin-token"} <= app.keys():
        raise RepositoryUnavailableError("the server did not name the new app", outcome="unknown")
    return TemporaryApp(str(app["id"]), str(app["admin-token"]), base_url, body.get("expires_ms"))
