"""What each status of a record allows, and what a failure at any step leaves behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers.memory_world import Machine, ManualClock, MemoryOptions, MemoryProvider, World

from ekairos_sandbox import (
    ConfigurationError,
    IdConflictError,
    ProviderAuthError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RaisingService,
    ReconcileReport,
    SandboxFailedError,
    SandboxGoneError,
    SandboxNotReadyError,
    SandboxService,
    SandboxStoppedError,
    SchemaError,
    WrongAccountError,
    hookimpl,
)
from ekairos_sandbox.models import SandboxRecord, SandboxState
from ekairos_sandbox.provider import CreateSpec, ProviderContext, Tags
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

ID = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"
NAME = f"ekairos-{ID}"


class Bench:
    """A service over a SQLite file and a world in memory; ``again()`` is another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.world = World(folder / "machines")
        self.environ: dict[str, str] = {}
        self.opened: list[SandboxService] = []
        self.service = self.again()

    def again(self) -> RaisingService:
        service = SandboxService(
            SqliteSandboxRepository(self.folder / "records.db"),
            environ=self.environ,
            clock=self.clock,
            providers=[MemoryProvider(self.world)],
        )
        self.opened.append(service)
        return service.raising

    def create(self, **fields: Any) -> str:
        return self.service.create_sandbox(
            {"provider": "memory", **fields}, sandbox_id=ID
        ).sandbox_id

    def record(self) -> SandboxRecord:
        return self.again().get_record(ID)

    def state(self) -> SandboxState:
        state = self.record().state
        assert state is not None
        return state

    def summary(self) -> tuple[str, str | None, str | None, int]:
        state = self.state()
        return self.record().status, state.stop, state.release, state.incarnation

    def write_record(self, **attributes: Any) -> None:
        """Store a record as another program would write it."""
        record = SandboxRecord.model_validate(
            {"id": ID, "provider": "memory", "createdAt": 1, **attributes}
        )
        SqliteSandboxRepository(self.folder / "records.db").create(record)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for machine in list(made.world.machines.values()):
        made.world.remove(machine)
    for service in made.opened:
        service.close()


def unreachable(outcome: Any = "failed") -> ProviderUnavailableError:
    return ProviderUnavailableError("no connection", provider="memory", outcome=outcome)


# Creating


def test_create_records_name_account_epoch_and_home(bench: Bench) -> None:
    assert bench.create(purpose="p", params={"k": 1}) == ID
    record, state = bench.record(), bench.state()
    assert (record.status, record.external_sandbox_id) == ("active", "m1")
    assert (record.purpose, record.user_params["k"]) == ("p", 1)
    assert (state.name, state.account, state.deadline) == (NAME, "memory:acme", None)
    assert state.home == str(bench.world.machines[NAME].home)
    assert len(state.epoch) == 16


def test_create_costs_two_writes_and_one_script(bench: Bench) -> None:
    bench.create()
    assert bench.state().rev == 1
    assert bench.world.calls == {"create": 1, "shell": 1}


def test_proven_failure_is_recorded_with_its_reason_and_leaves_nothing(bench: Bench) -> None:
    bench.world.fail("create", ProviderAuthError("bad key", provider="memory"))
    with pytest.raises(ProviderAuthError):
        bench.create()
    assert bench.summary() == ("error", None, None, 1)
    assert (bench.record().params or {})["error"] == "bad key"
    assert bench.world.calls == {"create": 1}
    with pytest.raises(SandboxFailedError, match="bad key"):
        bench.service.run_command(ID, "true")


def test_lost_reply_of_a_create_that_happened_is_found_by_name(bench: Bench) -> None:
    bench.world.fail("create", unreachable("unknown"), effect=True)
    bench.create()
    assert bench.summary() == ("active", None, None, 1)
    assert bench.service.run_command(ID, "true").exit_code == 0
    assert bench.world.running() == [NAME]


