"""The one place that knows the wire format of InstantDB's admin API."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.exceptions import (
    ConfigurationError,
    RepositoryUnavailableError,
    SandboxError,
)
from ekairos_sandbox.http import TIMEOUT_S, HttpClient, HttpResponse
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.models import check_sandbox_id
from ekairos_sandbox.repository.instantdb.errors import error_of, unreachable
from ekairos_sandbox.repository.instantdb.files import InstantFiles
from ekairos_sandbox.repository.instantdb.wire import Json, encoded, parsed
from ekairos_sandbox.retry import RetryPolicy, retrying

DEFAULT_BASE_URL = "https://api.instantdb.com"
POLICY = RetryPolicy(attempts=5, budget_s=60.0, base_s=0.2, cap_s=10.0)
DEADLINE_S = 120.0
"""How long one request may take, however its answer trickles in."""

Step = list[Json]


class InstantClient:
    """One InstantDB app through its admin token. Serves many threads and survives a fork.

    Constructing it does no I/O. Every call blocks up to about a minute of attempts: whatever
    provably had no effect is repeated, reads always are; anything else is up to the caller, who
    sees ``outcome="unknown"``.

    Args:
        app_id: UUID of the app; None reads ``INSTANT_APP_ID``, then ``NEXT_PUBLIC_INSTANT_APP_ID``.
        admin_token: None reads ``INSTANT_APP_ADMIN_TOKEN``.
        base_url: The server; None reads ``INSTANT_API_URI``, else it is the hosted service.
        environ: Where to read; None means ``os.environ``.
        proxies: Proxies as ``requests`` takes them; None: those of the process environment.
        verify: TLS verification as ``requests`` takes it.
        allow_http: Allow ``http://`` to other hosts than loopback.
        clock: Time and sleep; replaced in tests.
        timeout_s: Seconds to connect, and to wait for the next byte of an answer.

    Attributes:
        app_id: The app, in lower case.
        base_url: The server.
        files: The app's stored files.

    Raises:
        ConfigurationError: A setting is missing or malformed; names its variable.
    """

    def __init__(
        self,
        app_id: str | None = None,
        admin_token: str | None = None,
        *,
        base_url: str | None = None,
        environ: Mapping[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        verify: bool | str = True,
        allow_http: bool = False,
        clock: Clock | None = None,
        timeout_s: tuple[float, float] = TIMEOUT_S,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.app_id = _app_id(
            app_id or environ.get("INSTANT_APP_ID") or environ.get("NEXT_PUBLIC_INSTANT_APP_ID")
        )
        token = admin_token or environ.get("INSTANT_APP_ADMIN_TOKEN")
        if not token:
            raise ConfigurationError(
                "InstantDB needs an admin token", hint="set INSTANT_APP_ADMIN_TOKEN"
            )
        self.clock = clock or SystemClock()
        self._http = HttpClient(
            base_url or environ.get("INSTANT_API_URI") or DEFAULT_BASE_URL,
            token=token,
            proxies=proxies,
            verify=verify,
            allow_http=allow_http,
            timeout_s=timeout_s,
            setting="INSTANT_API_URI",
            token_setting="INSTANT_APP_ADMIN_TOKEN",  # noqa: S106 - a name
        )
        self.base_url = self._http.base_url
        self.files = InstantFiles(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.app_id!r}, base_url={self.base_url!r})"

    def query(self, query: Mapping[str, Json]) -> dict[str, list[dict[str, Json]]]:
        """Return the rows that a query finds, by namespace.

        Names that the app does not know find nothing, except in ``order``.
        """
        body = {"query": query, "inference?": False}
        names = [name for name in query if not name.startswith("$$")]

        def whole(answer: dict[str, Json]) -> bool:
            return all(_are_rows(answer.get(name)) for name in names)

        return self.call("POST", "/admin/query", body, replay_safe=True, expect=whole)

    def transact(
        self, steps: Sequence[Step], *, replay_safe: bool = False, retry: bool = True
    ) -> Json:
        """Carry out all steps or none. Attributes that the schema lacks are an error.

        Args:
            steps: Such as ``["update", "notes", id, {"title": "x"}, {"upsert": False}]``.
            replay_safe: Carrying the steps out twice does no harm, so that they may be sent again
                after an answer was lost.
            retry: Whether to repeat what provably had no effect.

        Returns:
            The number of the transaction.

        Raises:
            RefusedError: What is stored does not allow it.
            SchemaError: Attributes are missing; names them.
            RepositoryUnavailableError: ``outcome="unknown"`` if it may have been carried out.
        """
        body = {"steps": list(steps), "throw-on-missing-attrs?": True}
        answer = self.call(
            "POST",
            "/admin/transact",
            body,
            replay_safe=replay_safe,
            retry=retry,
            expect=_has("tx-id"),
        )
        return answer["tx-id"]

    def schema(self) -> dict[str, Json]:
        """Return the app's schema: attributes under ``blobs``, links under ``refs``."""
        answer = self.call("GET", f"{self._app}/schema", replay_safe=True, expect=_has("schema"))
        return dict(answer["schema"] or {})

    def plan_schema(self, schema: Mapping[str, Json]) -> dict[str, Json]:
        """Return what pushing a schema would do; changes nothing."""
        return self._push("plan", schema)

    def apply_schema(self, schema: Mapping[str, Json]) -> dict[str, Json]:
        """Push a schema: adds attributes and changes flags, removes no attribute.

        Work on attributes that exist goes on in the background; see ``index_jobs``.
        """
        return self._push("apply", schema)

    def index_jobs(self, group_id: str) -> list[dict[str, Json]]:
        """Return the background jobs of a push."""
        path = f"/dash/apps/{self.app_id}/indexing-jobs/group/{group_id}"
        return list(self.call("GET", path, replay_safe=True).get("jobs") or ())

    def rules(self) -> Json:
        """Return the app's rule document, or None if it has none."""
        answer = self.call("GET", f"{self._app}/perms", replay_safe=True, expect=_has("perms"))
        return answer["perms"]

    def replace_rules(self, code: Mapping[str, Json]) -> None:
        """Replace the whole rule document."""
        self.call("POST", f"{self._app}/perms", {"code": code}, replay_safe=True)

    def call(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        replay_safe: bool,
        retry: bool = True,
        expect: Callable[[dict[str, Json]], bool] = lambda answer: True,
    ) -> dict[str, Json]:
        """Send a JSON request and return the answer's object; see ``transact``.

        An answer that is not as ``expect`` wants it comes from something else than InstantDB, and
        counts as none.
        """
        headers = {"app-id": self.app_id}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = encoded(body)

        def once() -> dict[str, Json]:
            answer = self.send(method, path, headers=headers, data=data, deadline_s=DEADLINE_S)
            return parsed(answer, expect)

        return self.repeated(once, replay_safe=replay_safe) if retry else once()

    def send(self, method: str, path: str, **arguments: Any) -> HttpResponse:
        """Send one request once and return its answer if the status is 200.

        Raises:
            SandboxError: Anything else.
        """
        try:
            answer = self._http.request(method, path, **arguments)
        except TransportError as error:
            problem: SandboxError = unreachable(error)
        else:
            if answer.status == 200:
                return answer
            problem = error_of(
                answer, app_id=self.app_id, base_url=self.base_url, now_ms=self.clock.now_ms()
            )
        raise problem

    def repeated(self, once: Callable[[], Any], *, replay_safe: bool) -> Any:
        """Call a function until it succeeds, as far as repeating it is safe."""
        unsure = False

        def again(error: SandboxError) -> bool:
            nonlocal unsure
            unsure = unsure or error.outcome == "unknown"
            return may_repeat(error) and (replay_safe or error.outcome == "failed")

        try:
            return retrying(POLICY, self.clock, when=again)(once)
        except SandboxError as error:
            if unsure:
                # Another attempt than the last one may have had its effect.
                error.outcome = "unknown"
            raise

    @property
    def http(self) -> HttpClient:
        """What requests go through."""
        return self._http

    def close(self) -> None:
        """Close connections; the next call opens new ones. Safe to repeat."""
        self._http.close()

    def __enter__(self) -> InstantClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _app(self) -> str:
        return f"/superadmin/apps/{self.app_id}"

    def _push(self, step: str, schema: Mapping[str, Json]) -> dict[str, Json]:
        body = {
            "schema": {"links": {}, "rooms": {}, **schema},
            "check_types": True,
            "supports_background_updates": True,
        }
        path = f"{self._app}/schema/push/{step}"
        return self.call("POST", path, body, replay_safe=True, expect=_has("steps"))


