"""The Daytona provider, as core sees it."""

from __future__ import annotations

import importlib.util
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ekairos_sandbox.exceptions import (
    FieldNotEnforcedWarning,
    ProviderError,
    UnsupportedOperationError,
)
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.provider import (
    Capability,
    ConfigField,
    Connection,
    CreateSpec,
    FieldSupport,
    Ownership,
    Provider,
    ProviderContext,
    SandboxInfo,
    SandboxRef,
    gone,
    same_sandbox,
)
from ekairos_sandbox_daytona.options import DaytonaOptions
from ekairos_sandbox_daytona.settings import DaytonaSettings, Defaults

if TYPE_CHECKING:
    from ekairos_sandbox_daytona.api import DaytonaApi
    from ekairos_sandbox_daytona.control import ControlPlane

Json = dict[str, Any]
Ref = SandboxRef[DaytonaOptions]

CONNECT_TIMEOUT_S = 300.0
"""How long starting a sandbox may take; one that was archived takes minutes."""

STOP_TIMEOUT_S = 120.0

_log = logging.getLogger("ekairos_sandbox.daytona")


class DaytonaProvider(Provider[DaytonaOptions]):
    """Sandboxes at Daytona, hosted or self-hosted.

    They are ephemeral unless told otherwise: stopping deletes them, and so does Daytona after 15
    idle minutes. With ``ephemeral=False`` files outlive a stop, and connecting starts it again.

    Args:
        context: Environment, clock and network settings.
        client: A ``daytona.Daytona`` (or ``daytona_sdk.Daytona``) of yours, in the place of the
            ``DAYTONA_...`` variables. Its address and credentials are used, and ``native()``
            returns its objects.
    """

    name: ClassVar[str] = "daytona"
    options_model = DaytonaOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        (Capability.PREVIEW_URL, Capability.EXTEND_TIMEOUT, Capability.NATIVE)
    )
    create_timeout_s: ClassVar[float] = 600.0

    def __init__(self, context: ProviderContext | None = None, *, client: Any = None) -> None:
        super().__init__(context)
        self._client = client
        self._settings = None if client is None else DaytonaSettings.from_client(client)
        self._api: DaytonaApi | None = None
        self._account: str | None = None
        self._lock = threading.Lock()
        reset_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    @classmethod
    def field_support(
        cls, options: DaytonaOptions | None = None
    ) -> Mapping[ConfigField, FieldSupport]:
        """What happens to the config fields."""
        options = options or DaytonaOptions()
        builds = options.image is not None or options.declarative is not None
        declared = options.declarative is not None or options.image == "declarative"
        return {
            "timeout_ms": FieldSupport("enforced", "in whole minutes, rounded up")
            if _sdk_has_ttl()
            else FieldSupport("recorded", "Daytona's SDK is too old; reconcile() ends it"),
            "vcpus": FieldSupport("enforced", "rounded up to whole ones")
            if builds
            else FieldSupport("recorded", "a snapshot has its own size; give an image"),
            "runtime": FieldSupport("enforced", "the language, and the image's Python version")
            if declared
            else FieldSupport("recorded", "it chooses the language of the SDK's code_run alone"),
            "ports": FieldSupport("enforced", "all ports can be reached"),
        }

    def account(self) -> str:
        """Return the API's URL with the organisation; one request unless it is known."""
        from ekairos_sandbox_daytona.accounts import account_of

        if self._account is None:
            self._account = account_of(self._connected())
        return self._account

    def create(self, spec: CreateSpec[DaytonaOptions]) -> Connection:
        """Make a sandbox, or adopt the one that an earlier attempt made; see ``Provider``."""
        from ekairos_sandbox_daytona.creation import Creation

        defaults = self._defaults()
        if spec.options.volumes and defaults.log_volumes:
            for mount in spec.options.volumes:
                what = mount.volume_name or mount.volume_id
                _log.info("the volume %s is mounted at %s", what, mount.mount_path)
        box, ownership = Creation(self._control(), spec, defaults).run()
        if spec.timeout_ms is not None and _sdk_has_ttl() and not box.get("autoDestroyAt"):
            warnings.warn(
                "this Daytona server does not limit the lifetime of sandboxes: timeout_ms has no "
                "effect",
                FieldNotEnforcedWarning,
                stacklevel=2,
            )
        ref = SandboxRef(spec.name, external_id=box["id"], tags=spec.tags, options=spec.options)
        return self._connection(ref, box, ownership)

    def attach(self, ref: Ref) -> Connection:
        """Return a connection; no request if the record says where the sandbox's toolbox is."""
        url = ref.data.get("toolboxProxyUrl")
        if ref.external_id is None or not isinstance(url, str) or not self._connected().trusts(url):
            return self.connect(ref)
        return self._connection(ref, {**ref.data, "id": ref.external_id})

    def connect(self, ref: Ref) -> Connection:
        """Return a connection to the running sandbox, starting it if it is stopped."""
        control = self._control()
        deadline = self.context.clock.monotonic() + CONNECT_TIMEOUT_S
        box = control.run(self._require(ref, "connect"), deadline=deadline, operation="connect")
        if box is None:
            raise self._gone(ref, "connect")
        return self._connection(ref, box)

    def inspect(self, ref: Ref) -> SandboxInfo:
        """Return what Daytona says of a sandbox, without starting it."""
        from ekairos_sandbox_daytona.states import info_of

        return info_of(self._require(ref, "inspect"))

    def find(self, name: str) -> SandboxInfo | None:
        """Look a sandbox up by its exact name."""
        from ekairos_sandbox_daytona.states import info_of

        box = self._control().by_name(name, operation="find")
        return None if box is None else info_of(box)

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """Yield every sandbox that bears the owner tag."""
        import json

        from ekairos_sandbox_daytona.states import info_of

        labels = json.dumps({"ekairos-owner": owner})
        for box in self._control().listed(operation="list_owned", labels=labels):
            yield info_of(box)

    def stop(self, ref: Ref) -> None:
        """Stop the sandbox; one that is ephemeral, or to be deleted on stop, is deleted.

        Raises:
            UnsupportedOperationError: It is borrowed, and stopping would delete it.
        """
        box = self._lookup(ref, "stop")
        if box is None:
            return
        if self._deletes(ref, box):
            self._delete(box, "stop")
            return
        deadline = self.context.clock.monotonic() + STOP_TIMEOUT_S
        self._control().halt(box, deadline=deadline, operation="stop")

    def destroy(self, ref: Ref) -> None:
        """Delete the sandbox and wait until it is gone."""
        box = self._lookup(ref, "destroy")
        if box is not None:
            self._delete(box, "destroy")

    def close(self) -> None:
        """Close connections; the provider can still be used."""
        if self._api is not None:
            self._api.close()

    def _deletes(self, ref: Ref, box: Json) -> bool:
        at_once = box.get("autoDeleteInterval") == 0
        if ref.borrowed:
            if at_once:
                raise UnsupportedOperationError(
                    f"the sandbox {ref.name!r} was not made here, and stopping would delete it",
                    provider=self.name,
                    operation="stop",
                    hint="destroy_sandbox deletes it",
                )
            return False
        chosen = ref.options.delete_on_stop if ref.options is not None else None
        if chosen is None:
            chosen = self._defaults().delete_on_stop
        return at_once or chosen or ref.data.get("ephemeral") is True

    def _delete(self, box: Json, operation: str) -> None:
        deadline = self.context.clock.monotonic() + STOP_TIMEOUT_S
        self._control().delete(box, deadline=deadline, operation=operation)

    def _lookup(self, ref: Ref, operation: str) -> Json | None:
        """Return the very sandbox that a record means, if there is one."""
        from ekairos_sandbox_daytona.states import GONE, info_of, state_of

        control = self._control()
        if ref.external_id is None:
            box = control.by_name(ref.name, operation=operation)
        else:
            box = control.by_id(ref.external_id, operation=operation)
        if box is None or not same_sandbox(ref, info_of(box)):
            return None
        deleted = state_of(box) == "destroyed" or (
            state_of(box) in GONE and operation not in ("stop", "destroy")
        )
        return None if deleted else box

    def _require(self, ref: Ref, operation: str) -> Json:
        box = self._lookup(ref, operation)
        if box is None:
            raise self._gone(ref, operation)
        return box

    def _gone(self, ref: Ref, operation: str) -> ProviderError:
        from ekairos_sandbox_daytona.accounts import prove_account

        prove_account(self._connected(), self.account(), operation=operation)
        return gone(ref, self.name, operation=operation)

    def _connection(self, ref: Ref, box: Json, ownership: Ownership = "created") -> Connection:
        from ekairos_sandbox_daytona.connection import DaytonaConnection, data_of

        api = self._connected()
        return DaytonaConnection(
            api,
            ref,
            data_of(box, api, ref.data),
            external_id=box["id"],
            ownership=ownership,
            client=self._client,
        )

    def _control(self) -> ControlPlane:
        from ekairos_sandbox_daytona.control import ControlPlane

        return ControlPlane(self._connected())

    def _connected(self) -> DaytonaApi:
        from ekairos_sandbox_daytona.api import DaytonaApi

        with self._lock:
            if self._api is None:
                settings = self._settings or DaytonaSettings.from_environ(self.context.environ)
                self._api = DaytonaApi(settings, self.context)
            return self._api

    def _defaults(self) -> Defaults:
        return Defaults.from_environ(self.context.environ)


def _sdk_has_ttl() -> bool:
    """Whether the installed SDK can limit a sandbox's lifetime; True where there is none."""
    if importlib.util.find_spec("daytona_api_client") is None:
        return True
    from daytona_api_client import CreateSandbox

    return "ttl_minutes" in CreateSandbox.model_fields