def test_unknown_create_that_is_not_found_stays_pending_until_its_deadline(bench: Bench) -> None:
    bench.world.fail("create", unreachable("unknown"))
    with pytest.raises(ProviderUnavailableError):
        bench.create()
    assert bench.summary() == ("error", None, "destroy", 1)
    assert bench.service.reconcile(apply=True).actions == ()
    # The request was on its way all the time: the sandbox shows up late.
    provider = MemoryProvider(bench.world)
    state = bench.state()
    provider.create(CreateSpec(NAME, Tags(state.owner, ID, 1), MemoryOptions(), 10))
    bench.clock.advance(120 + 61)
    (action,) = bench.service.reconcile(apply=True).actions
    assert (action.kind, action.applied) == ("release", True)
    assert bench.world.machines == {}
    assert bench.summary() == ("error", None, None, 1)


@pytest.mark.parametrize("step", ["create", "shell"])
def test_interrupt_at_any_step_of_a_create_leaves_nothing_running(bench: Bench, step: str) -> None:
    bench.world.fail(step, KeyboardInterrupt(), effect=True)
    with pytest.raises(KeyboardInterrupt):
        bench.create()
    assert bench.world.machines == {}
    assert bench.record().status == "error"
    bench.clock.advance(120 + 61)
    bench.service.reconcile(apply=True)
    assert bench.summary() == ("error", None, None, 1)


def test_failure_to_clean_up_is_left_to_reconcile(bench: Bench) -> None:
    bench.world.fail("shell", unreachable("failed"))
    for _ in range(20):
        bench.world.fail("shell", unreachable("failed"))
    bench.world.fail("destroy", unreachable())
    with pytest.raises(ProviderUnavailableError):
        bench.create()
    assert bench.summary() == ("error", None, "destroy", 1)
    assert bench.world.running() == [NAME]
    assert bench.service.reconcile(apply=True).errors == ()
    assert bench.world.machines == {}
    assert bench.summary() == ("error", None, None, 1)


def test_stop_during_a_create_wins_and_what_was_made_is_destroyed(bench: Bench) -> None:
    other = bench.again()
    bench.world.meanwhile("create", lambda: other.stop_sandbox(ID))
    with pytest.raises(SandboxStoppedError):
        bench.create()
    assert bench.world.machines == {}
    assert bench.record().status == "shutdown"
    bench.clock.advance(120 + 61)
    bench.service.reconcile(apply=True)
    assert bench.summary() == ("shutdown", "requested", None, 1)


def test_same_id_and_config_twice_is_one_sandbox(bench: Bench) -> None:
    assert bench.create(purpose="p") == bench.create(purpose="p") == ID
    assert bench.world.calls["create"] == 1


def test_same_id_with_another_config_is_a_conflict_and_changes_nothing(bench: Bench) -> None:
    bench.create(memory={"flavour": "a"})
    before = bench.record()
    with pytest.raises(IdConflictError):
        bench.create(memory={"flavour": "b"})
    assert bench.record() == before


def test_second_creator_joins_the_first_and_both_get_the_sandbox(bench: Bench) -> None:
    other = bench.again()
    got: list[str] = []

    def join() -> None:
        got.append(other.create_sandbox(provider="memory", sandbox_id=ID).sandbox_id)

    bench.world.meanwhile("create", join)
    assert bench.create() == ID
    assert got == [ID]
    assert bench.world.running() == [NAME]
    assert bench.service.run_command(ID, "true").exit_code == 0
    assert other.run_command(ID, "true").exit_code == 0


def test_leader_that_fails_after_a_joiner_succeeded_destroys_nothing(bench: Bench) -> None:
    other = bench.again()
    bench.world.fail("create", KeyboardInterrupt(), effect=True)
    bench.world.meanwhile("create", lambda: other.create_sandbox(provider="memory", sandbox_id=ID))
    with pytest.raises(KeyboardInterrupt):
        bench.create()
    assert bench.summary() == ("active", None, None, 1)
    assert other.run_command(ID, "true").exit_code == 0