def client_of(db: object) -> InstantClient:
    """Return a client for an app: ours as it is, or one made from an ``instantdb.Instant``.

    Raises:
        ConfigurationError: It acts as a user or guest, or has no admin token.
        TypeError: It is neither.
    """
    if isinstance(db, InstantClient):
        return db
    names = ("_app_id", "_admin_token", "_api_uri", "_impersonation")
    if not all(hasattr(db, name) for name in names):
        raise TypeError(f"an InstantClient or an instantdb.Instant is needed, not {type(db)}")
    app_id, token, base_url, acting = (getattr(db, name) for name in names)
    if acting:
        raise ConfigurationError(
            "this Instant client acts as a user or guest", hint="pass the one it was made from"
        )
    if not token:
        raise ConfigurationError(
            "this Instant client has no admin token", hint="set INSTANT_APP_ADMIN_TOKEN"
        )
    return InstantClient(app_id, token, base_url=base_url)


def _has(key: str) -> Callable[[dict[str, Json]], bool]:
    return lambda answer: key in answer


def _are_rows(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) and "id" in row for row in value)


def may_repeat(error: SandboxError) -> bool:
    """Tell whether an error may be gone at the next attempt."""
    return isinstance(error, RepositoryUnavailableError) and bool(error.retryable)


def _app_id(text: str | None) -> str:
    if not text:
        raise ConfigurationError("InstantDB needs an app id", hint="set INSTANT_APP_ID")
    try:
        return check_sandbox_id(text)
    except ConfigurationError:
        problem = ConfigurationError(
            "INSTANT_APP_ID is no UUID", hint="copy the app id from the app's dashboard"
        )
    raise problem
