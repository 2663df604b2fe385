"""The Sprites provider, as core sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
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
    Provider,
    ProviderContext,
    SandboxInfo,
    SandboxRef,
    gone,
    may_adopt,
    same_sandbox,
)
from ekairos_sandbox_sprites.api import Sprite, SpritesApi, labels_of
from ekairos_sandbox_sprites.connection import PREVIEW_PORT, SpritesConnection
from ekairos_sandbox_sprites.options import SpritesOptions, SpritesSettings, is_name


class SpritesProvider(Provider[SpritesOptions]):
    """Sandboxes at sprites.dev, the service of Fly.io.

    A sprite falls asleep when nobody uses it, wakes up for any request, and exists until it is
    deleted. A running command keeps it awake.
    """

    name: ClassVar[str] = "sprites"
    options_model = SpritesOptions
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        (Capability.CHECKPOINTS, Capability.PREVIEW_URL, Capability.NATIVE)
    )

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        self._opened: tuple[SpritesSettings, SpritesApi] | None = None
        self._lock = threading.Lock()
        reset_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    @classmethod
    def field_support(
        cls, options: SpritesOptions | None = None
    ) -> Mapping[ConfigField, FieldSupport]:
        """What happens to the config fields."""
        del options
        return {
            "timeout_ms": FieldSupport("recorded", "sprites have no end; reconcile() stops them"),
            "vcpus": FieldSupport("recorded", "all sprites have the same size"),
            "runtime": FieldSupport("recorded", "all sprites have the same image"),
            "ports": FieldSupport("enforced", f"only {PREVIEW_PORT}"),
        }

    @classmethod
    def check_spec(cls, spec: CreateSpec[SpritesOptions]) -> None:
        """Refuse a name or a port that the service would refuse."""
        if not is_name(spec.name):
            raise ConfigurationError(
                f"{spec.name!r} is no name for a sprite",
                provider=cls.name,
                hint="use 1 to 63 lower-case letters, digits and inner hyphens",
            )
        others = sorted(set(spec.ports) - {PREVIEW_PORT})
        if others:
            raise UnsupportedOperationError(
                f"a sprite cannot show port {others[0]}",
                provider=cls.name,
                operation="create",
                hint=f"its URL leads to port {PREVIEW_PORT} only",
            )

    def account(self) -> str:
        """Return API address and organisation.

        The token names its organisation; for one that does not the service is asked once.
        """
        return self._api.account()

    def create(self, spec: CreateSpec[SpritesOptions]) -> Connection:
        """Make a sprite, or adopt or borrow the one of that name; see ``Provider.create``."""
        options = spec.options
        body = {
            "name": spec.name,
            "url_settings": {"auth": options.url_settings.auth},
            "labels": [*labels_of(spec.tags), *options.labels],
            "wait_for_capacity": options.wait_for_capacity,
        }
        sprite, made = self._api.create(body, timeout_s=spec.timeout_s)
        if made:
            self._check_labels(spec, sprite)
        ownership = "created" if made else may_adopt(spec, sprite.info())
        if ownership is None:
            raise IdConflictError(
                f"the name {spec.name!r} is taken by another sprite",
                provider=self.name,
                operation="create",
            )
        deletes = ownership != "borrowed" and self._deletes(options.delete_on_stop)
        data = {**_data(sprite), "deleteOnStop": deletes}
        ref: SandboxRef[SpritesOptions] = SandboxRef(spec.name, spec.name, spec.tags, data)
        return SpritesConnection(self._api, self._settings, ref, data=data, ownership=ownership)

    def attach(self, ref: SandboxRef[SpritesOptions]) -> Connection:
        """Return a connection without a request; what is gone shows itself at the first use."""
        if ref.external_id is None:
            return self.connect(ref)
        return SpritesConnection(self._api, self._settings, ref, data=ref.data)

    def connect(self, ref: SandboxRef[SpritesOptions]) -> Connection:
        """Return a connection to a sprite that exists; if it sleeps, the first use wakes it."""
        sprite = self._require(ref, "connect")
        data = {"deleteOnStop": self._deletes_of(ref), **ref.data, **_data(sprite)}
        return SpritesConnection(self._api, self._settings, ref, data=data)

    def inspect(self, ref: SandboxRef[SpritesOptions]) -> SandboxInfo:
        """Return what the service says of a sprite, without waking it."""
        return self._require(ref, "inspect").info()

    def find(self, name: str) -> SandboxInfo | None:
        """Look a sprite up by its name."""
        sprite = self._api.get(name, operation="find")
        return None if sprite is None else sprite.info()

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """Yield every sprite that bears the owner tag."""
        for sprite in self._api.all(operation="list"):
            if sprite.tags is not None and sprite.tags.owner == owner:
                yield sprite.info()

    def stop(self, ref: SandboxRef[SpritesOptions]) -> None:
        """Delete the sprite, unless it is borrowed or was made with ``delete_on_stop=False``.

        Then it stays as it is, but for the commands that run in it: they end, as they would keep
        it awake. One that sleeps is not woken.
        """
        if not ref.borrowed and self._deletes_of(ref):
            self._delete(ref, "stop")
            return
        sprite = self._lookup(ref, "stop")
        if sprite is not None and sprite.status == "running":
            SpritesConnection(self._api, self._settings, ref, data=ref.data).end_commands()

    def destroy(self, ref: SandboxRef[SpritesOptions]) -> None:
        """Delete the sprite with its files and checkpoints."""
        self._delete(ref, "destroy")

    def close(self) -> None:
        """Let go of sockets."""
        with self._lock:
            opened = self._opened
        if opened is not None:
            opened[1].close()

    @property
    def _settings(self) -> SpritesSettings:
        return self._open()[0]

    @property
    def _api(self) -> SpritesApi:
        return self._open()[1]

    def _open(self) -> tuple[SpritesSettings, SpritesApi]:
        with self._lock:
            if self._opened is None:
                settings = SpritesSettings.from_environ(self.context.environ)
                self._opened = settings, SpritesApi(settings, self.context)
            return self._opened

    def _deletes(self, chosen: bool | None) -> bool:
        return self._settings.delete_on_stop if chosen is None else chosen

    def _deletes_of(self, ref: SandboxRef[SpritesOptions]) -> bool:
        """What was decided when the sprite was made; for records without it, what holds now."""
        recorded = ref.data.get("deleteOnStop")
        if isinstance(recorded, bool):
            return recorded
        return self._deletes(ref.options.delete_on_stop if ref.options else None)

    def _lookup(self, ref: SandboxRef[SpritesOptions], operation: str) -> Sprite | None:
        """Return the sprite that a record means; None if it is proven not to exist."""
        sprite = self._api.locate(ref.name, operation=operation)
        if sprite is None or not same_sandbox(ref, sprite.info()):
            return None
        return sprite if ref.data.get("id") in (None, sprite.id) else None

    def _require(self, ref: SandboxRef[SpritesOptions], operation: str) -> Sprite:
        sprite = self._lookup(ref, operation)
        if sprite is None:
            raise gone(ref, self.name, operation=operation)
        return sprite

    def _delete(self, ref: SandboxRef[SpritesOptions], operation: str) -> None:
        # By name, as there is no other way: so first make sure that it is the right one.
        if self._lookup(ref, operation) is not None:
            self._api.delete(ref.name, operation=operation)

    def _check_labels(self, spec: CreateSpec[SpritesOptions], sprite: Sprite) -> None:
        """Make sure that the labels by which a sprite is found again were kept."""
        if sprite.tags == spec.tags:
            return
        try:
            seen = self._api.get(spec.name, operation="create")
            if seen is not None and seen.tags == spec.tags:
                return
            self._api.delete(spec.name, operation="create")
        except ProviderError as error:
            error.outcome = "unknown"
            raise
        raise ProviderError(
            "sprites did not keep the labels by which a sandbox is recognised; it was deleted",
            provider=self.name,
            operation="create",
            retryable=False,
        )


def _data(sprite: Sprite) -> dict[str, Any]:
    """What a record keeps, under the names that the TypeScript package uses."""
    return {
        "id": sprite.id,
        "name": sprite.name,
        "url": sprite.url,
        "urlSettings": dict(sprite.url_settings),
    }