def test_create_again_after_an_error_makes_the_next_incarnation(bench: Bench) -> None:
    bench.world.fail("create", ProviderAuthError("bad key"))
    with pytest.raises(ProviderAuthError):
        bench.create()
    assert bench.create() == ID
    assert bench.summary() == ("active", None, None, 2)
    assert bench.world.running() == [f"{NAME}-g2"]


def test_creation_whose_creator_died_is_destroyed_after_deadline_and_grace(bench: Bench) -> None:
    class Death(BaseException):
        pass

    # A dead process cleans up nothing: let its writes fail as well.
    bench.world.meanwhile("create", lambda: _freeze(bench))
    with pytest.raises(Death):
        _die_in(bench, Death())
    assert bench.world.running() == [NAME]
    survivor = bench.again()
    with pytest.raises(SandboxNotReadyError):
        survivor.run_command(ID, "true")
    assert survivor.reconcile(apply=True).actions == ()
    bench.clock.advance(120 + 61)
    with pytest.raises(SandboxFailedError, match="never finished"):
        survivor.run_command(ID, "true")
    (action,) = survivor.reconcile(apply=True).actions
    assert (action.kind, action.applied, action.error) == ("finish-create", True, None)
    assert bench.world.machines == {}
    assert bench.summary() == ("error", None, None, 1)
    assert survivor.reconcile(apply=True).actions == ()


def _freeze(bench: Bench) -> None:
    """From now on the first service can write nothing any more."""
    repository = bench.service._operations.ledger.repository

    def refuse(*args: object, **kwargs: object) -> Any:
        raise sqlite3.OperationalError("the process is dead")

    repository.transition = refuse  # type: ignore[method-assign]


def _die_in(bench: Bench, death: BaseException) -> None:
    bench.world.fail("create", death, effect=True)
    bench.create()


def test_interrupt_after_the_record_became_active_still_leaves_nothing(bench: Bench) -> None:
    repository = bench.service._operations.ledger.repository
    transition = repository.transition

    def interrupted(*args: Any) -> SandboxRecord:
        record = transition(*args)
        if record.status == "active":
            raise KeyboardInterrupt
        return record

    repository.transition = interrupted  # type: ignore[assignment, method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.service.create_sandbox(provider="memory")
    assert bench.world.machines == {}
    assert [record.status for record in bench.again().iter_sandboxes()] == ["shutdown"]


# Using


def test_new_process_needs_one_record_read_and_one_script(bench: Bench) -> None:
    bench.create()
    bench.world.calls.clear()
    assert bench.again().run_command(ID, "true").exit_code == 0
    assert bench.world.calls == {"shell": 1}


def test_warm_command_reads_no_record(bench: Bench) -> None:
    bench.create()
    _freeze_reads(bench)
    bench.world.calls.clear()
    assert bench.service.run_command(ID, "true").exit_code == 0
    assert bench.world.calls == {"shell": 1}


def _freeze_reads(bench: Bench) -> None:
    def refuse(sandbox_id: str) -> Any:
        raise AssertionError("the record was read")

    bench.service._operations.ledger.repository.get = refuse  # type: ignore[method-assign]


def test_stopped_machine_is_started_and_the_command_runs(bench: Bench) -> None:
    bench.create()
    bench.world.machines[NAME].running = False
    result = bench.service.run_command(ID, "true")
    assert (result.exit_code, result.recreated) == (0, False)


def test_gone_machine_is_made_anew_under_the_next_name(bench: Bench) -> None:
    bench.create()
    bench.world.lose(NAME)
    result = bench.service.run_command(ID, "true")
    assert (result.exit_code, result.recreated) == (0, True)
    assert bench.world.running() == [f"{NAME}-g2"]
    assert bench.summary() == ("active", None, None, 2)
    assert bench.service.run_command(ID, "true").recreated is False


