"""Volumes: storage that outlives sandboxes. Making, listing, deleting and collecting them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from ekairos_sandbox.http import HttpResponse
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.provider_http import Repeat, problem_of
from ekairos_sandbox_daytona.api import NAME, DaytonaApi, body_of, is_not_found
from ekairos_sandbox_daytona.settings import DaytonaSettings
from ekairos_sandbox_daytona.states import epoch_ms

if TYPE_CHECKING:
    from ekairos_sandbox_daytona.volume_collection import VolumeDecision

PREFIX = "ekairos-"
"""How the names of volumes begin that are ours: volumes have no labels."""

LEAVING = frozenset(("pending_delete", "deleting", "deleted"))

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_POLL_S = 1.0
_ANSWER_S = 45.0


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of the organisation.

    Attributes:
        id: Daytona's id, to be used as ``volume_id``.
        name: Its name, unique in the organisation.
        state: Daytona's word: ``pending_create``, ``creating``, ``ready``, ``pending_delete``,
            ``deleting``, ``deleted``, ``error``, or one that is newer than this library.
        created_at: Epoch ms, or None if Daytona does not say.
        last_used_at: When a sandbox was last made with it, epoch ms; None: never, or not known.
        updated_at: When it last changed in any way, epoch ms, or None.
        error: Why its state is ``error``; else "".
    """

    id: str
    name: str
    state: str
    created_at: int | None = None
    last_used_at: int | None = None
    updated_at: int | None = None
    error: str = ""


