"""Requests to Daytona: built by the SDK's own API clients, sent by this library's HTTP.

``daytona.Daytona`` is a layer above those clients. It reads ``.env`` files of the working
directory, opens a websocket, sets alarms, repeats commands and refuses answers that are older or
newer than itself; the clients below it do none of that once they are kept from sending.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderRateLimitedError,
    ProviderUnavailableError,
    UnsupportedOperationError,
)
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.http import HttpClient, HttpResponse, HttpStream, is_loopback
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.provider_http import ProviderApi, Repeat, problem_of
from ekairos_sandbox_daytona.settings import DaytonaSettings

Json = dict[str, Any]

NAME = "daytona"


@dataclass(frozen=True, slots=True)
class Built:
    """A request as the SDK builds it.

    Attributes:
        method: HTTP method.
        path: Path below the base URL, with its query.
        headers: Headers, without the token.
        body: What is sent as JSON, or None.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: Any = field(repr=False)


class _Builder:
    """Stands where an API client of the SDK has its HTTP: hands requests over, unsent."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        body: Any = None,
        **_: Any,
    ) -> Any:
        built = Built(method, url.removeprefix(self._base_url), dict(headers or {}), body)
        return SimpleNamespace(response=built)


class Sdk:
    """The SDK's API clients and models, imported at first use (0.4 s, 40 MB).

    Attributes:
        api: The client of the control plane.
        toolbox: The client of toolboxes.
        version: Their release.
        headers: What every request bears, the organisation of a token for several included.
    """

    def __init__(self, settings: DaytonaSettings) -> None:
        try:
            self.api = importlib.import_module("daytona_api_client")
            self.toolbox = importlib.import_module("daytona_toolbox_api_client")
        except ImportError as error:
            raise UnsupportedOperationError(
                "Daytona's SDK is not installed, or only in part",
                provider=NAME,
                hint="pip install 'ekairos-sandbox[daytona]'",
            ) from error
        self.version = str(getattr(self.api, "__version__", "0"))
        self.headers = {"X-Daytona-Source": "sdk-python", "X-Daytona-SDK-Version": self.version}
        if settings.organization_id is not None:
            self.headers["X-Daytona-Organization-ID"] = settings.organization_id
        self._clients = {module: self._client(module) for module in (self.api, self.toolbox)}
        self._groups: dict[str, Any] = {}

    def _client(self, module: Any) -> Any:
        client = module.ApiClient(module.Configuration(host=""))
        client.rest_client = _Builder("")
        client.default_headers = self.headers
        return client

    def build(self, group: str, call: str, *args: Any, **arguments: Any) -> Built:
        """Return the request of an API method, such as ``"SandboxApi", "get_sandbox"``."""
        found = self._groups.get(group)
        if found is None:
            module = self.api if hasattr(self.api, group) else self.toolbox
            found = self._groups[group] = getattr(module, group)(self._clients[module])
        built: Built = getattr(found, f"{call}_without_preload_content")(*args, **arguments)
        return built

    def has(self, model: str, field_name: str) -> bool:
        """Whether a model of this release has a field."""
        return field_name in getattr(self.api, model).model_fields


class DaytonaApi(ProviderApi):
    """The control plane, and the way to the toolboxes. Serves many threads, survives a fork."""

    def __init__(self, settings: DaytonaSettings, context: ProviderContext) -> None:
        self.settings = settings
        self._context = context
        super().__init__(
            self._http(settings.api_url, settings.url_setting),
            provider=NAME,
            clock=context.clock,
            secrets=(settings.token,),
        )
        self._toolboxes: dict[str, ProviderApi] = {}
        self._sdk: Sdk | None = None
        self._lock = threading.Lock()
        reset_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    @property
    def sdk(self) -> Sdk:
        """The SDK, imported at first use."""
        with self._lock:
            if self._sdk is None:
                self._sdk = Sdk(self.settings)
            return self._sdk

    def ask(
        self,
        group: str,
        call: str,
        *args: Any,
        operation: str,
        repeat: Repeat = "always",
        accept: Collection[int] = (200, 201),
        budget_s: float | None = None,
        deadline_s: float | None = None,
        **arguments: Any,
    ) -> HttpResponse:
        """Send the request of an API method; see ``ProviderApi.call``."""
        built = self.sdk.build(group, call, *args, **arguments)
        return self.call(
            built.method,
            built.path,
            operation=operation,
            repeat=repeat,
            accept=accept,
            json_body=built.body,
            headers=built.headers,
            budget_s=budget_s,
            deadline_s=deadline_s,
            timeout_s=None if deadline_s is None else (10.0, deadline_s),
        )

    @contextmanager
    def execute(
        self,
        toolbox: str,
        sandbox_id: str,
        command: str,
        variables: dict[str, str],
        *,
        timeout_s: float,
    ) -> Iterator[HttpStream]:
        """Run a command in a sandbox, once, and return the answer while it is coming."""
        # The service ends a command that the client does not wait for any more.
        request = self.sdk.toolbox.ExecuteRequest(
            command=command, envs=variables, timeout=int(timeout_s) + 1
        )
        built = self.sdk.build("ProcessApi", "execute_command", request)
        with self.toolbox(toolbox).stream(
            built.method,
            f"/{sandbox_id}{built.path}",
            operation="shell",
            accept=(200, 400, 404),
            data=json.dumps(built.body).encode(),
            headers=built.headers,
            timeout_s=(10.0, timeout_s),
            deadline_s=timeout_s,
        ) as answer:
            yield answer

    def toolbox(self, url: str) -> ProviderApi:
        """Return the way to the toolboxes of a region."""
        with self._lock:
            found = self._toolboxes.get(url)
            if found is None:
                found = self._toolboxes[url] = ProviderApi(
                    self._http(url, "the toolbox URL"),
                    provider=NAME,
                    clock=self.clock,
                    secrets=(self.settings.token,),
                )
            return found

    def trusts(self, url: str) -> bool:
        """Whether the token may go to an address that only a record names: below the API's host."""
        from urllib.parse import urlsplit

        own, other = urlsplit(self.http.base_url), urlsplit(url)
        secure = other.scheme == "https" or (is_loopback(url) and is_loopback(self.http.base_url))
        host, parent = other.hostname or "", own.hostname or ""
        return secure and (host == parent or host.endswith(f".{parent}"))

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        super().close()
        with self._lock:
            toolboxes = list(self._toolboxes.values())
        for toolbox in toolboxes:
            toolbox.close()

    def error(self, answer: HttpResponse, *, operation: str) -> ProviderError:
        """Return the error for an answer; the hosted service names its limits' waits apart."""
        error = super().error(answer, operation=operation)
        if isinstance(error, ProviderRateLimitedError) and error.retry_after_s is None:
            waits = [
                float(text)
                for name, text in answer.headers.items()
                if name.startswith("retry-after-") and text.isascii() and text.isdigit()
            ]
            error.retry_after_s = max(waits, default=None)
        return error

    def _http(self, url: str, setting: str) -> HttpClient:
        return HttpClient(
            url,
            token=self.settings.token,
            proxies=self._context.proxies,
            verify=self._context.verify,
            allow_http=self._context.allow_http,
            setting=setting,
            token_setting=self.settings.token_setting,
        )


def body_of(answer: HttpResponse, *, operation: str) -> Json:
    """Return an answer's JSON object.

    Raises:
        ProviderUnavailableError: It is none; what was asked for may have been done.
    """
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ProviderUnavailableError(
            "Daytona's answer is not what it should be",
            provider=NAME,
            operation=operation,
            outcome="unknown",
        )
    return found


def is_not_found(answer: HttpResponse) -> bool:
    """Whether a 404 is the API's own word on what was asked for: no proxy's, no unknown path's."""
    problem = problem_of(answer)
    own = problem.fields.get("statusCode") == 404
    return answer.status == 404 and own and not problem.message.startswith("Cannot ")