def test_recreation_is_reported_to_a_process_that_did_not_know_the_old_one(bench: Bench) -> None:
    bench.create()
    bench.world.lose(NAME)
    assert bench.again().run_command(ID, "true").recreated is True


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.read_file(ID, "x"),
        lambda s: s.reconnect_to_sandbox(ID),
        lambda s: s.run_command(ID, "true", on_gone="fail"),
        lambda s: s.list_commands(ID),
    ],
    ids=["read_file", "reconnect", "on_gone", "list_commands"],
)
def test_operations_that_must_not_recreate_say_gone_and_mark_it_lost(
    bench: Bench, act: Callable[[RaisingService], object]
) -> None:
    bench.create()
    bench.world.lose(NAME)
    with pytest.raises(SandboxGoneError):
        act(bench.service)
    assert bench.world.machines == {}
    assert bench.summary() == ("shutdown", "lost", None, 1)
    assert bench.service.run_command(ID, "true").recreated is True


def test_config_may_forbid_recreation(bench: Bench) -> None:
    bench.create(on_gone="fail")
    bench.world.lose(NAME)
    with pytest.raises(SandboxGoneError):
        bench.service.run_command(ID, "true")
    assert bench.world.machines == {}


def test_recreation_that_needs_secrets_is_refused_by_name(bench: Bench) -> None:
    bench.create(env={"API_KEY": "s3cr3t-value"}, memory={"secret": "hidden"})
    bench.world.lose(NAME)
    with pytest.raises(ConfigurationError, match=r"env\.API_KEY, memory\.secret"):
        bench.service.run_command(ID, "true")
    assert bench.world.machines == {}


@pytest.mark.parametrize("step", ["create", "shell"])
def test_a_secret_that_the_provider_repeats_is_neither_told_nor_stored(
    bench: Bench, step: str
) -> None:
    bench.environ["KEY"] = "s3cr3t-third"
    said = "no s3cr3t-first, s3cr3t-second, s3cr3t-third"
    bench.world.fail(step, ProviderAuthError(said, hint="not s3cr3t-first"))
    with pytest.raises(ProviderAuthError) as caught:
        bench.create(
            env={"API_KEY": "s3cr3t-first"}, env_from=["KEY"], memory={"secret": "s3cr3t-second"}
        )
    assert str(caught.value) == "no ***, ***, *** (not ***)"
    assert "s3cr3t" not in bench.record().model_dump_json()


def test_recreation_reads_env_from_again(bench: Bench) -> None:
    bench.environ["MODE"] = "first"
    bench.create(env_from=["MODE"])
    bench.environ["MODE"] = "second"
    bench.world.lose(NAME)
    result = bench.service.run_command(ID, "sh", ["-c", "echo $MODE"])
    assert (result.output, result.recreated) == ("second\n", True)


def test_failed_recreation_may_be_tried_again(bench: Bench) -> None:
    bench.create()
    bench.world.lose(NAME)
    bench.world.fail("create", ProviderAuthError("quota"))
    with pytest.raises(ProviderAuthError):
        bench.service.run_command(ID, "true")
    assert bench.summary() == ("shutdown", "lost", None, 2)
    assert bench.service.run_command(ID, "true").recreated is True
    assert bench.world.running() == [f"{NAME}-g3"]


@pytest.mark.parametrize(
    "error",
    [
        unreachable("unknown"),
        unreachable("failed"),
        ProviderTimeoutError("late", outcome="unknown"),
        ProviderAuthError("refused"),
    ],
    ids=["unknown", "refused", "timeout", "auth"],
)
def test_unreachable_is_not_gone(bench: Bench, error: BaseException) -> None:
    bench.create()
    before = bench.record()
    fresh = bench.again()
    for _ in range(50):
        bench.world.fail("shell", error)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fresh.run_command(ID, "true", timeout_s=5)
    assert not isinstance(caught.value, SandboxGoneError)
    assert bench.record() == before
    assert bench.world.running() == [NAME]


