"""A way into one running sandbox."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderUnavailableError,
    SandboxNotRunningError,
    UnsupportedOperationError,
)
from ekairos_sandbox.http import HttpResponse
from ekairos_sandbox.provider import Connection, Ownership, SandboxRef, gone
from ekairos_sandbox.results import PreviewUrl
from ekairos_sandbox.shell.variables import in_variables
from ekairos_sandbox_daytona.api import NAME, DaytonaApi, body_of
from ekairos_sandbox_daytona.control import ControlPlane
from ekairos_sandbox_daytona.files import ToolboxFiles
from ekairos_sandbox_daytona.order import minutes_to_live
from ekairos_sandbox_daytona.states import GONE, STOPPED, epoch_ms, run_state, state_of

Json = dict[str, Any]

DEFAULT_AUTO_STOP_MIN = 15
SLACK_BYTES = 64 * 1024


def data_of(box: Json, api: DaytonaApi, before: Mapping[str, Any]) -> Json:
    """Return what a record keeps of a sandbox, so that another process needs not ask for it.

    ``ephemeral`` is what the TypeScript package writes there, and what decides when it stops it;
    the rest are names of the API.

    Args:
        box: The sandbox.
        api: Is asked for the toolbox where the sandbox itself does not say.
        before: What the record holds.
    """
    known = ("autoStopInterval", "toolboxProxyUrl")
    data = {name: box[name] for name in known if box.get(name) is not None}
    data["ephemeral"] = before.get("ephemeral", box.get("autoDeleteInterval") == 0)
    if not data.get("toolboxProxyUrl"):
        answer = api.ask("SandboxApi", "get_toolbox_proxy_url", box["id"], operation="connect")
        data["toolboxProxyUrl"] = str(body_of(answer, operation="connect").get("url"))
    return data


class DaytonaConnection(Connection):
    """Runs scripts by the toolbox's ``process/execute``. Holds nothing open of its own."""

    def __init__(
        self,
        api: DaytonaApi,
        ref: SandboxRef[Any],
        data: Json,
        *,
        external_id: str,
        ownership: Ownership = "created",
        client: Any = None,
    ) -> None:
        self.external_id = external_id
        self.data = data
        self.ownership = ownership
        self._api = api
        self._ref = ref
        self._client = client
        self._toolbox = str(data["toolboxProxyUrl"])
        self.clock = api.clock
        self.file_api = ToolboxFiles(api, self._toolbox, external_id, self._did_not_run)

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run a script; see ``Connection.shell``.

        Daytona pipes a command's text to whatever shell the image has, and answers both streams as
        one JSON string, in which bytes that are no UTF-8 are replaced. Shells read such a text
        byte by byte, so it is short, and the script is in variables of the command.
        """
        text, variables = in_variables(script)
        command = f"exec /bin/sh -c '{text}' </dev/null 2>/dev/null\n"
        with self._api.execute(
            self._toolbox, self.external_id, command, variables, timeout_s=timeout_s
        ) as answer:
            body = bytearray()
            # In JSON a line's end takes two bytes; what needs far more room is none of ours.
            limit = 2 * max_bytes + SLACK_BYTES
            for piece in answer:
                body += piece
                if len(body) > limit:
                    raise _too_much(max_bytes)
            whole = HttpResponse(answer.status, answer.headers, bytes(body))
        if whole.status != 200:
            raise self._did_not_run(whole)
        output = _output(whole)
        if len(output) > max_bytes:
            raise _too_much(max_bytes)
        return output

    def check_background(self, timeout_s: float | None) -> None:
        """Refuse a background command that the idle stop may end; see ``Connection``."""
        options = self._ref.options
        minutes = self.data.get("autoStopInterval", DEFAULT_AUTO_STOP_MIN)
        if not minutes or (options is not None and options.allow_idle_stop):
            return
        if timeout_s is not None and timeout_s < 60 * minutes:
            return
        raise UnsupportedOperationError(
            f"Daytona stops this sandbox after {minutes} minutes without calls, whatever runs in "
            "it, and would end the command",
            provider=NAME,
            operation="start_command",
            hint=(
                f"give a timeout_s below {60 * minutes}; or create the sandbox with "
                "auto_stop_interval_min=0, or with allow_idle_stop=True to accept it"
            ),
        )

    def preview_url(self, port: int) -> PreviewUrl:
        """Say where a port can be reached; the token is good until the next start."""
        operation = "preview_url"
        answer = self._api.ask(
            "SandboxApi",
            "get_port_preview_url",
            self.external_id,
            port,
            operation=operation,
            accept=(200, 404),
        )
        if answer.status == 404:
            raise self._not_found(answer, operation)
        body = body_of(answer, operation=operation)
        token = body.get("token") or None
        headers = (("X-Daytona-Preview-Token", token),) if token else ()
        return PreviewUrl(str(body.get("url")), token, headers)

    def extend_timeout(self, timeout_ms: int) -> int | None:
        """Let the sandbox live so long from now; see ``Connection.extend_timeout``.

        A lifetime is never shortened, and none is set where there is none. Counts as a call, so
        that the idle stop begins anew; it is not put off any further.
        """
        operation = "extend_timeout"
        answer = self._api.ask(
            "SandboxApi",
            "update_last_activity",
            self.external_id,
            operation=operation,
            accept=(200, 201, 204, 404),
        )
        if answer.status == 404:
            raise self._not_found(answer, operation)
        box = ControlPlane(self._api).by_id(self.external_id, operation=operation)
        if box is None:
            raise gone(self._ref, NAME, operation=operation)
        end = epoch_ms(box.get("autoDestroyAt"))
        wanted = self._api.clock.now_ms() + timeout_ms
        if end is None or end >= wanted:
            return end
        minutes = minutes_to_live(timeout_ms)
        answer = self._api.ask(
            "SandboxApi", "set_ttl", self.external_id, minutes, operation=operation
        )
        said = epoch_ms(body_of(answer, operation=operation).get("autoDestroyAt"))
        return said or self._api.clock.now_ms() + 60_000 * minutes

    def native(self) -> Any:
        """Return the SDK's ``Sandbox``: of the caller's own client, or of one made now.

        A client that is made here uses no websocket and no thread. As every client of the SDK it
        also reads ``DAYTONA_...`` variables of ``.env`` files in the working directory.

        Raises:
            UnsupportedOperationError: The SDK does not understand this server; says which would.
            ProviderError: It cannot get the sandbox.
        """
        sdk = importlib.import_module("daytona" if self._client is None else _root(self._client))
        try:
            client = self._client or _sdk_client(sdk, self._api)
            return client.get(self.external_id)
        except sdk.DaytonaError as error:
            problem = _sdk_problem(error, self._api.sdk.version)
        if not isinstance(problem, UnsupportedOperationError) and self._is_gone("native"):
            problem = gone(self._ref, NAME, operation="native")
        raise problem

    def _is_gone(self, operation: str) -> bool:
        box = ControlPlane(self._api).by_id(self.external_id, operation=operation)
        return box is None or state_of(box) in GONE

    def _not_found(self, answer: HttpResponse, operation: str) -> ProviderError:
        """Say what a 404 on something of this sandbox means: that alone proves nothing."""
        if self._is_gone(operation):
            return gone(self._ref, NAME, operation=operation)
        return self._api.error(answer, operation=operation)

    def _did_not_run(self, answer: HttpResponse) -> ProviderError:
        """Say why a toolbox refused a request, by what the control plane knows of the sandbox."""
        box = ControlPlane(self._api).by_id(self.external_id, operation="shell")
        if box is None or state_of(box) in GONE:
            return gone(self._ref, NAME, operation="shell")
        if state_of(box) in STOPPED or run_state(box) in ("changing", "failed"):
            return SandboxNotRunningError(
                f"the sandbox is not running; its state is {state_of(box)!r}",
                provider=NAME,
                operation="shell",
                status=answer.status,
            )
        error = self._api.error(answer, operation="shell")
        return ProviderUnavailableError(
            error.message, provider=NAME, operation="shell", status=answer.status
        )


def _output(answer: HttpResponse) -> bytes:
    try:
        result = json.loads(answer.body).get("result")
    except (ValueError, RecursionError, AttributeError):
        raise ProviderUnavailableError(
            "the toolbox's answer is not what it should be",
            provider=NAME,
            operation="shell",
            outcome="unknown",
        ) from None
    return str(result or "").encode(errors="replace")


def _too_much(max_bytes: int) -> ProviderError:
    return ProviderError(
        f"the script wrote more than {max_bytes} bytes",
        provider=NAME,
        operation="shell",
        outcome="unknown",
        retryable=False,
    )


def _root(client: Any) -> str:
    """Return the package of a client: ``daytona``, or the same under its old name."""
    return type(client).__module__.partition(".")[0]


def _sdk_client(sdk: Any, api: DaytonaApi) -> Any:
    settings = api.settings
    own = {"jwt_token": settings.token} if settings.organization_id else {"api_key": settings.token}
    config = sdk.DaytonaConfig(
        **own,
        organization_id=settings.organization_id,
        api_url=settings.api_url,
        target=settings.target,
        use_deprecated_polling=True,
        otel_enabled=False,
    )
    with warnings.catch_warnings():
        # Polling is deprecated, and the only way without a websocket and a thread.
        warnings.filterwarnings("ignore", message="Polling-only mode", category=DeprecationWarning)
        return sdk.Daytona(config)


def _sdk_problem(error: Exception, version: str) -> ProviderError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__
    if cause is not None:
        return UnsupportedOperationError(
            f"Daytona's SDK {version} does not understand this server's answers",
            provider=NAME,
            operation="native",
            hint="for the open-source release 0.190: pip install 'daytona==0.190.*'",
        )
    return ProviderError(
        f"Daytona's SDK failed: {type(error).__name__}", provider=NAME, operation="native"
    )
