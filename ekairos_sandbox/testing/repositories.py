"""What every record store does alike."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    SchemaError,
)
from ekairos_sandbox.models import RecordQuery, SandboxRecord
from ekairos_sandbox.repository.base import SandboxRepository

T0 = 1_700_000_000_000


def new_record(**fields: Any) -> SandboxRecord:
    """Return a record that is in no store yet."""
    params = fields.pop("params", {"ekairos": {"v": 1, "rev": 0, "name": "n"}})
    return SandboxRecord(
        **{
            "id": str(uuid.uuid4()),
            "provider": "folder",
            "status": "creating",
            "created_at": T0,
            "params": params,
            **fields,
        }
    )


class RepositoryConformance:
    """Subclass it and give a fixture ``repository``: an empty store.

    The fixture may have any scope: the tests look at their own records only, by their purpose.
    """

    @pytest.fixture
    def break_record(self) -> Callable[[str], None] | None:
        """Damages the stored record of this id; None skips what needs that."""
        return None

    def test_the_owner_is_16_hexadecimal_digits_and_stays(
        self, repository: SandboxRepository
    ) -> None:
        owner = repository.owner
        assert len(owner) == 16
        assert set(owner) <= set("0123456789abcdef")
        repository.close()
        assert repository.owner == owner

    def test_a_created_record_is_read_back_as_it_was(self, repository: SandboxRepository) -> None:
        record = new_record(
            external_sandbox_id="ext-1",
            sandbox_url="https://x.example/",
            timeout=60_000,
            runtime="python3.12",
            vcpus=0.5,
            ports=[80, 8080],
            purpose="línea 漢字 \U0001f600",
            params={"ekairos": {"v": 1, "rev": 0}, "mine": {"a": [1, None, True, 0.25, ""]}},
            updated_at=T0 + 1,
            shutdown_at=T0 + 2,
        )
        assert repository.create(record) == record
        assert repository.get(record.id) == record

    def test_absent_attributes_stay_absent(self, repository: SandboxRepository) -> None:
        record = new_record()
        repository.create(record)
        wire = repository.get(record.id).wire()
        assert sorted(wire) == ["createdAt", "id", "params", "provider", "status"]

    def test_an_id_is_taken_once(self, repository: SandboxRepository) -> None:
        record = new_record(purpose="first")
        repository.create(record)
        with pytest.raises(IdConflictError):
            repository.create(new_record(id=record.id, purpose="second"))
        assert repository.get(record.id).purpose == "first"

    def test_a_missing_record_is_not_found(self, repository: SandboxRepository) -> None:
        missing = str(uuid.uuid4())
        with pytest.raises(RecordNotFoundError) as caught:
            repository.get(missing)
        assert isinstance(caught.value, LookupError)
        with pytest.raises(RecordNotFoundError):
            repository.transition(missing, 0, {"status": "active"})

    def test_a_transition_changes_what_it_names_and_nothing_else(
        self, repository: SandboxRepository
    ) -> None:
        record = repository.create(new_record(purpose="kept", timeout=5000, ports=[1]))
        changed = repository.transition(
            record.id,
            0,
            {"status": "active", "external_sandbox_id": "ext", "updated_at": T0 + 5},
        )
        assert repository.get(record.id) == changed
        assert changed.rev == 1
        assert (changed.status, changed.external_sandbox_id) == ("active", "ext")
        assert (changed.purpose, changed.timeout, changed.ports) == ("kept", 5000, [1])
        assert (changed.created_at, changed.updated_at) == (T0, T0 + 5)
        assert (changed.params or {})["ekairos"] == {"v": 1, "rev": 1, "name": "n"}

    def test_a_transition_can_remove_attributes(self, repository: SandboxRepository) -> None:
        record = repository.create(new_record(external_sandbox_id="ext", shutdown_at=T0))
        repository.transition(record.id, 0, {"external_sandbox_id": None, "shutdown_at": None})
        stored = repository.get(record.id)
        assert (stored.external_sandbox_id, stored.shutdown_at) == (None, None)
        assert "externalSandboxId" not in stored.wire()

    def test_params_are_replaced_as_a_whole(self, repository: SandboxRepository) -> None:
        record = repository.create(
            new_record(params={"ekairos": {"v": 1, "rev": 0}, "a": {"b": 1}})
        )
        repository.transition(record.id, 0, {"params": {"ekairos": {"v": 1}, "c": 2}})
        assert repository.get(record.id).params == {"ekairos": {"v": 1, "rev": 1}, "c": 2}

    def test_a_transition_from_another_revision_is_a_conflict_and_changes_nothing(
        self, repository: SandboxRepository
    ) -> None:
        record = repository.create(new_record())
        current = repository.transition(record.id, 0, {"status": "active"})
        for wrong in (0, 2, 7):
            with pytest.raises(RecordConflictError):
                repository.transition(record.id, wrong, {"status": "error"})
        assert repository.get(record.id) == current

    def test_a_record_of_another_program_begins_at_revision_0(
        self, repository: SandboxRepository
    ) -> None:
        record = repository.create(new_record(params={"sprites": {"id": "s"}}))
        assert record.rev == 0
        changed = repository.transition(record.id, 0, {"status": "shutdown"})
        assert changed.rev == 1
        assert (changed.params or {})["sprites"] == {"id": "s"}
        record = repository.create(new_record(params=None))
        assert repository.transition(record.id, 0, {"status": "shutdown"}).rev == 1

    def test_of_simultaneous_transitions_exactly_one_wins_each_revision(
        self, repository: SandboxRepository
    ) -> None:
        record = repository.create(new_record())
        wins: list[tuple[int, int]] = []

        def change(number: int) -> None:
            for _ in range(5):
                seen = repository.get(record.id)
                params = {**(seen.params or {}), "by": number}
                try:
                    changed = repository.transition(record.id, seen.rev, {"params": params})
                except RecordConflictError:
                    continue
                wins.append((changed.rev, number))

        threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        final = repository.get(record.id)
        assert sorted(rev for rev, _ in wins) == list(range(1, final.rev + 1))
        assert final.rev >= 5
        assert (final.params or {})["by"] == dict(wins)[final.rev]

    def test_of_simultaneous_creations_of_one_id_exactly_one_wins(
        self, repository: SandboxRepository
    ) -> None:
        chosen = str(uuid.uuid4())
        winners: list[int] = []

        def create(number: int) -> None:
            try:
                repository.create(new_record(id=chosen, timeout=number + 1))
            except IdConflictError:
                return
            winners.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        assert repository.get(chosen).timeout == winners[0] + 1

    def test_unknown_attributes_and_keys_survive(self, repository: SandboxRepository) -> None:
        state = {"v": 1, "rev": 0, "name": "n", "later": {"x": [1]}}
        record = SandboxRecord.model_validate(
            {
                "id": str(uuid.uuid4()),
                "provider": "folder",
                "status": "creating",
                "createdAt": T0,
                "params": {"ekairos": state, "other": 1},
            }
        )
        repository.create(record)
        changed = repository.transition(record.id, 0, {"status": "active"})
        assert (changed.params or {})["ekairos"] == {**state, "rev": 1}
        assert (repository.get(record.id).params or {})["other"] == 1

    def test_an_unknown_status_can_be_read(self, repository: SandboxRepository) -> None:
        record = repository.create(new_record(status="hibernating"))
        assert repository.get(record.id).status == "hibernating"

    def test_an_id_is_taken_in_any_case(self, repository: SandboxRepository) -> None:
        upper = str(uuid.uuid4()).upper()
        made = repository.create(new_record(id=upper))
        assert made.id == upper.lower()
        assert repository.get(upper) == made == repository.get(upper.lower())
        assert repository.transition(upper, 0, {"status": "active"}).id == upper.lower()
        repository.delete(upper)
        with pytest.raises(RecordNotFoundError):
            repository.get(upper.lower())

    def test_uuid_texts_are_lower_case_in_every_attribute(
        self, repository: SandboxRepository
    ) -> None:
        upper = str(uuid.uuid4()).upper()
        made = repository.create(new_record(external_sandbox_id=upper, purpose=upper))
        assert made == repository.get(made.id)
        assert (made.external_sandbox_id, made.purpose) == (upper.lower(), upper.lower())
        changed = repository.transition(made.id, 0, {"external_sandbox_id": upper})
        assert changed == repository.get(made.id)
        assert changed.external_sandbox_id == upper.lower()
        found = repository.list(RecordQuery(purpose=upper)).records
        assert [record.id for record in found] == [made.id]

    def test_uuid_texts_in_params_are_lower_case_wherever_they_stand(
        self, repository: SandboxRepository
    ) -> None:
        upper = "6F1D7C2E-0C1A-4F5E-9D55-1F0D3A7B9C21"
        params = {"ekairos": {"v": 1, "rev": 0}, "a": [upper, f"x{upper}"], upper: 1}
        expected = {
            "ekairos": {"v": 1, "rev": 0},
            "a": [upper.lower(), f"x{upper}"],
            upper.lower(): 1,
        }
        record = repository.create(new_record(params=params))
        assert record.params == expected
        assert repository.get(record.id).params == expected
        changed = repository.transition(record.id, 0, {"params": params})
        assert (changed.params or {})["a"] == [upper.lower(), f"x{upper}"]
        assert repository.get(record.id) == changed

    def test_large_params_survive(self, repository: SandboxRepository) -> None:
        params = {"ekairos": {"v": 1, "rev": 0}, "big": "é" * 200_000}
        record = repository.create(new_record(params=params))
        assert (repository.get(record.id).params or {})["big"] == "é" * 200_000

    def test_pages_are_newest_first_and_miss_or_repeat_nothing(
        self, repository: SandboxRepository
    ) -> None:
        purpose = uuid.uuid4().hex
        # Two of each time: the order within one time must not lose any at a page's end.
        made = [
            repository.create(new_record(purpose=purpose, created_at=T0 + number // 2)).id
            for number in range(11)
        ]
        seen: list[SandboxRecord] = []
        query, pages = RecordQuery(purpose=purpose, limit=3), 0
        while True:
            page = repository.list(query)
            assert len(page.records) <= 3
            seen += page.records
            pages += 1
            if page.cursor is None:
                break
            query = RecordQuery(purpose=purpose, limit=3, cursor=page.cursor)
        assert pages == 4
        assert sorted(record.id for record in seen) == sorted(made)
        times = [record.created_at for record in seen]
        assert times == sorted(times, reverse=True)
        listed = repository.iterate(RecordQuery(purpose=purpose, limit=2))
        assert [record.id for record in listed] == [record.id for record in seen]

    def test_a_page_that_is_just_full_is_the_last(self, repository: SandboxRepository) -> None:
        purpose = uuid.uuid4().hex
        for number in range(3):
            repository.create(new_record(purpose=purpose, created_at=T0 + number))
        page = repository.list(RecordQuery(purpose=purpose, limit=3))
        assert (len(page.records), page.cursor) == (3, None)

    def test_filters_select(self, repository: SandboxRepository) -> None:
        purpose = uuid.uuid4().hex

        def create(**fields: Any) -> str:
            return repository.create(new_record(purpose=purpose, **fields)).id

        a = create(status="active", provider="one", created_at=T0 + 1)
        b = create(status="shutdown", provider="one", created_at=T0 + 2)
        c = create(status="active", provider="two", created_at=T0 + 3)
        d = create(status="error", provider="two", created_at=T0 + 4)

        def found(**query: Any) -> list[str]:
            query = {"purpose": purpose, **query}
            return [record.id for record in repository.list(RecordQuery(**query)).records]

        assert found() == [d, c, b, a]
        assert found(status="active") == [c, a]
        assert found(status=("active", "error")) == [d, c, a]
        assert found(provider="one") == [b, a]
        assert found(created_after=T0 + 2) == [d, c, b]
        assert found(created_before=T0 + 3) == [b, a]
        assert found(created_after=T0 + 2, created_before=T0 + 3) == [b]
        assert found(status="active", provider="two") == [c]
        assert found(status="creating") == []
        assert found(purpose=f"{purpose}x") == []

    def test_a_filter_follows_transitions(self, repository: SandboxRepository) -> None:
        purpose = uuid.uuid4().hex
        record = repository.create(new_record(purpose=purpose))
        repository.transition(record.id, 0, {"status": "active"})
        page = repository.list(RecordQuery(purpose=purpose, status=("active",)))
        assert [found.id for found in page.records] == [record.id]
        page = repository.list(RecordQuery(purpose=purpose, status=("creating",)))
        assert page.records == ()

    def test_what_is_no_cursor_is_refused(self, repository: SandboxRepository) -> None:
        with pytest.raises(ConfigurationError):
            repository.list(RecordQuery(cursor="nonsense"))

    def test_a_deleted_record_is_gone_and_deleting_again_is_no_error(
        self, repository: SandboxRepository
    ) -> None:
        record = repository.create(new_record())
        repository.delete(record.id)
        with pytest.raises(RecordNotFoundError):
            repository.get(record.id)
        repository.delete(record.id)
        repository.create(record)
        assert repository.get(record.id) == record

    def test_a_broken_record_does_not_hide_the_rest(
        self, repository: SandboxRepository, break_record: Callable[[str], None] | None
    ) -> None:
        if break_record is None:
            pytest.skip("this class does not say how to damage a record")
        purpose = uuid.uuid4().hex
        ids = [
            repository.create(new_record(purpose=purpose, created_at=T0 + number)).id
            for number in range(3)
        ]
        break_record(ids[1])
        page = repository.list(RecordQuery(purpose=purpose))
        assert [record.id for record in page.records] == [ids[2], ids[0]]
        assert [broken for broken, _ in page.broken] == [ids[1]]
        with pytest.raises(SchemaError, match=ids[1]):
            repository.get(ids[1])
        with pytest.raises(SchemaError):
            repository.transition(ids[1], 0, {"status": "active"})
        listed = repository.iterate(RecordQuery(purpose=purpose, limit=1))
        assert [record.id for record in listed] == [ids[2], ids[0]]

    def test_a_new_store_is_sound(self, repository: SandboxRepository) -> None:
        repository.check()

    def test_a_closed_store_opens_again(self, repository: SandboxRepository) -> None:
        record = repository.create(new_record())
        repository.close()
        repository.close()
        assert repository.get(record.id) == record