def test_gone_in_the_eyes_of_another_account_changes_nothing(bench: Bench) -> None:
    bench.create()
    before = bench.record()
    bench.world.lose(NAME)
    bench.world.account = "memory:other"
    stranger = bench.again()
    for act in (
        lambda: stranger.run_command(ID, "true"),
        lambda: stranger.reconnect_to_sandbox(ID),
        lambda: stranger.stop_sandbox(ID),
        lambda: stranger.destroy_sandbox(ID),
    ):
        with pytest.raises(WrongAccountError):
            act()
    stranger.reconcile(apply=True)
    assert bench.record() == before
    assert bench.world.machines == {}


def test_rolled_back_sandbox_gets_a_new_epoch(bench: Bench) -> None:
    bench.create()
    old = bench.state().epoch
    epoch_file = next(bench.world.machines[NAME].home.glob(".local/state/ekairos-sandbox/epoch"))
    epoch_file.write_text("0123456789abcdef\n")
    assert bench.service.run_command(ID, "true").exit_code == 0
    assert bench.state().epoch != old
    assert bench.again().run_command(ID, "true").exit_code == 0


def test_another_sandbox_under_the_name_is_not_taken_for_a_rolled_back_one(bench: Bench) -> None:
    bench.create()
    bench.service.run_command(ID, "true").check()
    epoch_file = next(bench.world.machines[NAME].home.glob(".local/state/ekairos-sandbox/epoch"))
    epoch_file.write_text("0123456789abcdef\n")
    live = bench.service._operations.cache.get(ID)
    assert live is not None
    # A connection cannot tell one from the other; the provider can, when it is asked.
    bench.world.machines[NAME].external_id = live.connection.external_id = "m99"
    assert bench.service.run_command(ID, "true").recreated


def test_what_a_connection_has_come_to_know_is_kept(bench: Bench) -> None:
    bench.create()
    live = bench.service._operations.cache.get(ID)
    assert live is not None
    bench.service._operations.keep_data(live)
    before = bench.state().rev
    live.connection.data = {**live.connection.data, "lastCheckpointId": "v3"}
    for _ in range(2):
        bench.service._operations.keep_data(live)
    assert bench.state().rev == before + 1
    kept = (bench.service.get_record(ID).params or {})["memory"]
    assert kept == {"id": "m1", "lastCheckpointId": "v3"}


# Stopping


def test_stop_is_recorded_told_and_settled(bench: Bench) -> None:
    bench.create()
    record = bench.service.stop_sandbox(ID)
    assert record.status == "shutdown"
    assert record.shutdown_at == bench.clock.now
    assert bench.summary() == ("shutdown", "requested", None, 1)
    assert bench.world.running() == []
    with pytest.raises(SandboxStoppedError):
        bench.service.run_command(ID, "true")


def test_stop_that_the_provider_was_not_told_of_is_finished_by_reconcile(bench: Bench) -> None:
    bench.create()
    bench.world.fail("stop", unreachable("unknown"))
    with pytest.raises(ProviderUnavailableError, match="the stop is recorded"):
        bench.service.stop_sandbox(ID)
    assert bench.summary() == ("shutdown", "requested", "stop", 1)
    with pytest.raises(SandboxStoppedError):
        bench.again().run_command(ID, "true")
    assert [a.kind for a in bench.service.reconcile().actions] == ["release"]
    assert bench.world.running() == [NAME]
    assert bench.service.reconcile(apply=True).errors == ()
    assert bench.world.running() == []
    assert bench.summary() == ("shutdown", "requested", None, 1)


def test_stop_again_tells_the_provider_again(bench: Bench) -> None:
    bench.create()
    bench.world.fail("stop", unreachable())
    with pytest.raises(ProviderUnavailableError):
        bench.service.stop_sandbox(ID)
    bench.service.stop_sandbox(ID)
    assert bench.world.running() == []
    calls = bench.world.calls["stop"]
    bench.service.stop_sandbox(ID)
    assert bench.world.calls["stop"] == calls


