"""Finding the way into a sandbox that has a record: what each status of a record allows."""

from __future__ import annotations

import logging
from typing import Any

from ekairos_sandbox.connections import Live
from ekairos_sandbox.exceptions import (
    EpochMismatchError,
    LifecycleError,
    RecordConflictError,
    SandboxError,
    SandboxGoneError,
    SandboxNotReadyError,
    SandboxStoppedError,
)
from ekairos_sandbox.lifecycle.creation import Creation
from ekairos_sandbox.lifecycle.ending import Ending
from ekairos_sandbox.lifecycle.failures import failed, never_finished
from ekairos_sandbox.lifecycle.ledger import Ledger, incarnation_of, new_epoch
from ekairos_sandbox.models import SandboxRecord
from ekairos_sandbox.provider import Connection, Provider

_log = logging.getLogger("ekairos_sandbox")


class Opening:
    """Opens connections to sandboxes that have a record."""

    def __init__(self, ledger: Ledger, creation: Creation, ending: Ending) -> None:
        self._ledger = ledger
        self._creation = creation
        self._ending = ending

    def open(self, sandbox_id: str, *, may_recreate: bool) -> tuple[Live, int]:
        """Return a way in for commands and files, without asking the provider if possible.

        Args:
            sandbox_id: The durable id.
            may_recreate: Whether the operation may make a sandbox anew that is proven gone.

        Returns:
            The way in, and the incarnation that the record had when it was first read.
        """
        first: list[int] = []

        def decide(record: SandboxRecord) -> Live:
            first.append(incarnation_of(record))
            return self._open(record, may_recreate=may_recreate)

        return self._ledger.decide(sandbox_id, decide), first[0]

    def reopen(self, live: Live, cause: SandboxError, *, may_recreate: bool) -> Live:
        """Return a new way in after the old one proved to be stopped, gone or rolled back."""

        def decide(record: SandboxRecord) -> Live:
            state = record.state
            same = (
                record.status == "active"
                and state is not None
                and state.incarnation == live.incarnation
            )
            if not same:
                return self._open(record, may_recreate=may_recreate)
            assert state is not None
            if not isinstance(cause, EpochMismatchError):
                return self._connect(record, may_recreate=may_recreate)
            if state.epoch == live.epoch:
                return self._connect(record, may_recreate=may_recreate, prepare=True)
            provider = self._ledger.provider_of(record)
            connection = provider.attach(self._ledger.ref(record))
            return self._ledger.live(record, provider, connection)

        return self._ledger.decide(live.sandbox_id, decide)

    def reconnect(self, sandbox_id: str) -> Live:
        """Return a way into the running sandbox, starting it if it is stopped; never create.

        Raises:
            SandboxGoneError: It does not exist any more.
        """
        return self._ledger.decide(sandbox_id, self._reconnect)

    def distrust(self, sandbox_id: str) -> None:
        """Expect an epoch that the sandbox does not bear, so that the next command prepares anew.

        To be called before its files are returned to an earlier state: the answer may be lost.
        """
        self._ledger.decide(
            sandbox_id, lambda record: self._ledger.transition(record, {"epoch": new_epoch()})
        )

    def renew(self, sandbox_id: str) -> None:
        """Give a sandbox a new epoch after its files were returned to an earlier state."""

        def decide(record: SandboxRecord) -> None:
            connection = self._ledger.provider_of(record).connect(self._ledger.ref(record))
            try:
                self._creation.prepare_again(record, connection)
            finally:
                connection.close()

        self._ledger.decide(sandbox_id, decide)

    def keep_data(self, sandbox_id: str, connection: Connection) -> None:
        """Store what a connection has come to know since it was opened."""

        def decide(record: SandboxRecord) -> None:
            data = (record.params or {}).get(record.provider) or {}
            changed = {**data, **connection.data}
            if changed != data:
                self._ledger.transition(record, {}, data=changed)

        self._ledger.decide(sandbox_id, decide)

    def _open(self, record: SandboxRecord, *, may_recreate: bool) -> Live:
        state = record.state
        match record.status:
            case "active":
                if state is None or not state.epoch or state.home is None:
                    return self._connect(record, may_recreate=may_recreate)
                provider = self._ledger.provider_of(record)
                try:
                    connection = provider.attach(self._ledger.ref(record))
                except SandboxGoneError as error:
                    return self._gone(record, error, may_recreate=may_recreate)
                return self._ledger.live(record, provider, connection)
            case "shutdown":
                if state is not None and state.stop in ("lost", "expired"):
                    return self._restart(record, may_recreate=may_recreate)
                if self._runs_all_the_same(record):
                    return self._connect(record, may_recreate=False)
                raise stopped(record)
            case _:
                return self._unfinished(record)

    def _reconnect(self, record: SandboxRecord) -> Live:
        match record.status:
            case "active":
                return self._connect(record, may_recreate=False)
            case "shutdown":
                return self._restart(record, may_recreate=False)
            case _:
                return self._unfinished(record)

    def _unfinished(self, record: SandboxRecord) -> Live:
        """What every operation does with a record that is neither active nor shut down."""
        state = record.state
        match record.status:
            case "creating":
                if (
                    state is not None
                    and state.deadline is not None
                    and state.deadline <= self._ledger.clock.now_ms()
                ):
                    raise never_finished(record)
                raise not_ready(record)
            case "recreating":
                if not record.ours:
                    raise not_ready(record)
                return self._creation.join(record)
            case "error":
                raise failed(record)
            case _:
                raise LifecycleError(
                    f"the record {record.id} has the status {record.status!r}, which this release "
                    "does not know",
                    sandbox_id=record.id,
                    hint="upgrade ekairos-sandbox",
                )

    def _runs_all_the_same(self, record: SandboxRecord) -> bool:
        """Whether another program marked a sandbox as shut down that is in fact running."""
        state = record.state
        if state is not None and state.stop is not None:
            return False
        provider = self._ledger.provider_of(record)
        try:
            return provider.inspect(self._ledger.ref(record)).state == "running"
        except SandboxGoneError:
            return False

    def _restart(self, record: SandboxRecord, *, may_recreate: bool) -> Live:
        """Start what was shut down, if it still exists.

        Until it is active again the record says that a stop is due: a crash on the way leaves
        nothing running that nobody asked for.
        """
        state = record.state
        if state is not None and state.release == "destroy":
            record = self._ending.release(record)
        elif state is not None and state.stop in ("requested", "expired"):
            record = self._ledger.transition(record, {"release": "stop"})
        return self._connect(record, may_recreate=may_recreate)

    def _connect(self, record: SandboxRecord, *, may_recreate: bool, prepare: bool = False) -> Live:
        """Have the provider connect, and bring the record up to date with what it says.

        Args:
            record: The record.
            may_recreate: Whether to make anew what is proven gone.
            prepare: Whether the sandbox needs a new epoch in any case. That it has another one
                than expected may mean that another sandbox bears its name now, which the
                provider finds out.
        """
        provider = self._ledger.provider_of(record)
        try:
            connection = provider.connect(self._ledger.ref(record))
        except SandboxGoneError as error:
            return self._gone(record, error, may_recreate=may_recreate)
        try:
            record = self._update(record, connection)
            state = record.state
            unprepared = state is None or not state.epoch or state.home is None
            if prepare or connection.restored or unprepared:
                record = self._creation.prepare_again(record, connection)
        except RecordConflictError:
            connection.close()
            self._stop_if_stopped(record, provider)
            raise
        except BaseException:
            connection.close()
            raise
        return self._ledger.live(record, provider, connection)

    def _update(self, record: SandboxRecord, connection: Connection) -> SandboxRecord:
        data = (record.params or {}).get(record.provider)
        same = (
            record.status == "active"
            and record.external_sandbox_id == connection.external_id
            and record.sandbox_url == connection.url
            and (not connection.data or data == dict(connection.data))
        )
        if same:
            return record
        return self._ledger.transition(
            record,
            {"stop": None, "release": None, "deadline": None},
            data={**(data or {}), **connection.data} or None,
            status="active",
            external_sandbox_id=connection.external_id,
            sandbox_url=connection.url,
            shutdown_at=None,
        )

    def _stop_if_stopped(self, record: SandboxRecord, provider: Provider[Any]) -> None:
        """Undo a start that a stop overtook."""
        fresh = self._ledger.get(record.id)
        state = fresh.state
        if fresh.status == "shutdown" and state is not None and state.stop == "requested":
            provider.stop(self._ledger.ref(fresh))

    def _gone(self, record: SandboxRecord, error: SandboxGoneError, *, may_recreate: bool) -> Live:
        """Make a sandbox anew that is proven gone; where that is not allowed, mark it as lost."""
        state = record.state
        error.sandbox_id = record.id
        if state is None or not record.ours or state.account is None:
            raise error
        if may_recreate and state.config.get("on_gone", "recreate") == "recreate":
            return self._creation.recreate(record)
        if record.status == "active":
            try:
                self._ledger.transition(
                    record,
                    {"stop": "lost", "release": None},
                    status="shutdown",
                    shutdown_at=self._ledger.clock.now_ms(),
                )
            except RecordConflictError:
                _log.info("the record %s changed while its sandbox was found gone", record.id)
        raise error


def stopped(record: SandboxRecord) -> SandboxStoppedError:
    """Build the error for a record that was shut down on request."""
    return SandboxStoppedError(
        f"the sandbox {record.id} was stopped",
        provider=record.provider,
        sandbox_id=record.id,
        hint="reconnect_to_sandbox starts it again if it still exists",
    )


def not_ready(record: SandboxRecord) -> SandboxNotReadyError:
    """Build the error for a sandbox that is still being created."""
    return SandboxNotReadyError(
        f"the sandbox {record.id} is still being created",
        provider=record.provider,
        sandbox_id=record.id,
        hint="try again in a moment",
    )
