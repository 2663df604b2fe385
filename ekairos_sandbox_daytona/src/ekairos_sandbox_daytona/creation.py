"""Making a sandbox exactly once, whatever becomes of the request."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

from ekairos_sandbox.exceptions import (
    IdConflictError,
    ProviderError,
    ProviderTimeoutError,
    SandboxError,
)
from ekairos_sandbox.http import HttpResponse
from ekairos_sandbox.provider import Ownership, may_adopt
from ekairos_sandbox.provider_http import problem_of
from ekairos_sandbox_daytona.api import NAME, body_of
from ekairos_sandbox_daytona.control import ControlPlane, checked
from ekairos_sandbox_daytona.order import Spec, create_body, sdk_image
from ekairos_sandbox_daytona.settings import Defaults
from ekairos_sandbox_daytona.states import info_of
from ekairos_sandbox_daytona.volumes import DaytonaVolumes

Json = dict[str, Any]

CLEANUP_S = 60.0
LOOK_AGAIN_S = 1.0
_LOOKS = 3


class Creation:
    """One creation. The name is unique at Daytona: whoever has it decides what happened.

    Args:
        control: The control plane.
        spec: What shall be made.
        defaults: What holds for options that were not given.
    """

    def __init__(self, control: ControlPlane, spec: Spec, defaults: Defaults) -> None:
        self._control = control
        self._api = control.api
        self._clock = control.clock
        self._spec = spec
        self._defaults = defaults
        self._deadline = self._clock.monotonic() + spec.timeout_s

    def run(self) -> tuple[Json, Ownership]:
        """Make the sandbox, or find the one that was made, and wait until it runs.

        Raises:
            IdConflictError: The name is taken by a sandbox that is not ours.
            ProviderError: ``outcome="failed"`` only if nothing was left behind.
        """
        body = create_body(
            self._spec,
            self._api.sdk,
            self._api.settings,
            self._defaults,
            self._volumes(),
            self._build_info(),
        )
        while True:
            made = self._post(body)
            if made is not None:
                return self._running(made), "created"
            found = self._control.by_name(self._spec.name, operation="create")
            if found is not None:
                return self._adopt(found)
            # The name is taken, and by nobody: it is just being given up, or given away.
            if self._left() <= LOOK_AGAIN_S:
                raise ProviderTimeoutError(
                    f"the name {self._spec.name!r} stays taken by a sandbox that is not listed",
                    provider=NAME,
                    operation="create",
                    outcome="unknown",
                )
            self._clock.sleep(LOOK_AGAIN_S)

    def _left(self) -> float:
        return max(self._deadline - self._clock.monotonic(), 0.001)

    def _post(self, body: Any) -> Json | None:
        """Ask for the sandbox; None if the name is taken.

        The API answers after up to 30 s. When it does not, or not as it should, the sandbox may
        have been made all the same.
        """
        try:
            answer = self._api.ask(
                "SandboxApi",
                "create_sandbox",
                body,
                operation="create",
                repeat="unsent",
                accept=(200, 201, 400, 409),
                budget_s=self._left(),
                deadline_s=self._left(),
            )
            if answer.status < 400:
                return checked(body_of(answer, operation="create"), "create")
        except ProviderError as error:
            if error.outcome == "failed":
                raise
            found = self._made_all_the_same()
            if found is not None:
                return found
            raise
        if answer.status == 409 and _name_is_taken(answer):
            return None
        raise self._refused(answer)

    def _made_all_the_same(self) -> Json | None:
        """Look for the sandbox after its creation was answered badly or not at all."""
        for look in range(_LOOKS):
            if look:
                self._clock.sleep(LOOK_AGAIN_S)
            try:
                found = self._control.by_name(self._spec.name, operation="create")
            except SandboxError:
                continue
            if found is not None and info_of(found).tags == self._spec.tags:
                return found
        return None

    def _refused(self, answer: HttpResponse) -> ProviderError:
        """Return the error for a refusal, having deleted what it left: it keeps the name."""
        error = self._api.error(answer, operation="create")
        found = self._control.by_name(self._spec.name, operation="create")
        if found is not None and info_of(found).tags == self._spec.tags:
            self._delete(found)
        return error

    def _adopt(self, found: Json) -> tuple[Json, Ownership]:
        ownership = may_adopt(self._spec, info_of(found))
        if ownership is None:
            raise IdConflictError(
                f"the name {self._spec.name!r} is taken by another sandbox",
                provider=NAME,
                operation="create",
                hint="choose another name",
            )
        return self._running(found, ours=ownership != "borrowed"), ownership

    def _running(self, box: Json, *, ours: bool = True) -> Json:
        """Wait until the sandbox runs; one of ours that failed is deleted."""
        try:
            running = self._control.run(box, deadline=self._deadline, operation="create")
        except ProviderError as error:
            if ours and error.outcome == "failed":
                self._delete(box)
            raise
        if running is None:
            raise ProviderError(
                "the sandbox was deleted while it was being created",
                provider=NAME,
                operation="create",
            )
        return running

    def _delete(self, box: Json) -> None:
        deadline = self._clock.monotonic() + CLEANUP_S
        self._control.delete(box, deadline=deadline, operation="create")

    def _volumes(self) -> list[tuple[str, str, str | None]]:
        """Return id, mount path and subpath of each mount; volumes that are missing are made."""
        found = []
        for mount in self._spec.options.volumes:
            volume = mount.volume_id
            if volume is None:
                named = mount.volume_name or ""
                volumes = DaytonaVolumes(self._api)
                volume = volumes.get_or_create(named, timeout_s=self._left()).id
            found.append((volume, mount.mount_path, mount.subpath))
        return found

    def _build_info(self) -> Json | None:
        """Return the image to build, its local files uploaded; None if there is none."""
        image = sdk_image(self._spec.options, self._spec.runtime, self._defaults)
        if image is None:
            return None
        info: Json = {"dockerfile_content": image.dockerfile()}
        if getattr(image, "_context_list", None):
            info["context_hashes"] = self._uploaded_context(image)
        return info

    def _uploaded_context(self, image: Any) -> list[str]:
        """Have the SDK put an image's local files into Daytona's object storage."""
        snapshots = importlib.import_module("daytona._sync.snapshot").SnapshotService
        answer = self._api.ask("ObjectStorageApi", "get_push_access", operation="create")
        access = self._api.sdk.api.StorageAccessDto.from_dict(body_of(answer, operation="create"))
        storage = SimpleNamespace(get_push_access=lambda: access)
        hashes: list[str] = snapshots.process_image_context(storage, image)
        return hashes


def _name_is_taken(answer: HttpResponse) -> bool:
    """Tell the two meanings of 409 apart; the other one is that a change is in progress."""
    return "already exists" in problem_of(answer).message