def test_destroy_that_failed_stays_a_destroy(bench: Bench) -> None:
    bench.create()
    bench.world.fail("destroy", unreachable())
    with pytest.raises(ProviderUnavailableError):
        bench.service.destroy_sandbox(ID)
    bench.service.stop_sandbox(ID)
    assert bench.world.machines == {}


def test_reconnect_starts_what_was_stopped_and_is_active_again(bench: Bench) -> None:
    bench.create()
    bench.service.stop_sandbox(ID)
    assert bench.service.reconnect_to_sandbox(ID).run_command("true").exit_code == 0
    assert bench.summary() == ("active", None, None, 1)
    assert bench.record().shutdown_at is None


def test_reconnect_never_creates(bench: Bench) -> None:
    bench.create()
    bench.service.destroy_sandbox(ID)
    with pytest.raises(SandboxGoneError):
        bench.service.reconnect_to_sandbox(ID)
    assert bench.world.machines == {}
    assert bench.record().status == "shutdown"


def test_crash_between_start_and_record_of_a_reconnect_leaves_nothing_running(
    bench: Bench,
) -> None:
    bench.create()
    bench.service.stop_sandbox(ID)
    bench.world.fail("connect", KeyboardInterrupt(), effect=True)
    with pytest.raises(KeyboardInterrupt):
        bench.service.reconnect_to_sandbox(ID)
    assert bench.world.running() == [NAME]
    bench.service.reconcile(apply=True)
    assert bench.world.running() == []


def test_stop_in_the_middle_of_a_reconnect_leaves_record_and_machine_agreeing(
    bench: Bench,
) -> None:
    bench.create()
    bench.service.stop_sandbox(ID)
    other = bench.again()
    bench.world.meanwhile("connect", lambda: other.stop_sandbox(ID))
    bench.service.reconnect_to_sandbox(ID)
    assert bench.summary() == ("active", None, None, 1)
    assert bench.world.running() == [NAME]
    other.stop_sandbox(ID)
    assert bench.world.running() == []


def test_lost_sandbox_that_is_stopped_is_never_made_anew(bench: Bench) -> None:
    bench.create()
    bench.world.lose(NAME)
    bench.service.reconcile(apply=True)
    assert bench.summary() == ("shutdown", "lost", None, 1)
    bench.service.stop_sandbox(ID)
    with pytest.raises(SandboxStoppedError):
        bench.service.run_command(ID, "true")
    assert bench.world.machines == {}


def test_lifetime_that_the_provider_does_not_enforce_is_ended_by_reconcile(bench: Bench) -> None:
    with pytest.warns(UserWarning, match="records timeout_ms"):
        bench.create(timeout_ms=60_000)
    assert bench.service.reconcile(apply=True).actions == ()
    bench.clock.advance(61)
    (action,) = bench.service.reconcile(apply=True).actions
    assert (action.kind, action.applied) == ("expired", True)
    assert bench.world.running() == []
    assert bench.summary() == ("shutdown", "expired", None, 1)
    assert bench.service.run_command(ID, "true").recreated is False


# Borrowed


def test_user_chosen_name_that_exists_is_borrowed_and_deleted_only_explicitly(
    bench: Bench,
) -> None:
    home = bench.folder / "theirs"
    home.mkdir()
    bench.world.machines["mine"] = Machine("mine", "x9", None, home)
    bench.create(memory={"name": "mine"})
    assert bench.state().borrowed is True
    bench.service.stop_sandbox(ID)
    assert list(bench.world.machines) == ["mine"]
    bench.service.reconcile(apply=True, destroy_unrecorded=True)
    assert list(bench.world.machines) == ["mine"]
    bench.service.destroy_sandbox(ID)
    assert bench.world.machines == {}


