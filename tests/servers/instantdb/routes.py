"""The endpoints: one small function per route."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from servers.http import Request, Response
from servers.instantdb import rules, schema, storage, transact
from servers.instantdb.apps import Apps, AppState
from servers.instantdb.attrs import new_id
from servers.instantdb.call import Call
from servers.instantdb.errors import (
    ApiError,
    app_creation_disabled,
    param_malformed,
    permission_denied,
    record_not_found,
)
from servers.instantdb.faults import Overlaps
from servers.instantdb.query import Query
from servers.instantdb.steps import Op

Json = Any


def as_json(body: Json, status: int = 200) -> Response:
    text = json.dumps(body, ensure_ascii=False)
    return Response(status, text.encode(), "application/json; charset=utf-8")


Endpoint = Callable[[Call], Response]


class Routes:
    """All endpoints over the apps of one server."""

    def __init__(self, apps: Apps, overlaps: Overlaps) -> None:
        self.apps = apps
        self.overlaps = overlaps
        self.base_url = ""
        self.job_polls = 0
        self._transactions = itertools.count(1001)
        one = r"(?P<app_id>[^/]+)"
        self._table: list[tuple[str, re.Pattern[str], Endpoint]] = [
            (method, re.compile(pattern), endpoint)
            for method, pattern, endpoint in (
                ("POST", "/admin/query", self._query),
                ("POST", "/admin/transact", self._transact),
                ("GET", "/admin/schema", self._admin_schema),
                ("POST", "/admin/refresh_tokens", self._refresh_tokens),
                ("PUT", "/admin/storage/upload", self._upload),
                ("GET", "/admin/storage/files", self._list_files),
                ("DELETE", "/admin/storage/files", self._delete_file),
                ("POST", "/admin/storage/files/delete", self._delete_files),
                ("GET", f"/storage/{one}/(?P<location>[^/]+)", self._download),
                ("POST", "/superadmin/apps", self._create_app),
                ("GET", "/superadmin/apps", self._list_apps),
                ("GET", f"/superadmin/apps/{one}", self._get_app),
                ("DELETE", f"/superadmin/apps/{one}", self._delete_app),
                ("GET", f"/superadmin/apps/{one}/schema", self._schema),
                ("POST", f"/superadmin/apps/{one}/schema/push/plan", self._plan),
                ("POST", f"/superadmin/apps/{one}/schema/push/apply", self._push),
                ("GET", f"/superadmin/apps/{one}/perms", self._perms),
                ("POST", f"/superadmin/apps/{one}/perms", self._push_perms),
                ("GET", f"/dash/apps/{one}/schema/pull", self._schema),
                ("POST", f"/dash/apps/{one}/schema/steps/apply", self._apply_steps),
                ("GET", f"/dash/apps/{one}/indexing-jobs/group/(?P<group>[^/]+)", self._jobs),
                ("POST", "/dash/apps/ephemeral", self._create_ephemeral),
                ("GET", f"/dash/apps/ephemeral/{one}", self._get_ephemeral),
                ("POST", f"/dash/apps/ephemeral/{one}/status", self._ephemeral_status),
            )
        ]

    def find(self, request: Request) -> tuple[Endpoint, Call] | None:
        for method, pattern, endpoint in self._table:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                return endpoint, Call(request, match.groupdict())
        return None

    def _query(self, call: Call) -> Response:
        root = call.required("query", lambda value: isinstance(value, dict))
        state, caller = call.caller(self.apps)
        query = Query(
            state.store,
            root,
            caller=caller,
            code=state.code,
            inference=bool(call.optional("inference?")),
            file_url=lambda row: self.base_url + storage.signed_path(state, row),
        )
        return as_json(query.run())

    def _transact(self, call: Call) -> Response:
        steps = call.required("steps", lambda value: isinstance(value, list | dict))
        state, caller = call.caller(self.apps)
        self.apps.check_writable(state)
        transact.run(
            state.store,
            steps,
            strict_attrs=call.optional("throw-on-missing-attrs?") not in (None, False),
            caller=caller,
            code=state.code,
            overlap=self._meet,
        )
        return as_json({"tx-id": next(self._transactions)})

    def _meet(self, ops: list[Op]) -> None:
        self.overlaps.meet(creates=any(op.mode == "create" for op in ops))

    def _admin_schema(self, call: Call) -> Response:
        state = call.admin(self.apps)
        return as_json({"schema": state.store.catalog.to_schema_json()})

    def _refresh_tokens(self, call: Call) -> Response:
        state = call.admin(self.apps)
        email = call.required("email", lambda value: isinstance(value, str) and "@" in value)
        store = state.store
        with store.lock, store.tables.atomic():
            attr = store.catalog.find("$users", "email")
            assert attr is not None
            eid = store.tables.holder(attr, email) or new_id()
            store.tables.ensure("$users", eid)
            store.tables.write(attr, eid, email)
            token = new_id()
            state.refresh_tokens[token] = eid
        user = {"id": eid, "email": email, "app_id": state.app.id, "refresh_token": token}
        return as_json({"user": user})

    def _upload(self, call: Call) -> Response:
        state, caller = call.caller(self.apps)
        self.apps.check_writable(state)
        path = call.required_header("path")
        storage.check_allowed(state, "create", caller)
        given_type, disposition = map(call.header, ("content-type", "content-disposition"))
        return as_json(
            {"data": storage.upload(state, path, call.request.body, given_type, disposition)}
        )

    def _list_files(self, call: Call) -> Response:
        return as_json({"data": call.admin(self.apps).rows("$files")})

    def _delete_file(self, call: Call) -> Response:
        state = self._for_deletion(call)
        ids = storage.delete(state, [call.request.query.get("filename", "")])
        return as_json({"data": {"id": ids[0] if ids else None}})

    def _delete_files(self, call: Call) -> Response:
        paths = call.required("filenames", lambda value: isinstance(value, list))
        state = self._for_deletion(call)
        return as_json({"data": {"ids": storage.delete(state, list(map(str, paths)))}})

    def _for_deletion(self, call: Call) -> AppState:
        state, caller = call.caller(self.apps)
        self.apps.check_writable(state)
        storage.check_allowed(state, "delete", caller)
        return state

    def _download(self, call: Call) -> Response:
        state = self.apps.get(call.args["app_id"])
        try:
            if state is None:
                raise PermissionError
            data, kind, disposition = storage.download(
                state, call.args["location"], call.request.query
            )
        except (PermissionError, ValueError):
            return Response(403, b"<Error><Code>AccessDenied</Code></Error>", "application/xml")
        except ApiError:
            return Response(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
        return Response(200, data, kind, {"content-disposition": disposition})

    def _list_apps(self, call: Call) -> Response:
        call.personal(self.apps)
        return as_json({"apps": [state.to_json() for state in self.apps.all()]})

    def _create_app(self, call: Call) -> Response:
        call.personal(self.apps)
        self._check_creation()
        return as_json({"app": self._new_app(call, "perms", ephemeral=False)[1]})

    def _get_app(self, call: Call) -> Response:
        return as_json({"app": call.app_by_path(self.apps).to_json()})

    def _delete_app(self, call: Call) -> Response:
        state = call.app_by_path(self.apps)
        self.apps.remove(state.app.id)
        return as_json({"app": state.to_json()})

    def _schema(self, call: Call) -> Response:
        state = call.app_by_path(self.apps)
        return as_json({"schema": state.store.catalog.to_schema_json()})

    def _plan(self, call: Call) -> Response:
        state = call.app_by_path(self.apps)
        with state.store.lock:
            answer = schema.plan(
                state.store.catalog,
                call.optional("schema"),
                types=bool(call.optional("check_types")),
                background=bool(call.optional("supports_background_updates")),
            )
        return as_json(answer)

    def _push(self, call: Call) -> Response:
        state = call.app_by_path(self.apps)
        self.apps.check_writable(state)
        answer = state.push(
            call.optional("schema"),
            types=bool(call.optional("check_types")),
            background=bool(call.optional("supports_background_updates")),
            polls=self.job_polls,
        )
        return as_json(answer)

    def _apply_steps(self, call: Call) -> Response:
        state = call.app_by_path(self.apps)
        self.apps.check_writable(state)
        steps = call.required("steps", lambda value: isinstance(value, list))
        jobs = schema.apply_steps(state.store, state.app.id, steps, self.job_polls)
        return as_json({"steps": steps, "indexing-jobs": state.remember(jobs), "transaction": []})

    def _jobs(self, call: Call) -> Response:
        state = call.app_by_path(self.apps)
        jobs = state.jobs.get(call.args["group"], [])
        for job in jobs:
            job.poll(state.store)
        return as_json({"jobs": [job.to_json() for job in jobs]})

    def _perms(self, call: Call) -> Response:
        return as_json({"perms": call.app_by_path(self.apps).code})

    def _push_perms(self, call: Call) -> Response:
        state = call.app_by_path(self.apps)
        self.apps.check_writable(state)
        code = call.required("code", lambda value: isinstance(value, dict))
        rules.check_document(code)
        state.code = code
        return as_json({"rules": {"app_id": state.app.id, "code": code}})

    def _check_creation(self) -> None:
        if self.apps.stage in ("read-only", "disabled"):
            raise app_creation_disabled()

    def _new_app(
        self, call: Call, rules_key: str, *, ephemeral: bool
    ) -> tuple[AppState, dict[str, Json]]:
        title = call.required("title", lambda value: isinstance(value, str) and value != "")
        code = call.optional(rules_key)
        if ephemeral and isinstance(code, dict):
            code = code.get("code", code)
        if code is not None:
            rules.check_document(code)
        state = self.apps.create(
            call.optional("schema"), title=title, code=code, ephemeral=ephemeral
        )
        return state, state.to_json(token=True)

    def _create_ephemeral(self, call: Call) -> Response:
        self._check_creation()
        if not self.apps.ephemeral_enabled:
            raise permission_denied("ephemeral-app", "ephemeral-apps-enabled?")
        state, body = self._new_app(call, "rules", ephemeral=True)
        return as_json({"app": body, "expires_ms": state.expires_ms})

    def _ephemeral(self, call: Call) -> AppState:
        state = self.apps.get(call.args["app_id"].lower())
        if state is None or state.expires_ms is None:
            raise record_not_found("app", [{"app-id": call.args["app_id"]}])
        return state

    def _get_ephemeral(self, call: Call) -> Response:
        state = self._ephemeral(call)
        return as_json({"app": state.to_json(token=True), "expires_ms": state.expires_ms})

    def _ephemeral_status(self, call: Call) -> Response:
        state = self._ephemeral(call)
        token = call.required("admin-token", lambda value: isinstance(value, str))
        if token != state.app.admin_token:
            raise record_not_found("app-admin-token", [{"token": token}])
        status = call.required("status", lambda value: isinstance(value, str))
        if status not in ("active", "read-only", "disabled"):
            raise param_malformed(["body", "status"], status)
        state.status = status
        return as_json({"app": state.to_json()})


def not_found() -> Response:
    return as_json({"message": "Oops! We couldn't match this route."}, 404)


def error_response(error: ApiError) -> Response:
    return as_json(error.body(), error.status)
