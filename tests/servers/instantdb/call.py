"""A request to the admin API: its parameters, and who it acts for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from servers.http import Request
from servers.instantdb.apps import Apps, AppState
from servers.instantdb.errors import (
    param_malformed,
    param_missing,
    record_not_found,
    validation_failed,
)
from servers.instantdb.rules import Caller
from servers.instantdb.values import is_uuid

Json = Any

_JSON_TYPE = re.compile(r"^application/(.+\+)?json", re.IGNORECASE)
_APP_ID_PLACES: tuple[tuple[str, str], ...] = (
    ("headers", "app-id"),
    ("params", "app_id"),
    ("params", "app-id"),
)

MAX_STRING = 20_000_000
"""The longest text the JSON parser of the service takes."""


class BadJsonError(Exception):
    """The body says it is JSON and is not."""


class Call:
    """One request as the endpoints see it.

    Attributes:
        request: The request itself.
        args: What its path holds, by the names of the route.
    """

    def __init__(self, request: Request, args: dict[str, str]) -> None:
        self.request = request
        self.args = args
        self._body: Json = None

    def parse(self) -> None:
        """Parse the body when its content type is JSON; otherwise there are no parameters."""
        if (
            not _JSON_TYPE.match(self.request.headers.get("content-type", ""))
            or not self.request.body
        ):
            return
        try:
            self._body = json.loads(
                self.request.body.decode("utf-8"), parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            raise BadJsonError from error
        if len(self.request.body) > MAX_STRING and _has_long_string(self._body):
            raise BadJsonError

    def optional(self, name: str) -> Json:
        return self._body.get(name) if isinstance(self._body, dict) else None

    def required(self, name: str, accepts: Callable[[Json], bool]) -> Json:
        value = self.optional(name)
        if value is None or value is False:
            raise param_missing(["body", name])
        if not accepts(value):
            raise param_malformed(["body", name], value)
        return value

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def required_header(self, name: str) -> str:
        value = self.header(name)
        if not value or not value.strip():
            raise param_missing([name])
        return value

    def app_id(self) -> str:
        places: dict[str, dict[str, str]] = {
            "headers": self.request.headers,
            "params": self.request.query,
        }
        others = [list(place) for place in _APP_ID_PLACES]
        for place in _APP_ID_PLACES:
            value = places[place[0]].get(place[1])
            if value:
                return _uuid(value, place, others)
        raise param_missing(_APP_ID_PLACES[0], others[1:])

    def bearer(self) -> str:
        """The token, in lower case when it is a UUID."""
        given = self.header("authorization")
        path = ["headers", "authorization"]
        if not given:
            raise param_missing(path)
        token = given.split("Bearer ")[-1].strip()
        if is_uuid(token):
            return token.lower()
        if token.startswith(("per_", "pat_")):
            return token
        raise param_malformed(path, given)

    def admin(self, apps: Apps) -> AppState:
        """The app whose admin token was sent along with its id."""
        app_id = self.app_id()
        token = self.bearer()
        state = apps.get(app_id)
        if state is None or state.app.admin_token != token:
            raise record_not_found("app-admin-token", [{"app-id": app_id, "token": token}])
        apps.check_readable(state)
        return state

    def caller(self, apps: Apps) -> tuple[AppState, Caller]:
        """The app, and as whom to act in it."""
        guest, refresh, email = map(self.header, ("as-guest", "as-token", "as-email"))
        if refresh:
            state = self._open_app(apps)
            eid = state.refresh_tokens.get(refresh)
            if eid is None:
                raise record_not_found("app-user", [{"app-id": state.app.id}])
            return state, Caller(admin=False, user_id=eid)
        if email:
            state = self.admin(apps)
            attr = state.store.catalog.find("$users", "email")
            assert attr is not None
            with state.store.lock:
                eid = state.store.tables.holder(attr, email)
            if eid is None:
                raise record_not_found("app-user", [{"app-id": state.app.id, "email": email}])
            return state, Caller(admin=False, user_id=eid, email=email)
        if guest:
            return self._open_app(apps), Caller(admin=False)
        return self.admin(apps), Caller()

    def app_by_path(self, apps: Apps) -> AppState:
        """The app named in the path, for schema and rules: its own token or a personal one."""
        token = self.bearer()
        app_id = _uuid(self.args["app_id"], ("params", "app_id"), [])
        state = apps.get(app_id)
        if token == apps.personal_token:
            if state is None:
                raise record_not_found("app", [{"app-id": app_id}])
            return state
        owner = apps.by_token(token)
        if owner is None:
            raise record_not_found("instant-user", [{"auth?": True, "token": token}], status=401)
        if owner is not state:
            error = validation_failed("app-id", app_id, [{"message": "Admin token mismatch"}])
            error.hint["reason"] = "admin-token-mismatch"
            raise error
        apps.check_readable(owner)
        return owner

    def personal(self, apps: Apps) -> None:
        token = self.bearer()
        if token != apps.personal_token:
            raise record_not_found("instant-user", [{"auth?": True, "token": token}], status=401)

    def _open_app(self, apps: Apps) -> AppState:
        app_id = self.app_id()
        state = apps.get(app_id)
        if state is None:
            raise record_not_found("app", [{"app-id": app_id}])
        apps.check_readable(state)
        return state


def _uuid(value: str, path: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    if not is_uuid(value):
        raise param_malformed(path, value, others)
    return value.lower()


def _has_long_string(value: Json) -> bool:
    if isinstance(value, str):
        return len(value) > MAX_STRING
    if isinstance(value, dict):
        return any(_has_long_string(item) for item in value.values())
    return isinstance(value, list) and any(map(_has_long_string, value))


def _refuse_constant(name: str) -> Json:
    raise ValueError(name)
