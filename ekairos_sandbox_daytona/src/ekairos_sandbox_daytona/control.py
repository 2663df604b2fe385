"""The control plane's verbs: look up, start, stop, delete, each to its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from ekairos_sandbox_daytona.api import NAME, DaytonaApi, body_of, is_not_found
from ekairos_sandbox_daytona.states import FAILED, GONE, STOPPED, reason_of, state_of

Json = dict[str, Any]

PAGE_SIZE = 100
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
REFUSALS = 3
"""How often the API must refuse a step that fits the state it reports."""

Step = Literal[
    "there", "wait", "start_sandbox", "recover_sandbox", "stop_sandbox", "delete_sandbox"
]


class ControlPlane:
    """Sandboxes as the API sees them: JSON objects, whatever its release.

    What this release does not know in an answer does no harm; nothing is validated but what is
    used.
    """

    def __init__(self, api: DaytonaApi) -> None:
        self.api = api
        self.clock: Clock = api.clock

    def get(self, key: str, *, operation: str) -> Json | None:
        """Return a sandbox by id, or else by name; None if the API knows none.

        By name, the API goes on answering that there is none for some seconds after another one
        of that name was deleted.

        Raises:
            ProviderError: No answer, or one that proves nothing.
        """
        answer = self.api.ask(
            "SandboxApi", "get_sandbox", key, operation=operation, accept=(200, 404)
        )
        if answer.status == 404:
            if is_not_found(answer):
                return None
            raise ProviderUnavailableError(
                "HTTP 404 came from something else than Daytona's API",
                provider=NAME,
                operation=operation,
                status=404,
                hint="check DAYTONA_API_URL, and proxies in between",
            )
        return checked(body_of(answer, operation=operation), operation)

    def by_id(self, sandbox_id: str, *, operation: str) -> Json | None:
        """Return a sandbox by its id alone; None if there is none or it is deleted."""
        box = self.get(sandbox_id, operation=operation)
        return box if box is not None and box["id"] == sandbox_id else None

    def by_name(self, name: str, *, operation: str) -> Json | None:
        """Return the sandbox with exactly this name, in spite of stale answers."""
        box = self.get(name, operation=operation)
        if box is None or box.get("name") != name:
            listed = self.listed(operation=operation, name=name)
            box = next((one for one in listed if one.get("name") == name), None)
        return None if box is None or state_of(box) in GONE else box

    def listed(self, *, operation: str, **filters: str) -> Iterator[Json]:
        """Yield all sandboxes that fit, page by page; ``name`` is the beginning of a name."""
        cursor: str | None = None
        while True:
            asked: dict[str, Any] = {**filters, "limit": PAGE_SIZE}
            if cursor is not None:
                asked["cursor"] = cursor
            answer = self.api.ask("SandboxApi", "list_sandboxes", operation=operation, **asked)
            page = body_of(answer, operation=operation)
            items = page.get("items")
            if not isinstance(items, list):
                raise ProviderUnavailableError(
                    "Daytona's list is no list", provider=NAME, operation=operation
                )
            for item in items:
                yield checked(item, operation)
            cursor = page.get("nextCursor") or None
            if cursor is None:
                return

    def run(self, box: Json, *, deadline: float, operation: str) -> Json | None:
        """Bring a sandbox to run, from whatever state; None if it is gone.

        Args:
            box: The sandbox as it was seen last.
            deadline: Until when, by the clock's ``monotonic``.
            operation: For errors.

        Raises:
            ProviderError: It failed, with Daytona's reason; or it did not get there in time.
        """
        recovered = False

        def step(box: Json) -> Step:
            nonlocal recovered
            state = state_of(box)
            if state in STOPPED:
                return "start_sandbox"
            if state == "error" and box.get("recoverable") and not recovered:
                recovered = True
                return "recover_sandbox"
            if state in FAILED:
                raise failed(box, operation=operation)
            return "there" if state == "started" else "wait"

        return self._until(step, box, "run", deadline=deadline, operation=operation)

    def halt(self, box: Json, *, deadline: float, operation: str) -> None:
        """Stop a sandbox, from whatever state; one that failed does not run."""

        def step(box: Json) -> Step:
            state = state_of(box)
            if state == "started":
                return "stop_sandbox"
            return "there" if state in STOPPED or state in FAILED else "wait"

        self._until(step, box, "stop", deadline=deadline, operation=operation)

    def delete(self, box: Json, *, deadline: float, operation: str) -> None:
        """Delete a sandbox and wait until it is gone, however often the API is not ready for it."""

        def step(box: Json) -> Step:
            if state_of(box) == "destroyed":
                return "there"
            return "wait" if state_of(box) == "destroying" else "delete_sandbox"

        self._until(step, box, "be deleted", deadline=deadline, operation=operation, gone=())

    def _until(
        self,
        step: Callable[[Json], Step],
        box: Json,
        aim: str,
        *,
        deadline: float,
        operation: str,
        gone: Collection[str] = GONE,
    ) -> Json | None:
        """Take steps, looking at the sandbox after each, until it is there or gone (None)."""
        pause, refusals = FIRST_PAUSE_S, 0
        while state_of(box) not in gone:
            verb = step(box)
            if verb == "there":
                return box
            if verb != "wait":
                answer = self.api.ask(
                    "SandboxApi",
                    verb,
                    box["id"],
                    operation=operation,
                    accept=(200, 201, 204, 400, 404, 409),
                )
                # The state may just have changed: only a refusal that stays is one.
                refusals = refusals + 1 if answer.status == 400 else 0
                if refusals == REFUSALS:
                    raise self.api.error(answer, operation=operation)
            found = self.by_id(box["id"], operation=operation)
            if found is None:
                return None
            if self.clock.monotonic() >= deadline:
                raise ProviderTimeoutError(
                    f"the sandbox did not {aim} in time; its state is {state_of(found)!r}",
                    provider=NAME,
                    operation=operation,
                    outcome="unknown",
                )
            if verb == "wait" or state_of(found) == state_of(box):
                self.clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            box = found
        return None


def failed(box: Json, *, operation: str) -> ProviderError:
    """Return the error for a sandbox that failed."""
    return ProviderError(
        f"the sandbox is in Daytona's state {state_of(box)!r}: {reason_of(box)}",
        provider=NAME,
        operation=operation,
        retryable=False,
    )


def checked(box: Any, operation: str) -> Json:
    """Return what the API answered if it is a sandbox.

    Raises:
        ProviderUnavailableError: It is not; what was asked for may have been done.
    """
    if not isinstance(box, dict) or not isinstance(box.get("id"), str):
        raise ProviderUnavailableError(
            "Daytona's answer is no sandbox", provider=NAME, operation=operation, outcome="unknown"
        )
    return box
