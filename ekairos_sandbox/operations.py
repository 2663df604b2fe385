"""Carrying out an operation on a sandbox: the warm way first, the slow way where it must be."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn, TypeVar

from ekairos_sandbox import checks
from ekairos_sandbox.connections import ConnectionCache, Live
from ekairos_sandbox.exceptions import (
    EpochMismatchError,
    IdConflictError,
    LifecycleError,
    OutcomeUnknownError,
    ProviderError,
    RepositoryError,
    SandboxError,
    SandboxGoneError,
    SandboxNotRunningError,
    UnsupportedOperationError,
)
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.lifecycle import Creation, Ending, Ledger, Opening
from ekairos_sandbox.models import SandboxConfig, SandboxRecord, check_sandbox_id
from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.provider import Capability, Provider, ProviderContext
from ekairos_sandbox.repository.base import SandboxRepository

OnGone = Literal["recreate", "fail"]

T = TypeVar("T")

_log = logging.getLogger("ekairos_sandbox")

_ROUNDS = 5
_STRIPES = 64


class Operations:
    """The engine below the verbs. Safe to use from several threads and in forked children."""

    def __init__(
        self,
        repository: SandboxRepository,
        registry: PluginRegistry,
        context: ProviderContext,
        *,
        providers: Iterable[Provider[Any]] = (),
        local_only: bool = False,
    ) -> None:
        self.ledger = Ledger(
            repository, registry, context, providers=providers, local_only=local_only
        )
        self.ending = Ending(self.ledger)
        self.creation = Creation(self.ledger, self.ending)
        self.opening = Opening(self.ledger, self.creation, self.ending)
        self.cache = ConnectionCache()
        self._stripes = [threading.RLock() for _ in range(_STRIPES)]
        reset_in_child(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a service and its handles are not pickled, as they hold credentials: pass ids, and "
            "have SandboxService.from_env() make a service in the other process"
        )

    def after_fork(self) -> None:
        """Replace the locks, which other threads of the parent may have held."""
        self._stripes = [threading.RLock() for _ in range(_STRIPES)]

    def create(self, config: SandboxConfig, sandbox_id: str | None) -> Live:
        """Create a sandbox, or open the one that the same call made before."""
        chosen = sandbox_id is not None
        sandbox_id = str(uuid.uuid4()) if sandbox_id is None else check_sandbox_id(sandbox_id)
        try:
            made = self.creation.create(config, sandbox_id, chosen=chosen)
            if isinstance(made, SandboxRecord):
                made, _ = self.opening.open(made.id, may_recreate=True)
            self.cache.put(made)
        except SandboxError:
            raise
        except BaseException:
            if not chosen:
                self.creation.abandon(sandbox_id)
            raise
        return made

    def on(
        self,
        sandbox_id: str,
        act: Callable[[Live], T],
        *,
        may_recreate: bool = False,
        on_gone: OnGone | None = None,
    ) -> tuple[T, bool]:
        """Act on a sandbox.

        The connection that this process has is tried as it is. Only if the provider proves that
        the sandbox is stopped or gone, or the sandbox that it was rolled back, is the record read
        and the way in found anew; ``act`` is then called again, which is safe because those
        errors prove that it had no effect.

        Args:
            sandbox_id: The durable id.
            act: What to do.
            may_recreate: Whether this operation may make a sandbox anew that is proven gone.
            on_gone: ``"fail"`` forbids it, whatever the config says.

        Returns:
            What ``act`` returned, and whether the sandbox was made anew on the way.
        """
        checks.choice(on_gone, "on_gone", ("recreate", "fail", None))
        sandbox_id = check_sandbox_id(sandbox_id)
        may_recreate = may_recreate and on_gone != "fail"
        live = self.cache.get(sandbox_id)
        before = live.incarnation if live else None
        if live is None:
            live, before = self._open(sandbox_id, may_recreate=may_recreate)
        unsure = False
        for attempt in range(_ROUNDS):
            try:
                return act(live), live.incarnation != before
            except (SandboxGoneError, SandboxNotRunningError, EpochMismatchError) as error:
                error.sandbox_id = error.sandbox_id or sandbox_id
                last = attempt == _ROUNDS - 1
                if error.outcome == "failed" and not unsure:
                    if last:
                        raise
                    live = self._reopen(live, error, may_recreate=may_recreate)
                elif isinstance(error, SandboxNotRunningError) and not last:
                    unsure = True
                    live = self._restarted(live, error)
                elif unsure:
                    raise _untold(live) from error
                else:
                    raise
            except (ProviderError, LifecycleError, RepositoryError) as error:
                error.sandbox_id = error.sandbox_id or sandbox_id
                # Of an earlier attempt it is not known.
                if unsure and error.outcome == "failed" and not isinstance(error, IdConflictError):
                    raise _untold(live) from error
                raise
        raise AssertionError("unreachable")

    def reconnect(self, sandbox_id: str) -> Live:
        """Connect to a sandbox, starting it if it is stopped."""
        sandbox_id = check_sandbox_id(sandbox_id)
        with self._stripe(sandbox_id):
            live = self.opening.reconnect(sandbox_id)
            self.cache.put(live)
        return live

    def stop(self, sandbox_id: str, *, destroy: bool) -> SandboxRecord:
        """Stop or destroy a sandbox."""
        sandbox_id = check_sandbox_id(sandbox_id)
        self.cache.drop(sandbox_id)
        try:
            return self.ending.stop(sandbox_id, destroy=destroy)
        finally:
            self.cache.drop(sandbox_id)

    def restore(self, sandbox_id: str, checkpoint_id: str) -> None:
        """Return a sandbox's files to a stored state, and give it a new epoch."""
        sandbox_id = check_sandbox_id(sandbox_id)
        checks.text(checkpoint_id, "checkpoint_id")

        def act(live: Live) -> None:
            self.need(live, Capability.CHECKPOINTS, "restore_checkpoint")
            self.opening.distrust(sandbox_id)
            live.connection.restore_checkpoint(checkpoint_id)
            self.keep_data(live)

        try:
            self.on(sandbox_id, act)
        finally:
            self.cache.drop(sandbox_id)
        self.opening.renew(sandbox_id)

    def keep_data(self, live: Live) -> None:
        """Store what a connection has come to know, as far as the record store allows."""
        if live.connection.data == live.ref.data:
            return
        try:
            self.opening.keep_data(live.sandbox_id, live.connection)
        except SandboxError as error:
            _log.warning("data of the sandbox %s is not stored: %s", live.sandbox_id, error)

    def need(self, live: Live, capability: Capability, operation: str) -> None:
        """Refuse an operation that the provider does not offer.

        Raises:
            UnsupportedOperationError: Nothing was attempted.
        """
        if capability not in live.provider.capabilities:
            raise UnsupportedOperationError(
                f"the provider {live.provider.name!r} offers no {capability.value}",
                provider=live.provider.name,
                operation=operation,
                sandbox_id=live.sandbox_id,
            )

    def close(self) -> None:
        """Let go of all connections, providers and the record store. Sandboxes live on."""
        self.cache.close()
        self.ledger.close()
        self.ledger.repository.close()

    def _open(self, sandbox_id: str, *, may_recreate: bool) -> tuple[Live, int]:
        with self._stripe(sandbox_id):
            live = self.cache.get(sandbox_id)
            if live is not None:
                return live, live.incarnation
            live, before = self.opening.open(sandbox_id, may_recreate=may_recreate)
            self.cache.put(live)
            return live, before

    def _reopen(self, live: Live, error: Any, *, may_recreate: bool) -> Live:
        with self._stripe(live.sandbox_id):
            current = self.cache.get(live.sandbox_id)
            if current is not None and current is not live:
                return current
            self.cache.drop(live.sandbox_id, live)
            fresh = self.opening.reopen(live, error, may_recreate=may_recreate)
            self.cache.put(fresh)
            return fresh

    def _restarted(self, live: Live, error: SandboxNotRunningError) -> Live:
        """Start a sandbox that stopped while something may have begun in it.

        Only with the very files that it had, which say what began, may that be asked for again.

        Raises:
            OutcomeUnknownError: It cannot be started, or its files are not what they were.
        """
        try:
            fresh = self._reopen(live, error, may_recreate=False)
        except SandboxError as failed:
            # Stopped, gone or out of reach: whatever it is, it tells nothing of what had begun.
            raise _untold(live) from failed
        if (fresh.incarnation, fresh.epoch) != (live.incarnation, live.epoch):
            raise _untold(live) from error
        return fresh

    def _stripe(self, sandbox_id: str) -> threading.RLock:
        return self._stripes[hash(sandbox_id) % _STRIPES]


def _untold(live: Live) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "the sandbox ended while an answer of it was lost; what was under way may have happened "
        "or not",
        provider=live.provider.name,
        sandbox_id=live.sandbox_id,
    )