def test_failed_preparation_of_a_borrowed_sandbox_does_not_delete_it(bench: Bench) -> None:
    home = bench.folder / "theirs"
    home.mkdir()
    bench.world.machines["mine"] = Machine("mine", "x9", None, home)
    for _ in range(20):
        bench.world.fail("shell", unreachable())
    with pytest.raises(ProviderUnavailableError):
        bench.create(memory={"name": "mine"})
    assert list(bench.world.machines) == ["mine"]


# Records of other programs


def _foreign_machine(bench: Bench) -> None:
    home = bench.folder / "foreign"
    home.mkdir()
    bench.world.machines["their-name"] = Machine("their-name", "their-name", None, home)


def test_foreign_active_record_can_be_used_and_stopped(bench: Bench) -> None:
    _foreign_machine(bench)
    bench.write_record(
        status="active", externalSandboxId="their-name", params={"memory": {"x": 1}}, odd="kept"
    )
    assert bench.service.run_command(ID, "true").exit_code == 0
    assert bench.again().run_command(ID, "true").exit_code == 0
    record = bench.record()
    assert (record.ours, record.model_extra) == (False, {"odd": "kept"})
    assert record.user_params["memory"] == {"x": 1, "id": "their-name"}
    bench.service.stop_sandbox(ID)
    assert bench.record().status == "shutdown"
    assert bench.world.running() == []


def test_foreign_record_is_never_made_anew_and_not_found_changes_nothing(bench: Bench) -> None:
    bench.write_record(status="active", externalSandboxId="their-name")
    before = bench.record()
    for act in (bench.service.run_command, bench.service.reconnect_to_sandbox):
        with pytest.raises(SandboxGoneError):
            act(ID, *(["true"] if act == bench.service.run_command else []))
    assert bench.record() == before
    assert bench.world.machines == {}


def test_foreign_shutdown_record_of_a_running_sandbox_is_used(bench: Bench) -> None:
    _foreign_machine(bench)
    bench.write_record(status="shutdown", externalSandboxId="their-name", shutdownAt=5)
    assert bench.service.run_command(ID, "true").exit_code == 0
    assert bench.record().status == "active"


def test_foreign_shutdown_record_of_a_stopped_sandbox_is_stopped(bench: Bench) -> None:
    _foreign_machine(bench)
    bench.world.machines["their-name"].running = False
    bench.write_record(status="shutdown", externalSandboxId="their-name", shutdownAt=5)
    with pytest.raises(SandboxStoppedError):
        bench.service.run_command(ID, "true")
    assert bench.world.running() == []


# Reconciling


def test_reconcile_twice_is_reconcile_once(bench: Bench) -> None:
    bench.create()
    bench.world.lose(NAME)
    assert [a.kind for a in bench.service.reconcile(apply=True).actions] == ["lost"]
    assert bench.service.reconcile(apply=True).actions == ()


def test_reconcile_without_apply_changes_nothing(bench: Bench) -> None:
    bench.create()
    bench.world.lose(NAME)
    before = bench.record()
    (action,) = bench.service.reconcile().actions
    assert (action.kind, action.applied, action.error) == ("lost", False, None)
    assert bench.record() == before


def test_sandbox_without_a_record_is_reported_and_destroyed_only_when_told(bench: Bench) -> None:
    bench.create()
    owner = bench.state().owner
    stray = Tags(owner, "00000000-0000-4000-8000-000000000000", 1)
    provider = MemoryProvider(bench.world, ProviderContext(clock=bench.clock))
    provider.create(CreateSpec("stray", stray, MemoryOptions(), 10))
    assert [(a.kind, a.applied) for a in bench.service.reconcile(apply=True).actions] == [
        ("unrecorded", False)
    ]
    assert bench.world.running() == [NAME, "stray"]
    bench.service.reconcile(apply=True, destroy_unrecorded=True)
    assert bench.world.running() == [NAME]


