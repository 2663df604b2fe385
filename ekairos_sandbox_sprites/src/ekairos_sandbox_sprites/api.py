"""The Sprites API: sprites as values, the calls that concern them, and what its answers mean."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from ekairos_sandbox.exceptions import (
    ProviderAuthError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderUnavailableError,
    UnsupportedOperationError,
)
from ekairos_sandbox.http import HttpClient, HttpResponse
from ekairos_sandbox.provider import ProviderContext, SandboxInfo, SandboxRunState, Tags
from ekairos_sandbox.provider_http import ProviderApi, problem_of
from ekairos_sandbox.sdk_client import SdkClient
from ekairos_sandbox_sprites.options import SpritesSettings

PAGE_SIZE = 100
PAUSE_S = 1.5
"""Between the answers that together prove that a sprite is gone."""

_MISSING = re.compile(r"\bsprite\b.*\bnot found\b|\bno such sprite\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sprite:
    """What the service says of a sprite.

    Attributes:
        name: Its name, unique in the organisation at any time.
        id: The service's own id: another one under the same name is another machine.
        status: ``"cold"``, ``"warm"``, ``"running"``, or what is not known yet.
        url: Its address, or None.
        url_settings: As on the wire.
        labels: Its labels.
        created_at: Epoch ms, or None.
        has_run: Whether it was ever woken up.
    """

    name: str
    id: str
    status: str = ""
    url: str | None = None
    url_settings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    created_at: int | None = None
    has_run: bool = True

    @classmethod
    def from_wire(cls, value: Any) -> Sprite | None:
        """Read a sprite; None if it is none."""
        if not isinstance(value, Mapping):
            return None
        name, identity = value.get("name"), value.get("id")
        if not isinstance(name, str) or not isinstance(identity, str) or not name or not identity:
            return None
        url, settings, labels = value.get("url"), value.get("url_settings"), value.get("labels")
        return cls(
            name=name,
            id=identity,
            status=str(value.get("status") or ""),
            url=url if isinstance(url, str) and url else None,
            url_settings=settings if isinstance(settings, Mapping) else {},
            labels=tuple(str(label) for label in labels) if isinstance(labels, list) else (),
            created_at=epoch_ms(value.get("created_at")),
            has_run=value.get("last_running_at") is not None,
        )

    @property
    def tags(self) -> Tags | None:
        """Our tags, or None if it does not bear all of them."""
        return tags_of(self.labels)

    @property
    def run_state(self) -> SandboxRunState:
        """A sprite that sleeps counts as stopped, though any request wakes it.

        A new one sleeps until its first request, but is as good as running.
        """
        if self.status == "running" or (self.status == "cold" and not self.has_run):
            return "running"
        return "stopped" if self.status in ("warm", "cold") else "unknown"

    def info(self) -> SandboxInfo:
        """The same as core wants it."""
        return SandboxInfo(
            self.name, self.name, self.run_state, self.tags, self.created_at, self.url
        )


def labels_of(tags: Tags) -> list[str]:
    """Return tags as labels: plain texts of letters, digits and hyphens, to be on the safe side."""
    return [f"{name}-{value}" for name, value in tags.as_dict().items()]


def tags_of(labels: tuple[str, ...]) -> Tags | None:
    """Read tags back from labels; None unless all of them are there, once each."""
    found: dict[str, str] = {}
    for label in labels:
        for name in ("ekairos-owner", "ekairos-id", "ekairos-incarnation"):
            if label.startswith(f"{name}-"):
                if name in found:
                    return None
                found[name] = label.removeprefix(f"{name}-")
    return Tags.from_dict(found)


def epoch_ms(text: object) -> int | None:
    """Read an ISO 8601 time; None if it is none."""
    try:
        return round(datetime.fromisoformat(str(text)).timestamp() * 1000)
    except ValueError:
        return None


class SpriteMissingError(ProviderError):
    """The service said once that there is no such sprite, which proves nothing yet."""

    default_retryable = False


class SpritesApi(ProviderApi):
    """Requests about sprites. Nothing here knows of records or jobs.

    Attributes:
        sdk: The official SDK's client for the same account.
    """

    def __init__(self, settings: SpritesSettings, context: ProviderContext) -> None:
        http = HttpClient(
            settings.base_url,
            token=settings.token,
            proxies=context.proxies,
            verify=context.verify,
            allow_http=context.allow_http,
            setting=settings.url_setting,
            token_setting=settings.token_setting,
        )
        super().__init__(http, provider="sprites", clock=context.clock, secrets=[settings.token])
        self.sdk = SdkClient(lambda: open_sdk(settings.token, http.base_url))
        self._organization = settings.organization
        self._token_setting = settings.token_setting

    def account(self) -> str:
        """Return base URL and organisation; asks the service if the token does not say."""
        if self._organization is None:
            name = self._page({"max_results": "1"}, operation="account").get("name")
            if not isinstance(name, str) or not name:
                raise self.damaged("account")
            self._organization = name
        return f"{self.http.base_url}/{self._organization}"

    def create(self, body: Mapping[str, Any], *, timeout_s: float) -> tuple[Sprite, bool]:
        """Make a sprite, or return the one that has its name already.

        Names are unique, so that an attempt whose answer was lost is found by name.

        Args:
            body: The request.
            timeout_s: Seconds for all attempts; waiting for capacity is a part of it.

        Returns:
            The sprite, and whether this call made it.
        """
        end = self.clock.monotonic() + timeout_s
        name = str(body["name"])

        def once() -> tuple[Sprite, bool]:
            left = max(1.0, end - self.clock.monotonic())
            try:
                answer = self.call(
                    "POST",
                    "/v1/sprites",
                    operation="create",
                    repeat="never",
                    accept=(200, 201, 400, 409),
                    json_body=body,
                    timeout_s=(10.0, left),
                    deadline_s=left,
                )
                if answer.status < 300:
                    return self._sprite(answer, operation="create"), True
                error = self.error(answer, operation="create")
                if answer.status == 400 and "already exists" not in problem_of(answer).message:
                    raise error
            except ProviderError as problem:
                if problem.outcome == "failed":
                    raise
                error = problem
            try:
                found = self.get(name, operation="create", budget_s=left)
            except ProviderError as problem:
                problem.outcome = "unknown"
                raise
            if found is not None:
                return found, False
            # Either it was not made, or a new one cannot be seen yet: ask for it again.
            error.outcome, error.retryable = "unknown", True
            raise error

        return self.repeated(once, repeat="always", budget_s=timeout_s)

    def get(self, name: str, *, operation: str, budget_s: float | None = None) -> Sprite | None:
        """Return a sprite by name, without waking it; None on a not-found answer of the service.

        One such answer is no proof that it is gone; see ``prove_absent``.
        """
        try:
            answer = self.call(
                "GET", sprite_path(name), operation=operation, repeat="always", budget_s=budget_s
            )
        except SpriteMissingError:
            return None
        return self._sprite(answer, operation=operation)

    def locate(self, name: str, *, operation: str) -> Sprite | None:
        """Return a sprite by name; None if the service has proved that there is none.

        Raises:
            ProviderError: It cannot be told.
        """
        return self.get(name, operation=operation) or self.prove_absent(name, operation=operation)

    def prove_absent(self, name: str, *, operation: str) -> Sprite | None:
        """Ask again after a first not-found answer; None if the sprite is proven not to exist.

        The service has answered 404 for sprites that existed, during an incident. Proof is a second
        not-found answer after a pause, and a list of the organisation's sprites, which only a
        working token gets, without it.

        Returns:
            The sprite, if it is there after all.

        Raises:
            ProviderError: It cannot be told.
        """
        self.clock.sleep(PAUSE_S)
        found = self.get(name, operation=operation)
        if found is not None:
            return found
        for sprite in self.all(operation=operation, prefix=name):
            if sprite.name == name:
                raise ProviderUnavailableError(
                    f"sprites lists {name!r}, yet says that it does not exist",
                    provider=self.provider,
                    operation=operation,
                )
        return None

    def all(self, *, operation: str, prefix: str = "") -> Iterator[Sprite]:
        """Yield the sprites of the organisation, page by page; raise if any page fails."""
        token = ""
        while True:
            params = {"max_results": str(PAGE_SIZE)}
            params |= {"prefix": prefix} if prefix else {}
            params |= {"continuation_token": token} if token else {}
            page = self._page(params, operation=operation)
            for value in page["sprites"]:
                sprite = Sprite.from_wire(value)
                if sprite is None:
                    raise self.damaged(operation)
                yield sprite
            following = page.get("next_continuation_token")
            # The last page may say that there is more, without a token.
            if not page.get("has_more") or not following:
                return
            if following == token:
                raise self.damaged(operation)
            token = str(following)

    def delete(self, name: str, *, operation: str) -> None:
        """Delete a sprite; one that is proven to be gone already is a success."""
        try:
            self.call(
                "DELETE",
                sprite_path(name),
                operation=operation,
                repeat="always",
                accept=(200, 202, 204),
            )
        except SpriteMissingError:
            # Of an attempt whose answer was lost, or of somebody else; or it is an incident.
            if self.prove_absent(name, operation=operation) is not None:
                raise self.unsteady(name, operation) from None

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        self.sdk.close()
        super().close()

    def error(self, answer: HttpResponse, *, operation: str) -> ProviderError:
        """Return the error for an answer; a quota says which limit was reached."""
        error = super().error(answer, operation=operation)
        if is_missing(answer):
            return SpriteMissingError(
                error.message, status=404, request_id=error.request_id, provider=self.provider,
                operation=operation,
            )  # fmt: skip
        if isinstance(error, ProviderRateLimitedError):
            error.hint = _limit(problem_of(answer).fields)
        elif isinstance(error, ProviderAuthError):
            error.hint = f"check {self._token_setting}: it must be a token from sprites.dev/account"
        return error

    def _page(self, params: Mapping[str, str], *, operation: str) -> Mapping[str, Any]:
        answer = self.call(
            "GET", "/v1/sprites", operation=operation, repeat="always", params=params
        )
        page = self._json(answer, operation)
        if isinstance(page, dict) and isinstance(page.get("sprites"), list):
            return page
        raise self.damaged(operation)

    def _sprite(self, answer: HttpResponse, *, operation: str) -> Sprite:
        sprite = Sprite.from_wire(self._json(answer, operation))
        if sprite is None:
            raise self.damaged(operation)
        return sprite

    def _json(self, answer: HttpResponse, operation: str) -> Any:
        with self.translated(operation):
            return answer.json()

    def unsteady(self, name: str, operation: str) -> ProviderUnavailableError:
        """Return the error for a not-found answer about a sprite that is there after all."""
        return ProviderUnavailableError(
            f"sprites did not know {name!r} for a moment",
            provider=self.provider,
            operation=operation,
        )

    def damaged(self, operation: str) -> ProviderUnavailableError:
        """Return the error for an answer of status 200 that says nothing of what was asked for."""
        return ProviderUnavailableError(
            f"sprites answered {operation} with something that is not its API's",
            provider=self.provider,
            operation=operation,
            outcome="unknown",
            hint="check the base URL",
        )


def open_sdk(token: str, base_url: str) -> Any:
    """Return a client of the SDK for the same account.

    Raises:
        UnsupportedOperationError: The SDK is not installed; says how to install it.
    """
    try:
        sdk = importlib.import_module("sprites")
    except ModuleNotFoundError:
        raise UnsupportedOperationError(
            "the SDK of Sprites is not installed",
            provider="sprites",
            operation="native",
            hint="pip install 'ekairos-sandbox-sprites[sdk]'",
        ) from None
    return sdk.SpritesClient(token, base_url=base_url)


def sprite_path(name: str, *rest: str) -> str:
    """Return the path of something that belongs to a sprite."""
    return "/".join(("/v1/sprites", *(quote(part, safe="") for part in (name, *rest))))


def is_missing(answer: HttpResponse) -> bool:
    """Tell whether an answer says, in the API's own words, that there is no such sprite.

    A file that is missing has a code, and what a proxy answers has no JSON.
    """
    problem = problem_of(answer)
    return (
        answer.status == 404
        and "code" not in problem.fields
        and bool(problem.fields)
        and _MISSING.search(problem.message) is not None
    )


def _limit(fields: Mapping[str, Any]) -> str | None:
    limit, window = fields.get("limit"), fields.get("window_seconds")
    if not isinstance(limit, int):
        return None
    per = f" per {window} s" if isinstance(window, int) else ""
    return f"the organisation's limit is {limit}{per}"
