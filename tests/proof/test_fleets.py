"""Reconciling large fleets: what is not ours or not proven is never touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.memory_world import ManualClock

from ekairos_sandbox import (
    ProviderUnavailableError,
    RaisingService,
    ReconcileReport,
    SandboxRecord,
    SandboxService,
)
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.provider import ProviderContext, SandboxInfo, SandboxRef, Tags
from ekairos_sandbox.results import RecordPage
from ekairos_sandbox.testing import FakeProvider, MemorySandboxRepository

EACH = 100
FLEET = 50 * EACH
T0 = 1_800_000_000_000
SECRET = "hunter22-4711"


class CountedStore(MemorySandboxRepository):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    def get(self, sandbox_id: str) -> SandboxRecord:
        self.reads["get"] += 1
        return super().get(sandbox_id)

    def list(self, query: RecordQuery) -> RecordPage:
        self.reads["list"] += 1
        return super().list(query)


class Fleet:
    """5,000 records, their sandboxes, and sandboxes of others beside them."""

    def __init__(self) -> None:
        self.clock = ManualClock(T0 + 10_000_000)
        self.store = CountedStore()
        self.fake = FakeProvider(ProviderContext(environ={}, clock=self.clock))
        for number in range(FLEET):
            self.add(number, self.kind(number))
        for number in range(FLEET):
            self.machine(f"theirs-{number}", None)
            other = Tags("0123456789abcdef", self.id(number), 1)
            self.machine(f"another-app-{number}", other)

    @staticmethod
    def kind(number: int) -> str:
        return {0: "unfinished", 1: "untold", 2: "lost", 3: "expired", 4: "twice"}.get(
            number % 50, "active"
        )

    @staticmethod
    def id(number: int) -> str:
        return f"00000000-0000-4000-8000-{number:012d}"

    def add(self, number: int, kind: str) -> None:
        sandbox_id, name = self.id(number), f"ekairos-{self.id(number)}"
        incarnation = 2 if kind == "twice" else 1
        state = {
            "v": 1,
            "name": name,
            "owner": self.store.owner,
            "account": "fake:fake",
            "epoch": "e",
            "home": "/home/fake",
            "incarnation": incarnation,
            **({"deadline": T0} if kind == "unfinished" else {}),
            **({"release": "stop", "stop": "requested"} if kind == "untold" else {}),
            **({"expires_at": T0} if kind == "expired" else {}),
        }
        if kind == "twice":
            self.machine(name, Tags(self.store.owner, sandbox_id, 1))
            name = state["name"] = f"{name}-g2"
        if kind != "lost":
            self.machine(name, Tags(self.store.owner, sandbox_id, incarnation))
        status = {"unfinished": "creating", "untold": "shutdown"}.get(kind, "active")
        self.store.create(
            SandboxRecord(
                id=sandbox_id,
                provider="fake",
                status=status,
                external_sandbox_id=None if kind == "unfinished" else f"x-{name}",
                params={"ekairos": state},
                created_at=T0 + number,
            )
        )

    def machine(self, name: str, tags: Tags | None) -> None:
        self.fake.add(name, tags, external_id=f"x-{name}")

    def service(self) -> RaisingService:
        return SandboxService(
            self.store, environ={}, clock=self.clock, providers=[self.fake]
        ).raising

    def running(self) -> int:
        return sum(machine.running for machine in self.fake.sandboxes.values())


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def kinds(report: ReconcileReport) -> dict[str, int]:
    return dict(Counter(action.kind for action in report.actions))


WANTED = {"finish-create": EACH, "release": EACH, "lost": EACH, "expired": EACH, "superseded": EACH}


def test_a_dry_run_says_everything_and_changes_nothing(fleet: Fleet) -> None:
    before = dict(fleet.store.stored), fleet.running()
    report = fleet.service().reconcile()
    assert kinds(report) == WANTED
    assert report.checked == FLEET
    assert not any(action.applied for action in report.actions)
    assert (dict(fleet.store.stored), fleet.running()) == before


def test_every_kind_is_settled_and_nothing_of_others_is_touched(fleet: Fleet) -> None:
    report = fleet.service().reconcile(apply=True)
    assert kinds(report) == WANTED
    assert all(action.applied and not action.error for action in report.actions)
    machines = fleet.fake.sandboxes.values()
    assert sum(machine.running for machine in machines if machine.tags is None) == FLEET
    others = [m for m in machines if m.tags and m.tags.owner == "0123456789abcdef"]
    assert sum(machine.running for machine in others) == FLEET
    assert kinds(fleet.service().reconcile(apply=True)) == {}


def test_what_is_as_recorded_costs_no_request_of_its_own(fleet: Fleet) -> None:
    fleet.service().reconcile()
    # One look at each sandbox that the list does not show running, one record for each that is
    # too many.
    assert fleet.fake.calls["inspect"] == EACH
    assert fleet.store.reads["get"] <= 4 * EACH
    assert fleet.store.reads["list"] == 2 * (FLEET // 500)


def test_a_list_that_fails_midway_ends_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(owner: str) -> Iterator[SandboxInfo]:
        yield from list(FakeProvider.list_owned(fleet.fake, owner))[: FLEET // 2]
        raise ProviderUnavailableError("page 26 of 50")

    monkeypatch.setattr(fleet.fake, "list_owned", half)
    before = dict(fleet.store.stored), fleet.running()
    report = fleet.service().reconcile(apply=True, destroy_unrecorded=True, providers=["fake"])
    assert kinds(report) == {"skipped": 1}
    assert (dict(fleet.store.stored), fleet.running()) == before


class BrokenProvider(FakeProvider):
    """One with a mistake of its author's."""

    name = "broken"

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        raise KeyError("items")


