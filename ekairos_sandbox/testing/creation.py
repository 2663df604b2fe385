"""Creating: idempotent by name and tags, found again, never somebody else's."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ekairos_sandbox.exceptions import (
    FieldNotEnforcedWarning,
    IdConflictError,
    ProviderError,
    SandboxGoneError,
    UnsupportedOperationError,
)
from ekairos_sandbox.provider import Connection, CreateSpec, Provider, SandboxRef, Tags
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.redaction import known_secrets
from ekairos_sandbox.testing.base import Lab, Suite, sh
from ekairos_sandbox.testing.faults import Faults, faulty, refused

Made = tuple[CreateSpec[Any], Connection]

FIELDS: dict[str, Any] = {
    "timeout_ms": 600_000,
    "vcpus": 1,
    "runtime": "python3",
    "ports": (8080,),
}


class CreationSuite(Suite):
    """What ``Provider.create``, ``find``, ``list_owned`` and ``inspect`` promise."""

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, lab: Lab) -> Iterator[Made]:
        """A sandbox that was made by the provider alone, without a record."""
        spec = lab.spec()
        connection = lab.provider.create(spec)
        yield spec, connection
        connection.close()

    def test_account_is_stable_text(self, provider: Provider[Any]) -> None:
        account = provider.account()
        assert account
        assert account == provider.account()

    def test_a_created_sandbox_runs_scripts_at_once(self, made: Made) -> None:
        _, connection = made
        assert connection.ownership == "created"
        assert connection.external_id
        assert b"<hello>" in connection.shell(b"echo '<hello>'", timeout_s=30, max_bytes=65536)

    def test_creating_twice_adopts_the_first(self, lab: Lab, made: Made) -> None:
        spec, connection = made
        again = lab.provider.create(spec)
        assert (again.external_id, again.ownership) == (connection.external_id, "adopted")
        again.close()

    def test_creating_at_once_from_two_threads_makes_one(self, lab: Lab) -> None:
        spec = lab.spec()
        ids: list[str] = []

        def create() -> None:
            ids.append(lab.provider.create(spec).external_id)

        threads = [threading.Thread(target=create) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 2
        assert len(set(ids)) == 1
        lab.provider.destroy(lab.ref_of(spec))
        lab.until(lambda: ids[0] not in lab.owned(), "the only sandbox to be gone")
        assert lab.provider.find(spec.name) is None

    @pytest.mark.parametrize("changed", ["owner", "sandbox_id", "incarnation"])
    def test_a_name_with_other_tags_is_a_conflict(self, lab: Lab, made: Made, changed: str) -> None:
        spec, connection = made
        tags = _other_tags(spec.tags)[changed]
        with pytest.raises(IdConflictError):
            lab.provider.create(replace(spec, tags=tags))
        found = lab.provider.find(spec.name)
        assert found is not None
        assert (found.external_id, found.tags) == (connection.external_id, spec.tags)

    def test_a_chosen_name_with_the_tags_of_another_record_is_a_conflict(
        self, lab: Lab, made: Made
    ) -> None:
        spec, _ = made
        other = Tags(spec.tags.owner, str(uuid.uuid4()), 1)
        with pytest.raises(IdConflictError):
            lab.provider.create(replace(spec, tags=other, user_chosen_name=True))

    def test_find_tells_id_tags_and_state(self, lab: Lab, made: Made) -> None:
        spec, connection = made
        found = lab.provider.find(spec.name)
        assert found is not None
        assert found.name == spec.name
        assert found.external_id == connection.external_id
        assert found.tags == spec.tags
        assert found.state == "running"

    def test_find_of_an_unknown_name_is_none(self, lab: Lab) -> None:
        assert lab.provider.find(f"ekairos-{uuid.uuid4()}") is None

    def test_inspect_says_what_find_says(self, lab: Lab, made: Made) -> None:
        spec, connection = made
        info = lab.provider.inspect(lab.ref_of(spec, connection))
        assert (info.external_id, info.tags) == (connection.external_id, spec.tags)
        assert info.state == "running"

    def test_inspect_and_connect_without_the_external_id_find_it_by_name(
        self, lab: Lab, made: Made
    ) -> None:
        spec, connection = made
        ref = replace(lab.ref_of(spec), options=None)
        assert lab.provider.inspect(ref).external_id == connection.external_id
        assert lab.provider.connect(ref).external_id == connection.external_id

    def test_list_owned_yields_every_sandbox_with_the_owner_tag(
        self, lab: Lab, made: Made, shared: RaisingSandbox
    ) -> None:
        second = lab.provider.create(lab.spec())
        expected = {
            made[1].external_id,
            second.external_id,
            str(shared.record().external_sandbox_id),
        }
        lab.until(lambda: expected <= lab.owned(), "all sandboxes to be listed")
        infos = {info.external_id: info for info in lab.provider.list_owned(lab.owner)}
        assert infos[made[1].external_id].tags == made[0].tags
        assert infos[made[1].external_id].name == made[0].name

    def test_list_owned_of_another_owner_is_empty(self, lab: Lab, made: Made) -> None:
        assert list(lab.provider.list_owned("0123456789abcdef")) == []

    def test_another_external_id_under_the_name_is_gone_and_not_touched(
        self, lab: Lab, made: Made
    ) -> None:
        spec, connection = made
        ref = replace(lab.ref_of(spec, connection), external_id=f"{connection.external_id[:-1]}~")
        self._assert_gone_and_not_touched(lab, made, ref)

    @pytest.mark.parametrize("changed", ["owner", "sandbox_id", "incarnation"])
    def test_other_tags_under_the_name_are_gone_and_not_touched(
        self, lab: Lab, made: Made, changed: str
    ) -> None:
        ref = replace(lab.ref_of(made[0]), tags=_other_tags(made[0].tags)[changed])
        self._assert_gone_and_not_touched(lab, made, ref)

    def test_a_name_is_not_found_by_a_part_of_it(self, lab: Lab, made: Made) -> None:
        name = made[0].name
        for other in (name[:-1], name[1:], f"{name}-g2"):
            assert lab.provider.find(other) is None
        self._assert_gone_and_not_touched(lab, made, SandboxRef(name[:-1]))

    def test_the_time_of_creation_is_in_milliseconds(self, lab: Lab) -> None:
        before = time.time_ns() // 1_000_000
        spec = lab.spec()
        lab.provider.create(spec).close()
        found = lab.provider.find(spec.name)
        assert found is not None
        if found.created_at is None:
            pytest.skip("the provider does not say when a sandbox was made")
        assert abs(found.created_at - before) < 3_600_000

    def test_no_secret_is_part_of_what_is_shown_or_recorded(
        self, lab: Lab, made: Made, provider: Provider[Any]
    ) -> None:
        spec, connection = made
        secrets = known_secrets(provider.context.environ)
        if not secrets:
            pytest.skip("nothing in the provider's environment has the name of a secret")
        shown = [
            *(provider.account(), repr(provider), repr(connection)),
            *(connection.external_id, connection.url, connection.data, provider.find(spec.name)),
        ]
        # A report of pytest shows what was compared.
        assert [n for n, text in enumerate(shown) if any(s in str(text) for s in secrets)] == []

    def test_what_never_existed_is_gone_and_stops_without_error(self, lab: Lab) -> None:
        ref = lab.ref_of(lab.spec())
        with pytest.raises(SandboxGoneError):
            lab.provider.connect(ref)
        with pytest.raises(SandboxGoneError):
            lab.provider.inspect(ref)
        lab.provider.stop(ref)
        lab.provider.destroy(ref)
        assert lab.provider.find(ref.name) is None

    def test_the_same_id_creates_once(self, lab: Lab) -> None:
        chosen = str(uuid.uuid4()).upper()
        first = lab.create(sandbox_id=chosen)
        external_id = first.record().external_sandbox_id
        again = lab.create(lab.service(), sandbox_id=chosen)
        assert again.sandbox_id == chosen.lower()
        assert again.record().external_sandbox_id == external_id
        with pytest.raises(IdConflictError):
            lab.create(sandbox_id=chosen, on_gone="fail")
        assert sh(again, "true").exit_code == 0

    @pytest.mark.parametrize("field", list(FIELDS))
    def test_a_config_field_is_refused_or_warned_of_before_any_call(
        self, lab: Lab, field: str
    ) -> None:
        options = lab.provider.options_model.model_validate(dict(self.options))
        support = dict(type(lab.provider).field_support(options))
        level = support[field].level if field in support else "recorded"
        if level == "enforced":
            pytest.skip(f"the provider says that it enforces {field}")
        value = {"resources": {"vcpus": 1}} if field == "vcpus" else {field: FIELDS[field]}
        faults = Faults()
        faults.always(refused)
        service = lab.service(faulty(lab.provider, faults))
        if level == "refused":
            with pytest.raises(UnsupportedOperationError):
                lab.create(service, **value)
            assert set(faults.calls) <= {"account"}
        else:
            with (
                pytest.warns(FieldNotEnforcedWarning, match=field),
                pytest.raises(ProviderError),
            ):
                lab.create(service, **value)

    def test_a_chosen_name_is_the_provider_side_name(self, lab: Lab) -> None:
        name = self._chosen(lab)
        sandbox = lab.create(options=self.named_options(name))
        found = lab.provider.find(name)
        assert found is not None
        assert found.external_id == sandbox.record().external_sandbox_id
        with pytest.raises(IdConflictError):
            lab.create(options=self.named_options(name))
        assert sh(sandbox, "true").exit_code == 0

    def test_a_sandbox_without_our_tags_is_borrowed_and_never_deleted_unasked(
        self, lab: Lab, make_untagged: Callable[[str], None] | None
    ) -> None:
        if make_untagged is None:
            pytest.skip("this class does not say how to make a sandbox without our tags")
        name = self._chosen(lab)
        make_untagged(name)
        try:
            before = lab.provider.find(name)
            assert before is not None
            assert before.tags is None
            sandbox = lab.create(options=self.named_options(name))
            state = sandbox.record().state
            assert state is not None
            assert state.borrowed
            assert sandbox.record().external_sandbox_id == before.external_id
            assert sh(sandbox, "true").exit_code == 0
            sandbox.stop()
            after = lab.provider.find(name)
            assert after is not None
            assert after.external_id == before.external_id
            sandbox.destroy()
            lab.until(lambda: lab.provider.find(name) is None, "it to be deleted on demand")
        finally:
            lab.provider.destroy(SandboxRef(name))

    def test_without_a_name_of_the_users_choice_nothing_is_borrowed(
        self, lab: Lab, make_untagged: Callable[[str], None] | None
    ) -> None:
        if make_untagged is None:
            pytest.skip("this class does not say how to make a sandbox without our tags")
        spec = lab.spec()
        make_untagged(spec.name)
        try:
            with pytest.raises(IdConflictError):
                lab.provider.create(spec)
            assert lab.provider.find(spec.name) is not None
        finally:
            lab.provider.destroy(SandboxRef(spec.name))

    def _assert_gone_and_not_touched(self, lab: Lab, made: Made, ref: SandboxRef[Any]) -> None:
        """A reference that means another sandbox does nothing to this one."""
        spec, connection = made
        for look in (lab.provider.inspect, lab.provider.connect):
            with pytest.raises(SandboxGoneError):
                look(ref)
        lab.provider.stop(ref)
        lab.provider.destroy(ref)
        assert lab.provider.inspect(lab.ref_of(spec, connection)).state == "running"

    def _chosen(self, lab: Lab) -> str:
        """Return a new name for a user to choose, or skip."""
        name = f"conformance-{uuid.uuid4().hex[:12]}"
        options = self.named_options(name)
        if "name" not in lab.provider.options_model.model_fields or options is None:
            pytest.skip("the provider has no names of the user's choice")
        return name


def _other_tags(tags: Tags) -> dict[str, Tags]:
    """Tags with one of them changed, by its name."""
    return {
        "owner": replace(tags, owner="0123456789abcdef"),
        "sandbox_id": replace(tags, sandbox_id=str(uuid.uuid4())),
        "incarnation": replace(tags, incarnation=2),
    }
