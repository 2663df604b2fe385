"""Transactions: shapes, strict modes, checks, merges, lookups, races."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from servers.instantdb.client import NOTES, A, B, C, Client, D, connected


@pytest.fixture
def client() -> Iterator[Client]:
    with connected(NOTES) as connection:
        yield connection


# Shapes of steps


@pytest.mark.parametrize(
    "step",
    [
        "create",
        ["destroy", "notes", A],
        ["create", "notes", "no-uuid", {}],
        ["create", "notes", A],
        ["create", "notes", A, {"title": "x"}, None],
        ["create", "notes", A, []],
        ["create", 1, A, {}],
        ["update", "notes", A, {}, {"upsert": "no"}],
        ["update", "notes", A, {}, None, None],
        ["link", "notes", A, {"tags": "no-uuid"}],
        ["delete-attr", "x"],
    ],
)
def test_malformed_steps_are_refused_with_their_input(client: Client, step: Any) -> None:
    body = client.refused(step)
    assert body["type"] == "validation-failed"
    assert body["hint"]["data-type"] == "steps"
    assert body["hint"]["input"] == [step]
    assert body["hint"]["errors"][0]["in"][0] == 0


@pytest.mark.parametrize("tail", [[], [None], [None, None, "more"]])
def test_delete_takes_any_further_elements(client: Client, tail: list[Any]) -> None:
    client.done(["create", "notes", A, {"title": "x"}])
    client.done(["delete", "notes", A, *tail])
    assert client.find("notes") == []


def test_deleting_what_is_not_there_succeeds(client: Client) -> None:
    client.done(["delete", "notes", A, None], ["delete", "nowhere", A])


def test_transaction_ids_increase(client: Client) -> None:
    first = client.done(["update", "notes", A, {"title": "x"}])
    assert client.done(["update", "notes", A, {"title": "y"}]) > first


# Strict modes


def test_create_of_an_existing_id_is_refused(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x"}])
    body = client.refused(["create", "notes", A.upper(), {"title": "y"}])
    assert body["type"] == "validation-failed"
    assert body["hint"]["data-type"] == "tx-step"
    assert f"Creating entities that exist: {A}, {A}" in body["message"]
    assert client.titles() == ["x"]


def test_strict_update_of_a_missing_id_is_refused(client: Client) -> None:
    body = client.refused(["update", "notes", A, {"title": "y"}, {"upsert": False}])
    assert f"Updating entities that don't exist: {A}" in body["message"]
    assert client.find("notes") == []


def test_strict_modes_look_at_the_state_before_the_transaction(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x"}])
    exists = client.refused(["delete", "notes", A], ["create", "notes", A, {"title": "y"}])
    assert "Creating entities that exist" in exists["message"]
    missing = client.refused(
        ["create", "notes", B, {"title": "y"}],
        ["update", "notes", B, {"rank": 1}, {"upsert": False}],
    )
    assert "Updating entities that don't exist" in missing["message"]
    assert client.titles() == ["x"]


def test_one_id_may_live_in_two_namespaces(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x"}], ["create", "tags", A, {"name": "t"}])
    client.done(["delete", "notes", A])
    assert client.find("notes") == []
    assert client.find("tags") == [{"id": A, "name": "t"}]


def test_upsert_resurrects_a_deleted_row_only_without_required_attributes(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x"}], ["create", "tags", B, {"name": "t"}])
    client.done(["delete", "notes", A], ["delete", "tags", B])
    body = client.refused(["update", "notes", A, {"rank": 1}])
    assert body["message"] == f"Missing required attribute `notes/title`: {A}"
    client.done(["update", "tags", B, {}, None])
    assert client.find("tags") == [{"id": B}]


def test_steps_run_in_groups_in_order_of_first_appearance(client: Client) -> None:
    client.done(
        ["update", "tags", A, {"name": "first"}],
        ["delete", "tags", A],
        ["update", "tags", A, {"name": "last"}],
        ["update", "tags", B, {"name": "b1"}],
        ["update", "tags", B, {"name": "b2"}],
    )
    assert client.find("tags") == [{"id": B, "name": "b2"}]


# Attributes


def test_unknown_attributes_are_listed_when_they_must_exist(client: Client) -> None:
    body = client.refused(["create", "notes", A, {"title": "x", "colour": "red"}])
    assert body["hint"]["errors"][0]["hint"]["attributes"] == ["notes.colour"]
    body = client.refused(["create", "fresh", A, {"x": 1}])
    assert body["hint"]["errors"][0]["hint"]["attributes"] == ["fresh.id", "fresh.x"]
    assert client.find("notes") == []


def test_unknown_attributes_are_made_when_nobody_objects(client: Client) -> None:
    client.done(["update", "fresh", A, {"x": {"deep": [1]}}], strict=False)
    assert client.find("fresh") == [{"id": A, "x": {"deep": [1]}}]
    attr = client.get("/admin/schema")["schema"]["blobs"]["fresh"]["x"]
    assert (attr["index?"], attr["checked-data-type"]) == (False, None)


def test_new_attributes_of_a_refused_transaction_are_not_kept(client: Client) -> None:
    client.refused(["update", "fresh", A, {"x": 1}], ["update", "notes", B, {}], strict=False)
    assert "fresh" not in client.get("/admin/schema")["schema"]["blobs"]


def test_id_inside_the_attributes_is_ignored(client: Client) -> None:
    client.done(["create", "tags", A, {"id": B, "name": "t"}])
    assert client.find("tags") == [{"id": A, "name": "t"}]


def test_indexed_attributes_are_null_and_others_absent(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x"}])
    assert client.find("notes") == [
        {"id": A, "title": "x", "rank": None, "loose": None, "slug": None, "due": None}
    ]


def test_explicit_null_is_kept_and_absent_means_untouched(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x", "plain": 1, "data": None}])
    client.done(["update", "notes", A, {"plain": None}])
    [row] = client.find("notes", fields=["plain", "data", "title"])
    assert row == {"id": A, "title": "x", "plain": None, "data": None}


def test_required_attributes_refuse_null_and_absence(client: Client) -> None:
    message = f"Missing required attribute `notes/title`: {A}"
    assert client.refused(["create", "notes", A, {}])["message"] == message
    body = client.refused(["create", "notes", A, {"title": None}])
    assert body["hint"] == {
        "records": [{"attr-id": body["hint"]["records"][0]["attr-id"], "entity-id": A}]
    }


def test_wrong_value_type_is_refused_and_rolls_everything_back(client: Client) -> None:
    body = client.refused(
        ["create", "notes", A, {"title": "fine"}], ["create", "notes", B, {"title": 7}]
    )
    assert body["type"] == "validation-failed"
    assert body["message"].startswith("Invalid value type for notes.title")
    assert body["hint"]["namespace"] == "notes"
    assert body["hint"]["attribute"] == "title"
    assert body["hint"]["checked-data-type"] == "string"
    assert (body["hint"]["entity-id"], body["hint"]["value"]) == (B, 7)
    assert client.find("notes") == []


@pytest.mark.parametrize(("size", "status"), [(1012, 200), (1013, 400)])
def test_indexed_values_are_limited_in_size(client: Client, size: int, status: int) -> None:
    response = client.transact(["create", "notes", A, {"title": "x" * size}])
    assert response.status_code == status
    if status == 400:
        assert response.json()["hint"]["value-too-large?"] is True


def test_values_that_are_not_indexed_may_be_large(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x", "data": "y" * 100_000}])
    assert len(client.find("notes")[0]["data"]) == 100_000


def test_unique_violation_names_the_value_as_json_text(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x", "slug": "s"}])
    body = client.refused(["create", "notes", B, {"title": "y", "slug": "s"}])
    assert body["type"] == "record-not-unique"
    hint = body["hint"]
    assert hint["record-type"] == "triple"
    assert (hint["etype"], hint["label"], hint["value"]) == ("notes", "slug", '"s"')
    assert client.titles() == ["x"]


def test_unique_keys_are_free_again_after_delete_change_and_rollback(client: Client) -> None:
    client.done(["create", "notes", A, {"title": "x", "slug": "s"}])
    client.refused(["delete", "notes", A], ["create", "notes", B, {"slug": "s"}])
    client.refused(["create", "notes", B, {"title": "y", "slug": "s"}])
    client.done(["delete", "notes", A], ["create", "notes", B, {"title": "y", "slug": "s"}])
    client.done(["update", "notes", B, {"slug": "t"}])
    client.done(["create", "notes", C, {"title": "z", "slug": "s"}])


def test_uuid_text_is_lowered_everywhere_in_a_step(client: Client) -> None:
    client.done(
        ["create", "notes", D.upper(), {"title": D.upper(), "data": {D.upper(): [D.upper()]}}]
    )
    [row] = client.find("notes", fields=["title", "data"])
    assert row == {"id": D, "title": D, "data": {D: [D]}}
    client.done(["update", "notes", D, {"title": "x" + D.upper()}])
    assert client.titles() == ["x" + D.upper()]


def test_nul_characters_are_refused(client: Client) -> None:
    assert client.refused(["create", "notes", A, {"title": "a\0b"}])["type"] == "validation-failed"
    assert client.refused(["create", "notes", A, {"title": "a", "data": {"\0": 1}}])
    assert client.find("notes") == []


def test_numbers_keep_their_precision_and_dates_their_form(client: Client) -> None:
    client.done(
        ["create", "notes", A, {"title": "x", "data": [2**60 + 1, 0.1], "due": "2026-01-02"}],
        ["create", "notes", B, {"title": "y", "due": 1763850000000}],
    )
    rows = client.find("notes", fields=["data", "due"])
    assert rows == [
        {"id": A, "data": [2**60 + 1, 0.1], "due": "2026-01-02"},
        {"id": B, "due": 1763850000000},
    ]


@pytest.mark.parametrize(
    ("old", "patch", "expected"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}, {"a": {"x": 3, "y": 2}}),
        ({"a": {"x": 1}}, {"a": {"x": None}}, {"a": {}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"b": {"c": None}}, {"a": 1, "b": {"c": None}}),
        (None, {"b": None}, {"b": None}),
        ({"a": 1}, None, None),
        ({"a": 1}, 5, 5),
    ],
)
def test_merge_is_deep(client: Client, old: Any, patch: Any, expected: Any) -> None:
    client.done(["create", "notes", A, {"title": "x", "data": old}])
    client.done(["merge", "notes", A, {"data": patch}, {"upsert": False}])
    assert client.find("notes", fields=["data"]) == [{"id": A, "data": expected}]


def test_very_large_transactions_are_refused(client: Client) -> None:
    steps = [["update", "tags", str(uuid.UUID(int=n)), {"name": str(n)}] for n in range(7000)]
    assert client.refused(*steps)["type"] == "parameter-limit-exceeded"
    assert client.find("tags") == []


def test_one_text_is_limited_to_what_the_json_parser_takes(client: Client) -> None:
    step = ["create", "notes", A, {"title": "x", "data": "y" * 20_000_001}]
    response = client.transact(step)
    assert (response.status_code, response.headers["content-type"]) == (400, "text/plain")


# Lookups and links


@pytest.mark.parametrize("key", [["slug", "s"], {"slug": "s"}, 'lookup__slug__"s"'])
def test_entities_are_addressed_by_a_unique_attribute(client: Client, key: Any) -> None:
    client.done(["create", "notes", A, {"title": "x", "slug": "s"}])
    client.done(["update", "notes", key, {"rank": 9}, {"upsert": False}])
    assert client.find("notes", fields=["rank"]) == [{"id": A, "rank": 9}]
    client.done(["delete", "notes", key, None])
    assert client.find("notes") == []


def test_lookup_on_an_attribute_that_is_not_unique_is_refused(client: Client) -> None:
    body = client.refused(["update", "notes", ["title", "x"], {"rank": 1}])
    assert body["hint"]["data-type"] == "lookup"
    assert "title is not a unique attribute on notes" in body["message"]


def test_upsert_through_a_lookup_makes_an_entity_strict_update_does_not(client: Client) -> None:
    client.refused(["update", "notes", ["slug", "s"], {"title": "x"}, {"upsert": False}])
    client.done(["update", "notes", ["slug", "s"], {"title": "x"}])
    [row] = client.find("notes", fields=["slug", "title"])
    assert (row["slug"], row["title"]) == ("s", "x")
    assert uuid.UUID(row["id"]).version == 4


def test_links_are_followed_in_both_directions(client: Client) -> None:
    client.done(
        ["create", "notes", A, {"title": "x"}],
        ["create", "tags", B, {"name": "t"}],
        ["link", "notes", A, {"tags": [B]}],
    )
    answer = client.post("/admin/query", {"query": {"tags": {"notes": {"$": {"fields": ["id"]}}}}})
    assert answer.json() == {"tags": [{"id": B, "name": "t", "notes": [{"id": A}]}]}
    assert client.titles(where={"tags.name": "t"}) == ["x"]
    assert client.titles(where={"tags": B}) == ["x"]
    client.done(["unlink", "notes", A, {"tags": B}])
    assert client.titles(where={"tags.name": "t"}) == []


# Concurrency


def _both(*calls: Callable[[], requests.Response]) -> list[requests.Response]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def test_two_strict_creates_of_one_id_can_both_succeed(
    client: Client,
) -> None:
    other = client.another()
    client.server.overlap_creates(2)
    answers = _both(
        lambda: client.transact(["create", "notes", A, {"title": "x", "plain": 1}]),
        lambda: other.transact(["create", "notes", A, {"title": "y", "data": 2}]),
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    [row] = client.find("notes")
    assert (row["plain"], row["data"]) == (1, 2)
    assert row["title"] in ("x", "y")


def test_unique_fence_lets_one_of_two_overlapping_writers_through(
    client: Client,
) -> None:
    client.done(["create", "notes", A, {"title": "old"}])
    other = client.another()
    client.server.overlap_creates(2)

    def writer(who: Client, fence: str, title: str) -> Callable[[], requests.Response]:
        return lambda: who.transact(
            ["create", "tags", fence, {"name": f"{A}:rev:5"}],
            ["update", "notes", A, {"title": title}, {"upsert": False}],
        )

    answers = _both(writer(client, B, "one"), writer(other, C, "two"))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [200, 400]
    loser = answers[statuses.index(400)].json()
    assert loser["type"] == "record-not-unique"
    winner = statuses.index(200)
    assert client.titles() == [["one", "two"][winner]]
    assert [row["id"] for row in client.find("tags")] == [[B, C][winner]]


def test_strict_update_that_overlaps_a_delete_leaves_a_partial_row_or_fails(
    client: Client,
) -> None:
    client.done(["create", "notes", A, {"title": "x"}])
    other = client.another()
    client.server.overlap_transactions(2)
    update, delete = _both(
        lambda: client.transact(["update", "notes", A, {"rank": 1}, {"upsert": False}]),
        lambda: other.transact(["delete", "notes", A]),
    )
    assert delete.status_code == 200
    if update.status_code == 400:
        assert update.json()["message"] == f"Missing required attribute `notes/title`: {A}"
    assert client.find("notes") == []


def test_of_many_writers_of_one_revision_exactly_one_wins(
    client: Client,
) -> None:
    client.done(["create", "notes", A, {"title": "start", "rank": 0}])

    def write(name: int) -> list[int]:
        who = client.another()
        won = []
        for revision in range(1, 31):
            answer = who.transact(
                ["create", "tags", str(uuid.uuid4()), {"name": f"{A}:rev:{revision}"}],
                ["update", "notes", A, {"rank": revision, "plain": name}, {"upsert": False}],
            )
            if answer.status_code == 200:
                won.append(revision)
            else:
                assert answer.json()["type"] == "record-not-unique"
        return won

    with ThreadPoolExecutor(6) as pool:
        wins = [revision for won in pool.map(write, range(6)) for revision in won]
    assert sorted(wins) == list(range(1, 31))
    assert client.find("notes", fields=["rank"]) == [{"id": A, "rank": 30}]
    assert len(client.find("tags")) == 30


def test_meeting_point_gives_up_after_its_time(client: Client) -> None:
    client.server.overlap_creates(2, timeout_s=0.05)
    client.done(["create", "notes", A, {"title": "x"}])
    client.done(["create", "notes", B, {"title": "y"}])