def test_sandboxes_of_others_are_never_touched(bench: Bench) -> None:
    bench.create()
    provider = MemoryProvider(bench.world)
    foreign = Tags("f" * 16, ID, 1)
    provider.create(CreateSpec("another-app", foreign, MemoryOptions(), 10))
    assert bench.service.reconcile(apply=True, destroy_unrecorded=True).actions == ()
    assert bench.world.running() == ["another-app", NAME]


def test_superseded_incarnation_that_shows_up_late_is_destroyed(bench: Bench) -> None:
    bench.create()
    owner = bench.state().owner
    bench.world.lose(NAME)
    bench.service.run_command(ID, "true")
    provider = MemoryProvider(bench.world)
    provider.create(CreateSpec(NAME, Tags(owner, ID, 1), MemoryOptions(), 10))
    (action,) = bench.service.reconcile(apply=True).actions
    assert (action.kind, action.applied) == ("superseded", True)
    assert bench.world.running() == [f"{NAME}-g2"]


def test_stopped_sandbox_that_runs_all_the_same_is_stopped(bench: Bench) -> None:
    bench.create()
    bench.service.stop_sandbox(ID)
    bench.world.machines[NAME].running = True
    (action,) = bench.service.reconcile(apply=True).actions
    assert (action.kind, action.applied) == ("release", True)
    assert bench.world.running() == []


def test_listing_that_fails_acts_on_nothing_of_that_provider(bench: Bench) -> None:
    bench.create()
    bench.world.fail("stop", unreachable())
    with pytest.raises(ProviderUnavailableError):
        bench.service.stop_sandbox(ID)
    bench.world.fail("list", unreachable())
    before = bench.record()
    (action,) = bench.service.reconcile(apply=True).actions
    assert (action.kind, action.provider) == ("skipped", "memory")
    assert bench.record() == before
    assert bench.world.running() == [NAME]


def test_unreachable_provider_is_not_a_lost_sandbox(bench: Bench) -> None:
    bench.create()
    bench.world.fail("inspect", unreachable("unknown"))
    assert bench.service.reconcile(apply=True).actions == ()
    assert bench.summary() == ("active", None, None, 1)


def test_copied_record_file_may_be_looked_at_but_not_acted_on(bench: Bench) -> None:
    bench.create()
    bench.world.lose(NAME)
    for service in bench.opened:
        service.close()
    copy = bench.folder / "copy.db"
    copy.write_bytes((bench.folder / "records.db").read_bytes())
    repository = SqliteSandboxRepository(copy)
    service = SandboxService(repository, clock=bench.clock, providers=[MemoryProvider(bench.world)])
    bench.opened.append(service)
    assert [a.kind for a in service.raising.reconcile().actions] == ["lost"]
    with pytest.raises(SchemaError, match="copied or moved"):
        service.raising.reconcile(apply=True)
    assert service.raising.get_record(ID).status == "active"
    repository.rekey(copied=False)
    assert service.raising.reconcile(apply=True).errors == ()


def test_two_reconcilers_at_once_do_no_harm(bench: Bench) -> None:
    bench.create()
    bench.world.fail("stop", unreachable())
    with pytest.raises(ProviderUnavailableError):
        bench.service.stop_sandbox(ID)
    other = bench.again()
    bench.world.meanwhile("stop", lambda: other.reconcile(apply=True))
    assert bench.service.reconcile(apply=True).errors == ()
    assert bench.world.running() == []
    assert bench.summary() == ("shutdown", "requested", None, 1)


def test_reconcile_tells_observers(bench: Bench) -> None:
    class Observer:
        seen: ClassVar[list[int]] = []

        @hookimpl
        def ekairos_sandbox_reconciled(self, report: ReconcileReport) -> None:
            self.seen.append(len(report.actions))

    bench.service._operations.ledger.registry.register_observer(Observer())
    bench.create()
    bench.service.reconcile()
    assert Observer.seen == [0]
