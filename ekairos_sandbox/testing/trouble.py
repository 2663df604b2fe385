"""Gone, unreachable, another account, rolled back: four things that must never be confused."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ekairos_sandbox.exceptions import (
    CommandNotFoundError,
    ConfigurationError,
    OutcomeUnknownError,
    ProviderError,
    ProviderUnavailableError,
    SandboxGoneError,
    WrongAccountError,
)
from ekairos_sandbox.provider import Provider
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.testing.base import Lab, Suite, home_of, sh
from ekairos_sandbox.testing.faults import (
    Fault,
    Faults,
    HastyClock,
    answering,
    faulty,
    lost_before,
    raising,
    refused,
)


class TroubleSuite(Suite):
    """What is done about a sandbox that cannot be used as it was."""

    def test_a_gone_sandbox_is_made_anew_by_a_command(self, lab: Lab) -> None:
        environ = {"CONFORMANCE_FROM": "taken again"}
        service = lab.service(environ=environ)
        sandbox = lab.create(service, env_from=("CONFORMANCE_FROM",))
        sandbox.write_files({"old": b""})
        before = sandbox.record()
        lab.lose(sandbox)
        result = sh(sandbox, 'echo "$CONFORMANCE_FROM"; ls "$HOME"')
        assert (result.exit_code, result.recreated) == (0, True)
        assert result.output.startswith("taken again\n")
        assert "old" not in result.output.splitlines()
        after = sandbox.record()
        assert after.status == "active"
        assert lab.ref(after).name == f"{lab.ref(before).name}-g2"
        assert after.state is not None
        assert after.state.incarnation == 2
        assert after.external_sandbox_id in lab.owned()
        assert not sh(sandbox, "true").recreated

    def test_a_new_service_makes_a_gone_sandbox_anew(self, lab: Lab) -> None:
        sandbox = lab.create()
        lab.lose(sandbox)
        again = lab.service().get_sandbox(sandbox.sandbox_id)
        result = sh(again, "echo fresh")
        assert (result.output, result.recreated) == ("fresh\n", True)
        assert sh(sandbox, "echo same").output == "same\n"
        assert sandbox.record().external_sandbox_id in lab.owned()

    def test_reading_never_makes_a_gone_sandbox_anew(self, lab: Lab) -> None:
        sandbox = lab.create()
        lab.lose(sandbox)
        with pytest.raises(SandboxGoneError):
            sandbox.read_file("anything")
        with pytest.raises(SandboxGoneError):
            sandbox.reconnect()
        with pytest.raises(SandboxGoneError):
            sh(sandbox, "true", on_gone="fail")
        record = sandbox.record()
        assert record.status == "shutdown"
        assert record.state is not None
        assert (record.state.stop, record.state.incarnation) == ("lost", 1)
        assert lab.provider.find(lab.ref(record).name) is None
        assert lab.provider.find(f"{lab.ref(record).name}-g2") is None
        assert sh(sandbox, "true").recreated

    def test_a_sandbox_with_on_gone_fail_is_never_made_anew(self, lab: Lab) -> None:
        sandbox = lab.create(on_gone="fail")
        lab.lose(sandbox)
        with pytest.raises(SandboxGoneError):
            sh(sandbox, "true")
        assert lab.provider.find(f"{lab.ref(sandbox.record()).name}-g2") is None

    def test_a_sandbox_with_secrets_is_not_made_anew_and_the_error_names_them(
        self, lab: Lab
    ) -> None:
        sandbox = lab.create(env={"API_KEY": "secret-7d3f"})
        lab.lose(sandbox)
        with pytest.raises(ConfigurationError, match=r"env\.API_KEY") as caught:
            sh(sandbox, "true")
        assert "secret-7d3f" not in str(caught.value)
        assert lab.provider.find(f"{lab.ref(sandbox.record()).name}-g2") is None

    @pytest.mark.parametrize("fault", [refused, lost_before])
    def test_an_unreachable_provider_changes_nothing(
        self, lab: Lab, shared: RaisingSandbox, fault: Fault
    ) -> None:
        before = shared.record()
        owned = lab.owned()
        faults = Faults()
        service = lab.service(faulty(lab.provider, faults), clock=HastyClock())
        cold = service.get_sandbox(shared.sandbox_id)
        faults.always(fault)
        for act in (cold.reconnect, lambda: sh(cold, "true"), lambda: cold.read_file("x")):
            with pytest.raises((ProviderError, OutcomeUnknownError)) as caught:
                act()
            assert not isinstance(caught.value, SandboxGoneError)
        faults.clear()
        assert sh(cold, "echo warm").output == "warm\n"
        faults.always(fault)
        with pytest.raises((ProviderError, OutcomeUnknownError)) as caught:
            sh(cold, "true")
        assert not isinstance(caught.value, SandboxGoneError)
        assert set(faults.calls) <= {"account", "attach", "connect", "shell"}
        assert shared.record() == before
        assert lab.owned() == owned
        faults.clear()
        assert sh(cold, "echo back").output == "back\n"

    def test_a_provider_that_cannot_be_reached_never_says_gone(
        self,
        lab: Lab,
        shared: RaisingSandbox,
        unreachable: Callable[[], AbstractContextManager[None]] | None,
    ) -> None:
        if unreachable is None:
            pytest.skip("this class does not say how to make the provider unreachable")
        before = shared.record()
        ref = lab.ref(before)
        connection = lab.connect(shared)
        with unreachable():
            for act in (
                lambda: lab.provider.connect(ref),
                lambda: lab.provider.inspect(ref),
                lambda: lab.provider.find(ref.name),
                lambda: list(lab.provider.list_owned(lab.owner)),
                lambda: lab.provider.stop(ref),
                lambda: lab.provider.destroy(ref),
                lambda: connection.shell(b"true", timeout_s=10, max_bytes=65536),
            ):
                with pytest.raises(ProviderError) as caught:
                    act()
                assert not isinstance(caught.value, SandboxGoneError)
        assert sh(shared, "echo back").output == "back\n"
        assert shared.record() == before

    def test_the_credentials_of_another_account_change_nothing(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        faults = Faults()
        faults.always(answering("https://another.example/account"), "account")
        self._assert_refused(lab, shared, faulty(lab.provider, faults))
        assert set(faults.calls) == {"account"}

    def test_another_account_of_the_provider_sees_nothing_of_ours(
        self, lab: Lab, shared: RaisingSandbox, other_account: Provider[Any] | None
    ) -> None:
        if other_account is None:
            pytest.skip("this class offers no provider with another account")
        assert other_account.account() != lab.provider.account()
        assert other_account.find(lab.ref(shared.record()).name) is None
        assert list(other_account.list_owned(lab.owner)) == []
        self._assert_refused(lab, shared, other_account)

    def _assert_refused(self, lab: Lab, shared: RaisingSandbox, provider: Provider[Any]) -> None:
        before = shared.record()
        foreign = lab.service(provider).get_sandbox(shared.sandbox_id)
        for act in (
            lambda: sh(foreign, "true"),
            lambda: foreign.read_file("x"),
            foreign.reconnect,
            foreign.stop,
            foreign.destroy,
        ):
            with pytest.raises(WrongAccountError):
                act()
        assert shared.record() == before
        assert sh(shared, "echo fine").output == "fine\n"

    def test_files_that_were_rolled_back_are_noticed_and_healed(self, lab: Lab) -> None:
        faults = Faults()
        service = lab.service(faulty(lab.provider, faults))
        sandbox = lab.create(service, env={"KEPT": "yes"})
        old = sandbox.start_command("true")
        old.wait(60)
        root = f"{home_of(sandbox)}/.local/state/ekairos-sandbox"
        script = f"rm -rf '{root}'/jobs/*; echo another-epoch >'{root}/epoch'"
        lab.connect(sandbox).shell(script.encode(), timeout_s=30, max_bytes=65536)
        before = sandbox.record()
        result = sh(sandbox, 'echo x >>"$HOME/count"; cat "$HOME/count"; echo $KEPT')
        assert (result.output, result.recreated) == ("x\nyes\n", False)
        after = sandbox.record()
        assert before.state is not None
        assert after.state is not None
        assert after.state.incarnation == 1
        assert after.state.epoch != before.state.epoch
        assert sandbox.read_file(f"{root}/epoch").decode().strip() == after.state.epoch
        with pytest.raises(CommandNotFoundError):
            old.wait(5)
        other = lab.service().get_sandbox(sandbox.sandbox_id)
        assert sh(other, "echo on").output == "on\n"

    def test_reconcile_reports_what_has_no_record_and_destroys_it_only_on_demand(
        self, lab: Lab, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        store = tmp_path_factory.mktemp("other-store") / "records.db"
        service = lab.service(store=store)
        kept = lab.create(service)
        state = kept.record().state
        assert state is not None
        spec = lab.spec()
        spec = lab.spec(
            name=spec.name,
            tags=type(spec.tags)(state.owner, spec.tags.sandbox_id, 1),
        )
        external_id = lab.provider.create(spec).external_id
        lab.until(lambda: external_id in lab.owned(state.owner), "it to be listed")
        name = lab.provider.name
        for apply in (False, True):
            report = service.reconcile(apply=apply, providers=[name])
            assert [(a.kind, a.external_id, a.applied) for a in report.actions] == [
                ("unrecorded", external_id, False)
            ]
        assert lab.provider.find(spec.name) is not None
        report = service.reconcile(apply=True, destroy_unrecorded=True, providers=[name])
        assert [(a.kind, a.external_id, a.applied) for a in report.actions] == [
            ("unrecorded", external_id, True)
        ]
        lab.until(lambda: lab.provider.find(spec.name) is None, "it to be gone")
        assert sh(kept, "echo kept").output == "kept\n"

    def test_reconcile_marks_as_lost_what_is_gone(
        self, lab: Lab, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        service = lab.service(store=tmp_path_factory.mktemp("other-store") / "records.db")
        sandbox = lab.create(service)
        lab.lose(sandbox)
        report = service.reconcile(apply=True)
        assert [(a.kind, a.sandbox_id, a.applied) for a in report.actions] == [
            ("lost", sandbox.sandbox_id, True)
        ]
        record = sandbox.record()
        assert record.state is not None
        assert (record.status, record.state.stop) == ("shutdown", "lost")

    def test_an_unreachable_provider_is_no_reason_for_reconcile_to_act(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        before = shared.record()
        faults = Faults()
        faults.always(raising(lambda: ProviderUnavailableError("HTTP 503", status=503)))
        service = lab.service(faulty(lab.provider, faults), clock=HastyClock())
        report = service.reconcile(apply=True)
        assert [(a.kind, a.applied) for a in report.actions] == [("skipped", False)]
        assert shared.record() == before