def test_a_provider_that_fails_in_its_own_way_does_not_keep_the_others_from_being_settled(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = BrokenProvider(ProviderContext(environ={}))
    destroy = fleet.fake.destroy

    def destroy_but_one(ref: SandboxRef[Any]) -> None:
        if ref.name == f"ekairos-{fleet.id(50)}":
            raise TypeError(f"destroy() got a surprise from {SECRET}")
        destroy(ref)

    monkeypatch.setattr(fleet.fake, "destroy", destroy_but_one)
    service = SandboxService(
        fleet.store,
        environ={"API_KEY": SECRET},
        clock=fleet.clock,
        providers=[broken, fleet.fake],
    ).raising
    report = service.reconcile(apply=True, providers=["broken", "fake"])
    assert kinds(report) == {**WANTED, "skipped": 1}
    assert {(action.sandbox_id, action.error) for action in report.errors} == {
        ("", "KeyError: 'items'"),
        (fleet.id(50), "TypeError: destroy() got a surprise from ***"),
    }
    assert SECRET not in caplog.text
    assert {record.name for record in caplog.records if record.exc_info} == {"ekairos_sandbox"}
    monkeypatch.undo()
    assert kinds(fleet.service().reconcile(apply=True)) == {"release": 1}


def test_a_list_that_leaves_some_out_ends_none_of_them(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet.fake, "list_owned", lambda owner: iter([]))
    report = fleet.service().reconcile(apply=True)
    assert kinds(report)["lost"] == EACH
    active = [r for r in fleet.service().iter_sandboxes() if r.status == "active"]
    assert len(active) == FLEET - 4 * EACH


def test_credentials_of_another_account_change_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet.fake, "account", lambda: "fake:other")
    fleet.fake.sandboxes.clear()
    before = dict(fleet.store.stored)
    report = fleet.service().reconcile(apply=True)
    assert not any(action.applied for action in report.actions)
    assert dict(fleet.store.stored) == before


def test_an_emptied_store_ends_nothing(fleet: Fleet) -> None:
    fleet.store.stored.clear()
    before = fleet.running()
    report = fleet.service().reconcile(apply=True, destroy_unrecorded=True, providers=["fake"])
    assert not any(action.applied for action in report.actions)
    assert fleet.running() == before


def test_a_clock_that_is_wrong_by_an_hour_ends_nothing_that_is_wanted(fleet: Fleet) -> None:
    for hours in (-1, 1):
        fleet.clock.advance(hours * 3600)
        report = fleet.service().reconcile()
        assert set(kinds(report)) <= set(WANTED)
        assert kinds(report).get("lost") == EACH


def test_a_sandbox_that_is_destroyed_in_between_is_no_error(fleet: Fleet) -> None:
    inspect = fleet.fake.inspect

    def late(ref: SandboxRef[Any]) -> SandboxInfo:
        fleet.fake.sandboxes.pop(f"ekairos-{fleet.id(4)}", None)
        return inspect(ref)

    fleet.fake.inspect = late  # type: ignore[method-assign]
    report = fleet.service().reconcile(apply=True)
    assert all(not action.error for action in report.actions)
