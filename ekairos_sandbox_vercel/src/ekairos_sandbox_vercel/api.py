"""The endpoints of the Vercel Sandbox API: one method each.

Sandboxes are addressed by name, what is in them by the id of their running session. Everything is
version 2, except that a creation without a runtime is version 3.

https://vercel.com/docs/rest-api/sandboxes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar
from urllib.parse import quote

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    ProviderAuthError,
    ProviderError,
    ProviderUnavailableError,
)
from ekairos_sandbox.http import HttpClient, HttpResponse, HttpStream
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.provider_http import ProviderApi, Repeat, problem_of
from ekairos_sandbox.sdk_client import SdkClient
from ekairos_sandbox.shell.chunks import Pieces
from ekairos_sandbox_vercel.credentials import Credentials
from ekairos_sandbox_vercel.native import open_sdk
from ekairos_sandbox_vercel.views import RefusedError, Snapshot, View, snapshot_of, view_of

PAGE = "100"

T = TypeVar("T")

_IDENTITY = {"Accept-Encoding": "identity"}
"""Streams come as they are: a compressing proxy would hold their records back."""

_CONTENT = "application/octet-stream"
"""What the content of a file comes as."""


class _Api(ProviderApi):
    def __init__(self, http: HttpClient, credentials: Credentials, clock: Clock) -> None:
        super().__init__(http, provider="vercel", clock=clock, secrets=[credentials.token])
        self._advice = credentials.advice

    def error(self, answer: HttpResponse, *, operation: str) -> ProviderError:
        found = super().error(answer, operation=operation)
        if isinstance(found, ProviderAuthError):
            found.hint = self._advice
        if type(found) is not ProviderError or not 400 <= answer.status < 500:
            return found
        refusal = problem_of(answer).code
        return RefusedError(
            found.message,
            refusal=refusal,
            status=found.status,
            request_id=found.request_id,
            provider=found.provider,
            operation=operation,
            # An image that was pushed a moment ago.
            retryable=refusal == "image_not_ready",
            hint="the team's plan or quota does not allow it" if answer.status == 402 else None,
        )


class VercelApi:
    """Requests in one project. Serves many threads and survives a fork.

    Methods raise ``ProviderError``: a ``RefusedError`` where the service said no. Those that can
    be repeated without harm are, for about a minute.

    Attributes:
        credentials: What it was made with.
        base_url: The same.
        clock: Time and sleep.
        sdk: The official SDK's client for the same account.
    """

    def __init__(self, base_url: str, credentials: Credentials, context: ProviderContext) -> None:
        http = HttpClient(
            base_url,
            token=credentials.token,
            proxies=context.proxies,
            verify=context.verify,
            allow_http=context.allow_http,
            setting="SANDBOX_VERCEL_BASE_URL",
            token_setting=credentials.origin,
        )
        self.credentials = credentials
        self.base_url = http.base_url
        self.clock = context.clock
        self.sdk = SdkClient(lambda: open_sdk(self.credentials, self.base_url))
        self._api = _Api(http, credentials, context.clock)

    def repeated(self, once: Callable[[], T], *, budget_s: float) -> T:
        """Call a function again after failures that may pass."""
        return self._api.repeated(once, repeat="always", budget_s=budget_s)

    # Sandboxes by name

    def create(self, body: Mapping[str, Any], *, timeout_s: float) -> View:
        """Make a sandbox. Never repeated: its name tells whether it came to be."""
        version = "v2" if "runtime" in body else "v3"
        answer = self._ask(
            "POST",
            f"/{version}/sandboxes",
            operation="create",
            repeat="never",
            json_body=body,
            timeout_s=(10.0, timeout_s),
            deadline_s=timeout_s,
        )
        return view_of(answer, operation="create")

    def get(self, name: str, *, budget_s: float | None = None) -> View | None:
        """Look a sandbox up without starting it; None if it is proven that there is none.

        The proof: the service says so itself, and with the same token lists the project's
        sandboxes, where this one is not among them.
        """

        def once() -> View | None:
            try:
                answer = self._by_name("GET", name, operation="get", repeat="never")
            except RefusedError as refused:
                if refused.status != 404:
                    raise
                if refused.refusal != "not_found" or self._is_listed(name):
                    raise ProviderUnavailableError(
                        f"vercel contradicts itself about the sandbox {name!r}",
                        provider="vercel",
                        operation="get",
                        status=404,
                    ) from None
                return None
            return view_of(answer, operation="get")

        return self._api.repeated(once, repeat="always", budget_s=budget_s)

    def resume(self, name: str) -> View:
        """Start a stopped persistent sandbox from its snapshot; one that runs stays as it is."""
        answer = self._by_name(
            "GET", name, operation="resume", repeat="always", params={"resume": "true"}
        )
        return view_of(answer, operation="resume")

    def use_snapshot(self, name: str, snapshot_id: str) -> None:
        """Say which snapshot the next session begins with."""
        self._by_name(
            "PATCH",
            name,
            operation="restore_checkpoint",
            repeat="always",
            json_body={"currentSnapshotId": snapshot_id},
        )

    def delete(self, name: str) -> None:
        """Delete a sandbox and the snapshots that nobody else needs, running or not."""
        self._by_name(
            "DELETE",
            name,
            operation="destroy",
            repeat="always",
            params={"deleteOrphanSnapshots": "true"},
        )

    def tagged(self, key: str, value: str) -> Iterator[View]:
        """Yield the project's sandboxes that have a tag, all pages."""
        for item in self._pages("sandboxes", {"tags": f"{key}:{value}"}, operation="list"):
            view = view_of({"sandbox": item}, operation="list")
            if view.tags.get(key) == value:
                yield view

    # Sessions

    def stop(self, session_id: str) -> None:
        """End a session; a persistent sandbox is saved. Also one that has ended."""
        self._in_session("POST", session_id, "/stop", operation="stop", repeat="always")

    def extend(self, session_id: str, duration_ms: int) -> None:
        """Let a session live longer by so much. Never repeated."""
        self._in_session(
            "POST",
            session_id,
            "/extend-timeout",
            operation="extend_timeout",
            repeat="never",
            json_body={"duration": duration_ms},
        )

    def run(
        self, session_id: str, body: Mapping[str, Any], *, timeout_s: float
    ) -> AbstractContextManager[HttpStream]:
        """Run a command and return the records of its output as they come. Never repeated."""
        return self._stream(
            session_id,
            "/cmd",
            body,
            operation="shell",
            timeout_s=(10.0, timeout_s),
            deadline_s=timeout_s,
        )

    def read(self, session_id: str, path: str) -> Iterator[bytes]:
        """Open a file and return its content as it comes."""

        def once() -> tuple[ExitStack, HttpStream]:
            with ExitStack() as stack:
                stream = stack.enter_context(
                    self._stream(session_id, "/fs/read", {"path": path}, operation="read_file")
                )
                if not stream.headers.get("content-type", "").startswith(_CONTENT):
                    raise ProviderUnavailableError(
                        "vercel answered read_file with something else than a file's content",
                        provider="vercel",
                        operation="read_file",
                    )
                return stack.pop_all(), stream

        def pieces(stack: ExitStack, stream: HttpStream) -> Iterator[bytes]:
            with stack:
                yield from stream

        return pieces(*self._api.repeated(once, repeat="always"))

    def write(self, session_id: str, archive: Pieces) -> None:
        """Unpack a gzipped tar, whose names are relative to the root directory."""
        self._in_session(
            "POST",
            session_id,
            "/fs/write",
            operation="write_file",
            repeat="always",
            data=archive,
            headers={"Content-Type": "application/gzip", "x-cwd": "/"},
            timeout_s=(10.0, 120.0),
        )

    # Snapshots

    def save(self, session_id: str) -> Snapshot:
        """Make a snapshot, which ends the session. Sent again only if it had no effect."""
        answer = self._in_session(
            "POST",
            session_id,
            "/snapshot",
            operation="create_checkpoint",
            repeat="unsent",
            accept=(200, 201),
            json_body={},
            timeout_s=(10.0, 300.0),
        )
        return snapshot_of(answer.get("snapshot"), operation="create_checkpoint")

    def snapshot(self, snapshot_id: str) -> Snapshot | None:
        """Look a snapshot up; None if there is none of this id."""
        try:
            answer = self._ask(
                "GET",
                f"/v2/sandboxes/snapshots/{quote(snapshot_id, safe='')}",
                operation="snapshot",
                repeat="always",
            )
        except RefusedError as refused:
            if refused.status in (404, 410) and refused.refusal:
                return None
            raise
        return snapshot_of(answer.get("snapshot"), operation="snapshot")

    def snapshots(self, name: str) -> Iterator[Snapshot]:
        """Yield the snapshots of a sandbox, all pages."""
        for item in self._pages("snapshots", {"name": name}, operation="list_checkpoints"):
            yield snapshot_of(item, operation="list_checkpoints")

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        self.sdk.close()
        self._api.close()

    def _is_listed(self, name: str) -> bool:
        query = {"sortBy": "name", "sortOrder": "asc", "namePrefix": name, "limit": PAGE}
        answer = self._list("sandboxes", query, operation="get")
        return any(item.get("name") == name for item in _items(answer, "sandboxes"))

    def _pages(
        self, what: str, query: Mapping[str, str], *, operation: str
    ) -> Iterator[Mapping[str, Any]]:
        cursor: dict[str, str] = {}
        while True:
            answer = self._list(what, {**query, "limit": PAGE, **cursor}, operation=operation)
            yield from _items(answer, what)
            pagination = answer.get("pagination")
            following = pagination.get("next") if isinstance(pagination, Mapping) else None
            if following is None or following == cursor.get("cursor"):
                return
            cursor = {"cursor": str(following)}

    def _list(self, what: str, query: Mapping[str, str], *, operation: str) -> Mapping[str, Any]:
        path = "/v2/sandboxes" if what == "sandboxes" else f"/v2/sandboxes/{what}"
        answer = self._ask(
            "GET",
            path,
            operation=operation,
            repeat="always",
            # Here it is `project`; everywhere else it is `projectId`.
            params={"project": self.credentials.project_id, **query},
        )
        if not isinstance(answer.get(what), list):
            raise ProviderUnavailableError(
                f"vercel answered {operation} without a list",
                provider="vercel",
                operation=operation,
            )
        return answer

    def _by_name(
        self,
        method: str,
        name: str,
        *,
        operation: str,
        repeat: Repeat,
        params: Mapping[str, str] | None = None,
        json_body: Any = None,
    ) -> Mapping[str, Any]:
        return self._ask(
            method,
            f"/v2/sandboxes/{quote(name, safe='')}",
            operation=operation,
            repeat=repeat,
            params={"projectId": self.credentials.project_id, **(params or {})},
            json_body=json_body,
        )

    def _in_session(self, method: str, session_id: str, path: str, **how: Any) -> Mapping[str, Any]:
        return self._ask(method, _session(session_id) + path, **how)

    def _stream(
        self, session_id: str, path: str, body: Mapping[str, Any], *, operation: str, **how: Any
    ) -> AbstractContextManager[HttpStream]:
        return self._api.stream(
            "POST",
            _session(session_id) + path,
            operation=operation,
            params=self._params(),
            json_body=body,
            headers=_IDENTITY,
            **how,
        )

    def _ask(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        repeat: Repeat,
        params: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Mapping[str, Any]:
        """Send a request and return the object that it is answered with."""

        def once() -> Mapping[str, Any]:
            answer = self._api.call(
                method,
                path,
                operation=operation,
                repeat="never",
                params=self._params(params),
                **how,
            )
            with self._api.translated(operation):
                body = answer.json()
            if not isinstance(body, Mapping):
                raise ProviderUnavailableError(
                    f"vercel answered {operation} with something else than an object",
                    provider="vercel",
                    operation=operation,
                    outcome="unknown",
                )
            return body

        return self._api.repeated(once, repeat=repeat)

    def _params(self, params: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"teamId": self.credentials.team_id, **(params or {})}


def _session(session_id: str) -> str:
    return f"/v2/sandboxes/sessions/{quote(session_id, safe='')}"


def _items(answer: Mapping[str, Any], what: str) -> list[Mapping[str, Any]]:
    return [item for item in answer[what] if isinstance(item, Mapping)]
