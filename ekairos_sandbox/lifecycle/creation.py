"""Bringing a sandbox up, for the first time or anew.

The process whose transition began a creation is its leader: it cleans up when it fails. Any other
process may join: it does the same idempotent steps and changes nothing when it fails.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from ekairos_sandbox.connections import Live
from ekairos_sandbox.exceptions import (
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    RepositoryUnavailableError,
    SandboxError,
    SandboxFailedError,
    SandboxNotReadyError,
    SandboxStoppedError,
)
from ekairos_sandbox.jobs.prepare import prepare
from ekairos_sandbox.lifecycle.cautions import Cautions
from ekairos_sandbox.lifecycle.ending import Ending
from ekairos_sandbox.lifecycle.failures import failed, never_finished, stopped_meanwhile
from ekairos_sandbox.lifecycle.intent import (
    deadline_of,
    first_record,
    next_incarnation,
    spec_of,
    state_of,
)
from ekairos_sandbox.lifecycle.ledger import (
    CONFLICT_ROUNDS,
    Ledger,
    StateChanges,
    incarnation_of,
    new_epoch,
)
from ekairos_sandbox.models import SandboxConfig, SandboxRecord
from ekairos_sandbox.plans import Plan, make_plan, plan_of_record
from ekairos_sandbox.provider import (
    Connection,
    CreateSpec,
    Provider,
    SandboxInfo,
)
from ekairos_sandbox.redaction import redact_error

PREPARE_TIMEOUT_S = 60.0

LeftBehind = Literal["nothing", "sandbox", "unknown"]
"""What a failed creation leaves at the provider; ``"unknown"``: it may still show up later."""

_log = logging.getLogger("ekairos_sandbox")


class Creation:
    """Creates sandboxes and makes them anew."""

    def __init__(self, ledger: Ledger, ending: Ending) -> None:
        self._ledger = ledger
        self._ending = ending
        self._cautions = Cautions(ledger.context.environ)

    def create(
        self, config: SandboxConfig, sandbox_id: str, *, chosen: bool
    ) -> Live | SandboxRecord:
        """Create a sandbox.

        Args:
            config: What to create.
            sandbox_id: Its id.
            chosen: Whether the caller chose the id, and so may have asked for it before.

        Returns:
            The way in; or, when the caller-chosen id stands for a sandbox that was created from
            the same config before, its record, to be opened.

        Raises:
            IdConflictError: The id stands for a sandbox of another config.
        """
        plan = make_plan(config, self._ledger.registry, self._ledger.context.environ)
        provider = self._ledger.provider(plan.cls.name)
        record = first_record(self._ledger, plan, provider, sandbox_id)
        plan.cls.check_spec(spec_of(self._ledger, record, plan))
        self._cautions.warn(plan)
        try:
            record = self._ledger.repository.create(record)
        except IdConflictError:
            if not chosen:
                raise
            return self._ledger.decide(sandbox_id, lambda r: self._again(r, plan, provider))
        try:
            return self._bring_up(record, plan, provider, leader=True)
        except SandboxError as error:
            error.sandbox_id = error.sandbox_id or record.id
            raise

    def abandon(self, sandbox_id: str) -> None:
        """Destroy what an interrupt has cut off from its caller, who was not told the id."""
        try:
            if self._ledger.get(sandbox_id).status == "active":
                self._ending.stop(sandbox_id, destroy=True)
        except RecordNotFoundError:
            return
        except Exception:  # noqa: BLE001 - the interrupt is the one to report
            _log.warning("the interrupted creation of %s is left", sandbox_id, exc_info=True)

    def join(self, record: SandboxRecord) -> Live:
        """Take part in the creation that a record says is under way."""
        plan = self._plan_of(record)
        provider = self._ledger.provider_of(record)
        state = state_of(record)
        if state.deadline is not None and state.deadline > self._ledger.clock.now_ms():
            return self._bring_up(record, plan, provider, leader=False)
        # Whoever led it is gone: take it over, under the same name.
        record = self._ledger.transition(record, {"deadline": deadline_of(self._ledger, plan)})
        return self._bring_up(record, plan, provider, leader=True)

    def recreate(self, record: SandboxRecord) -> Live:
        """Make a sandbox anew that was proven gone, as the next incarnation.

        Raises:
            ConfigurationError: It needs values that were not stored.
            RecordConflictError: Somebody else changed the record; read it again.
        """
        plan = self._plan_of(record)
        provider = self._ledger.provider_of(record)
        if state_of(record).release is not None:
            record = self._ending.release(record)
        record = next_incarnation(self._ledger, record, plan, status="recreating")
        return self._bring_up(record, plan, provider, leader=True)

    def prepare_again(self, record: SandboxRecord, connection: Connection) -> SandboxRecord:
        """Give a sandbox a new epoch, because its files are not what they were."""
        epoch = new_epoch()
        prepared = prepare(
            connection,
            epoch=epoch,
            env=None if record.ours else {},
            clock=self._ledger.clock,
            timeout_s=PREPARE_TIMEOUT_S,
        )
        return self._ledger.transition(record, {"epoch": epoch, "home": prepared.home})

    def _plan_of(self, record: SandboxRecord) -> Plan:
        return plan_of_record(record, self._ledger.registry, self._ledger.context.environ)

    def _again(
        self, record: SandboxRecord, plan: Plan, provider: Provider[Any]
    ) -> Live | SandboxRecord:
        """Answer a second creation with the same caller-chosen id."""
        state = record.state
        if state is None or record.provider != plan.cls.name or not plan.same_as(state):
            raise IdConflictError(
                f"the id {record.id} stands for a sandbox that was created from another config",
                provider=record.provider,
                operation="create",
                sandbox_id=record.id,
                hint="use a new id, or get_sandbox for the existing one",
            )
        if record.status == "creating":
            if state.deadline is None or state.deadline <= self._ledger.clock.now_ms():
                raise never_finished(record)
            return self._bring_up(record, plan, provider, leader=False)
        if record.status == "error":
            if state.release is not None:
                record = self._ending.release(record)
            record = next_incarnation(self._ledger, record, plan, status="creating")
            return self._bring_up(record, plan, provider, leader=True)
        return record

    def _bring_up(
        self, record: SandboxRecord, plan: Plan, provider: Provider[Any], *, leader: bool
    ) -> Live:
        try:
            connection = self._make(record, plan, provider)
        except BaseException as error:
            redact_error(error, plan.secrets)
            if leader:
                self._give_up(record, error, _left_behind(error))
            raise
        try:
            prepared = prepare(
                connection,
                epoch=state_of(record).epoch,
                env=plan.env,
                clock=self._ledger.clock,
                timeout_s=PREPARE_TIMEOUT_S,
            )
            return self._activate(record, plan, provider, connection, prepared.home)
        except BaseException as error:
            redact_error(error, plan.secrets)
            connection.close()
            if leader and not isinstance(error, SandboxStoppedError | SandboxFailedError):
                borrowed = connection.ownership == "borrowed"
                self._give_up(record, error, "nothing" if borrowed else "sandbox")
            if isinstance(error, SandboxError) and self._was_stopped(record.id):
                raise stopped_meanwhile(record) from error
            raise

    def _was_stopped(self, sandbox_id: str) -> bool:
        """Whether a stop overtook the creation, which explains whatever went wrong with it."""
        try:
            state = self._ledger.get(sandbox_id).state
        except SandboxError:
            return False
        return state is not None and state.stop == "requested"

    def _make(self, record: SandboxRecord, plan: Plan, provider: Provider[Any]) -> Connection:
        """Have the provider create, and look by name when its answer was lost."""
        spec = spec_of(self._ledger, record, plan)
        if spec.timeout_s <= 0:
            raise never_finished(record)
        # Its name may be one that only a later incarnation has.
        plan.cls.check_spec(spec)
        try:
            return provider.create(spec)
        except SandboxError as error:
            if error.outcome != "unknown":
                raise
            found = self._found(provider, spec)
            if found is None:
                raise
            _log.info("the creation of %s was answered badly, but it is there", record.id)
        ref = self._ledger.ref(record.model_copy(update={"external_sandbox_id": found.external_id}))
        try:
            return provider.connect(ref)
        except SandboxError as error:
            # Connecting had no effect, perhaps, but the sandbox is there.
            error.outcome = "unknown"
            raise

    @staticmethod
    def _found(provider: Provider[Any], spec: CreateSpec[Any]) -> SandboxInfo | None:
        try:
            found = provider.find(spec.name)
        except SandboxError:
            return None
        return found if found is not None and found.tags == spec.tags else None

    def _activate(
        self,
        record: SandboxRecord,
        plan: Plan,
        provider: Provider[Any],
        connection: Connection,
        home: str,
    ) -> Live:
        """Make the record say that the sandbox is there; only then may the caller know."""
        incarnation = incarnation_of(record)
        lifetime = plan.config.timeout_ms
        support = plan.cls.field_support(plan.options).get("timeout_ms")
        expires = lifetime is not None and (support is None or support.level != "enforced")
        for _ in range(CONFLICT_ROUNDS):
            try:
                record = self._ledger.transition(
                    record,
                    {
                        "home": home,
                        "deadline": None,
                        "borrowed": connection.ownership == "borrowed",
                        "expires_at": self._ledger.clock.now_ms() + (lifetime or 0)
                        if expires
                        else None,
                    },
                    data=connection.data,
                    status="active",
                    external_sandbox_id=connection.external_id,
                    sandbox_url=connection.url,
                )
                return self._ledger.live(record, provider, connection)
            except (RecordConflictError, RepositoryUnavailableError) as error:
                if isinstance(error, RepositoryUnavailableError) and error.outcome == "failed":
                    raise
                made, record = record, self._ledger.get(record.id)
                if incarnation_of(record) == incarnation and record.status == "active":
                    if state_of(record).home is None:
                        continue  # stopped and started again by others, who have yet to prepare it
                    return self._ledger.live(record, provider, connection)
                if incarnation_of(record) != incarnation or record.status not in (
                    "creating",
                    "recreating",
                ):
                    self._too_late(made, record, connection)
        raise SandboxNotReadyError(
            f"the record {record.id} is being changed by others all the time",
            sandbox_id=record.id,
        )

    def _too_late(self, made: SandboxRecord, now: SandboxRecord, connection: Connection) -> None:
        """Remove what was made while the record went another way, and say so."""
        if connection.ownership != "borrowed":
            ref = self._ledger.ref(
                made.model_copy(update={"external_sandbox_id": connection.external_id})
            )
            self._ledger.provider(made.provider).destroy(ref)
        if incarnation_of(now) == incarnation_of(made):
            self._ending.settled(now)
        if now.status == "shutdown":
            raise stopped_meanwhile(now)
        raise failed(now)

    def _give_up(self, record: SandboxRecord, error: BaseException, left: LeftBehind) -> None:
        """Record that the creation failed, and leave nothing running.

        Raises no ``Exception``: what cannot be done now is what the record says is pending.
        """
        first = record.status == "creating"
        incarnation = incarnation_of(record)
        try:
            for _ in range(CONFLICT_ROUNDS):
                try:
                    changes: StateChanges = {
                        "stop": None if first else "lost",
                        "release": None if left == "nothing" else "destroy",
                    }
                    if left != "unknown":
                        changes["deadline"] = None
                    record = self._ledger.transition(
                        record,
                        changes,
                        error=self._ledger.reason(error),
                        status="error" if first else "shutdown",
                    )
                    break
                except RecordConflictError:
                    record = self._ledger.get(record.id)
                    if incarnation_of(record) != incarnation or record.status == "active":
                        return
                    if record.status not in ("creating", "recreating"):
                        break
            self._ending.release(record)
        except Exception:  # noqa: BLE001 - the first error is the one to report
            _log.warning(
                "the failed creation of %s could not be cleaned up; reconcile will do it",
                record.id,
                exc_info=True,
            )


def _left_behind(error: BaseException) -> LeftBehind:
    """What an error of ``Provider.create`` says about what there is at the provider now."""
    if isinstance(error, SandboxError) and error.outcome == "failed":
        return "nothing"
    return "unknown"