class DaytonaVolumes:
    """The volumes of one organisation. Serves many threads; constructing it does no I/O.

    Args:
        api: The account; ``from_env`` and ``from_client`` make it.
    """

    def __init__(self, api: DaytonaApi) -> None:
        self._api = api
        self._clock = api.clock

    @classmethod
    def from_env(cls, context: ProviderContext | None = None) -> DaytonaVolumes:
        """Use the account of ``DAYTONA_API_URL``, ``DAYTONA_API_KEY`` and their alternatives.

        Raises:
            ConfigurationError: One of them is missing.
        """
        context = context or ProviderContext()
        return cls(DaytonaApi(DaytonaSettings.from_environ(context.environ), context))

    @classmethod
    def from_client(cls, client: Any, context: ProviderContext | None = None) -> DaytonaVolumes:
        """Use the account of a ``daytona.Daytona`` of the caller."""
        return cls(DaytonaApi(DaytonaSettings.from_client(client), context or ProviderContext()))

    def __enter__(self) -> DaytonaVolumes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Safe to call twice; later calls open new ones."""
        self._api.close()

    def get(self, name: str) -> Volume | None:
        """Return the volume of this name; None if there is none."""
        return self._look_up("get_volume_by_name", name, operation="get_volume")

    def get_or_create(self, name: str, *, timeout_s: float = 120.0) -> Volume:
        """Return the volume of this name, ready to be mounted; make it if there is none.

        Safe to repeat, and for several processes at once: they get the same volume. Blocks while
        it is being made, or while one of this name is still being deleted.

        Args:
            name: Up to 128 letters, digits, ``_``, ``-`` and ``.``.
            timeout_s: Seconds until the wait is given up; a request that is under way then may
                take 45 more.

        Raises:
            ProviderTimeoutError: It was not ready in time; says which state it is in.
            ProviderError: Its state is ``error``, or it cannot be made, with Daytona's reason.
        """
        operation = "get_or_create_volume"
        # Without a name Daytona makes a volume that is named by its id.
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                "a volume's name has 1 to 128 letters, digits, '_', '-' and '.'", provider=NAME
            )
        end = self._clock.monotonic() + timeout_s
        while True:
            left = max(0.0, end - self._clock.monotonic())
            volume = self._look_up("get_volume_by_name", name, operation=operation, budget_s=left)
            if volume is None:
                volume = self._create(name, operation, budget_s=left)
            if volume is not None and volume.state == "ready":
                return volume
            if volume is not None and volume.state == "error":
                raise ProviderError(
                    f"the volume {name!r} is in Daytona's state 'error': "
                    f"{volume.error or 'Daytona does not say why'}",
                    provider=NAME,
                    operation=operation,
                    retryable=False,
                    hint="delete it and try again",
                )
            left = end - self._clock.monotonic()
            if left <= 0:
                state = "missing" if volume is None else repr(volume.state)
                raise ProviderTimeoutError(
                    f"the volume {name!r} was not ready after {timeout_s:g} s; it is {state}",
                    provider=NAME,
                    operation=operation,
                    outcome="unknown",
                )
            self._clock.sleep(min(_POLL_S, left))

    def delete(self, volume: Volume | str) -> bool:
        """Delete a volume, or the one of this name, with all that it holds, for good.

        Daytona refuses while a sandbox exists that was made with the volume's id. It may not
        notice one that was made with its name; ``collect`` does.

        Returns:
            Whether there was one; False also if it was being deleted already.

        Raises:
            ProviderError: It is in use, or not yet ready; nothing was deleted.
        """
        operation = "delete_volume"
        found = self.get(volume) if isinstance(volume, str) else self.refreshed(volume)
        if found is None or found.state in LEAVING:
            return False
        answer = self._ask(
            "delete_volume", found.id, operation=operation, accept=(200, 204, 400, 404, 409)
        )
        if answer.status in (200, 204):
            return True
        if answer.status in (400, 404):
            # The answer to an earlier attempt may have been lost, or somebody else was faster.
            again = self.refreshed(found)
            if again is None or again.state in LEAVING:
                return True
        error = self._api.error(answer, operation=operation)
        if answer.status == 409:
            error.hint = "destroy the sandboxes that mount it first"
        raise error

    def refreshed(self, volume: Volume) -> Volume | None:
        """Return a volume as it is now; None if it is gone."""
        return self._look_up("get_volume", volume.id, operation="get_volume")

    def collect(
        self, *, unused_for: timedelta, prefix: str = PREFIX, apply: bool = False
    ) -> tuple[VolumeDecision, ...]:
        """Find the volumes that were not used for long, and with ``apply`` delete them.

        A volume is kept unless all of this is certain: its name begins with ``prefix``; its state
        is ``ready`` or ``error``; it was neither made nor changed within ``unused_for``, nor was a
        sandbox made with it; no sandbox that exists, running or not, mounts it by id or by name.
        Each one is looked at again just before it is deleted. If the sandboxes cannot be listed
        to the end, nothing is deleted.

        Costs one request for each sandbox of the organisation if any volume is old enough.

        Args:
            unused_for: Greater than zero. Daytona notes only when a sandbox is made, so allow for
                the longest life of one.
            prefix: Beginning of the names that are ours.
            apply: Delete, rather than say what would be deleted.

        Returns:
            One decision for each volume whose name begins so.
        """
        from ekairos_sandbox_daytona.volume_collection import collect

        if unused_for <= timedelta():
            raise ValueError("unused_for must be greater than zero")
        if not prefix:
            raise ValueError("prefix must not be empty: it is what tells our volumes from others")
        return collect(self, self._api, unused_for=unused_for, prefix=prefix, apply=apply)

    def list(self) -> list[Volume]:
        """Return all volumes of the organisation."""
        operation = "list_volumes"
        answer = self._ask("list_volumes", operation=operation)
        try:
            found = answer.json()
        except TransportError:
            found = None
        if not isinstance(found, list):
            raise unreadable(operation)
        return [_volume(item, operation) for item in found]

    def _look_up(
        self, call: str, key: str, *, operation: str, budget_s: float | None = None
    ) -> Volume | None:
        answer = self._ask(call, key, operation=operation, accept=(200, 404), budget_s=budget_s)
        if answer.status == 200:
            return _volume(body_of(answer, operation=operation), operation)
        if is_not_found(answer):
            return None
        raise unreadable(operation)

    def _create(self, name: str, operation: str, *, budget_s: float) -> Volume | None:
        """Make a volume; None if somebody else was faster.

        A name exists once, so a request whose answer was lost may be sent again.
        """
        order = self._api.sdk.api.CreateVolume(name=name)

        def once() -> HttpResponse:
            answer = self._ask(
                "create_volume",
                order,
                operation=operation,
                accept=(200, 201, 400, 503),
                repeat="never",
            )
            said = problem_of(answer).message
            if answer.status < 300 or "already exists" in said:
                return answer
            error = self._api.error(answer, operation=operation)
            if "not configured" in said:
                error.retryable, error.outcome = False, "failed"
                error.hint = "volumes need object storage; ask whoever runs this Daytona"
            raise error

        answer = self._api.repeated(once, repeat="always", budget_s=budget_s)
        if answer.status == 400:
            return None
        return _volume(body_of(answer, operation=operation), operation)

    def _ask(
        self,
        call: str,
        *args: Any,
        operation: str,
        accept: tuple[int, ...] = (200,),
        repeat: Repeat = "always",
        budget_s: float | None = None,
    ) -> HttpResponse:
        return self._api.ask(
            "VolumesApi",
            call,
            *args,
            operation=operation,
            accept=accept,
            repeat=repeat,
            budget_s=budget_s,
            deadline_s=_ANSWER_S,
        )


def _volume(found: Any, operation: str) -> Volume:
    """Read a volume; what is not used is not looked at."""
    if not isinstance(found, Mapping):
        raise unreadable(operation)
    volume_id, name = found.get("id"), found.get("name")
    if not isinstance(volume_id, str) or not isinstance(name, str):
        raise unreadable(operation)
    return Volume(
        volume_id,
        name,
        str(found.get("state") or "unknown"),
        epoch_ms(found.get("createdAt")),
        epoch_ms(found.get("lastUsedAt")),
        epoch_ms(found.get("updatedAt")),
        str(found.get("errorReason") or "")[:300],
    )


def unreadable(operation: str) -> ProviderUnavailableError:
    """Return the error for an answer that proves nothing."""
    return ProviderUnavailableError(
        "Daytona's answer on its volumes is not what it should be",
        provider=NAME,
        operation=operation,
        outcome="unknown",
    )
