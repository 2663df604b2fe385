"""What the record of a creation says, and what the provider is told by it."""

from __future__ import annotations

from typing import Any

from ekairos_sandbox.lifecycle.ledger import Ledger, incarnation_of, new_epoch
from ekairos_sandbox.models import STATE_KEY, SandboxRecord, SandboxState
from ekairos_sandbox.plans import Plan
from ekairos_sandbox.provider import CreateSpec, Provider, Tags


def first_record(
    ledger: Ledger, plan: Plan, provider: Provider[Any], sandbox_id: str
) -> SandboxRecord:
    """Return the record that is written before the provider is asked for anything."""
    now = ledger.clock.now_ms()
    state = SandboxState(
        name=plan.chosen_name or f"ekairos-{sandbox_id}",
        owner=ledger.repository.owner,
        account=provider.account(),
        epoch=new_epoch(),
        deadline=deadline_of(ledger, plan),
        config=plan.stored,
        withheld=plan.withheld,
    )
    config = plan.config
    return SandboxRecord(
        id=sandbox_id,
        provider=plan.cls.name,
        status="creating",
        timeout=config.timeout_ms,
        runtime=config.runtime,
        vcpus=config.resources.vcpus,
        ports=list(config.ports) or None,
        purpose=config.purpose,
        params={**config.params, STATE_KEY: state.model_dump(mode="json")},
        created_at=now,
        updated_at=now,
    )


def next_incarnation(
    ledger: Ledger, record: SandboxRecord, plan: Plan, status: Any
) -> SandboxRecord:
    """Record that the sandbox is about to be made anew, under another name.

    Raises:
        RecordConflictError: Somebody else changed the record.
    """
    number = incarnation_of(record) + 1
    base = plan.chosen_name or f"ekairos-{record.id}"
    return ledger.transition(
        record,
        {
            "incarnation": number,
            "name": f"{base}-g{number}",
            "epoch": new_epoch(),
            "home": None,
            "deadline": deadline_of(ledger, plan),
            "expires_at": None,
            "borrowed": False,
            "stop": None,
            "release": None,
        },
        data={},
        status=status,
        external_sandbox_id=None,
        sandbox_url=None,
        shutdown_at=None,
    )


def spec_of(ledger: Ledger, record: SandboxRecord, plan: Plan) -> CreateSpec[Any]:
    """Return what the provider shall make, and how many seconds are left for it."""
    state = state_of(record)
    assert state.name is not None
    assert state.deadline is not None
    return CreateSpec(
        name=state.name,
        tags=Tags(state.owner, record.id, state.incarnation),
        options=plan.options,
        timeout_s=(state.deadline - ledger.clock.now_ms()) / 1000,
        user_chosen_name=plan.chosen_name is not None,
        runtime=plan.config.runtime,
        timeout_ms=plan.config.timeout_ms,
        vcpus=plan.config.resources.vcpus,
        ports=plan.config.ports,
        params={k: v for k, v in (record.params or {}).items() if k != STATE_KEY},
    )


def deadline_of(ledger: Ledger, plan: Plan) -> int:
    """Return when a creation that begins now counts as given up, epoch ms."""
    return ledger.clock.now_ms() + int(plan.cls.create_timeout_s * 1000)


def state_of(record: SandboxRecord) -> SandboxState:
    """Return our own state in a record that must have it."""
    state = record.state
    assert state is not None
    return state
