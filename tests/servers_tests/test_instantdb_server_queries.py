"""Queries: conditions, order, pages and their silent traps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from servers.instantdb.client import A, Client, D, ranked_notes


@pytest.fixture
def ranked() -> Iterator[Client]:
    with ranked_notes() as connection:
        yield connection


# Queries


def test_unknown_names_find_nothing_without_an_error(ranked: Client) -> None:
    assert ranked.find("nowhere", where={"x": 1}) == []
    assert ranked.find("notes", where={"colour": "red"}) == []
    assert ranked.find("notes", where={"title": "a", "or": [{"colour": "red"}, {"rank": 1}]}) == []


@pytest.mark.parametrize(
    ("where", "titles"),
    [
        ({"title": "a"}, ["a"]),
        ({"rank": 2.0}, ["b", "c"]),
        ({"id": A}, ["a"]),
        ({"id": D.upper()}, []),
        ({"rank": {"$in": [1, None]}}, ["a", "d"]),
        ({"rank": {"in": [1]}}, ["a"]),
        ({"rank": {"$in": []}}, []),
        ({"rank": {"$ne": 2}}, ["a", "d"]),
        ({"plain": {"$not": 5}}, ["b", "c", "d"]),
        ({"plain": {"$isNull": True}}, ["b", "c", "d"]),
        ({"rank": {"$isNull": False}}, ["a", "b", "c"]),
        ({"rank": {"$gt": 1}}, ["b", "c"]),
        ({"rank": {"$lte": 1}}, ["a"]),
        ({"title": {"$like": "_"}}, ["a", "b", "c", "d"]),
        ({"title": {"$like": "A%"}}, []),
        ({"title": {"$ilike": "A%"}}, ["a"]),
        ({"slug": {"$lt": "zzz"}}, ["a", "b", "c", "d"]),
        ({"slug": {"$gt": "a"}}, ["b"]),
        ({"or": [{"title": "a"}, {"rank": 2}]}, ["a", "b", "c"]),
        ({"and": [{"rank": {"$gte": 1}}, {"rank": {"$lt": 2}}]}, ["a"]),
        ({"title": "a", "rank": 2}, []),
    ],
)
def test_where_selects(ranked: Client, where: Any, titles: list[str]) -> None:
    assert ranked.titles(where=where) == titles


def test_of_several_operators_only_the_first_is_applied(ranked: Client) -> None:
    assert ranked.titles(where={"rank": {"$gte": 1, "$lt": 2}}) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "where",
    [
        {"title": None},
        {"title": {"deep": 1}},
        {"title": ["a"]},
        {"title": {}},
        {"title": {"$gt": None}},
        {"title": {"$regex": "a"}},
        {"plain": {"$in": [None]}},
        {"title": 5},
        {"rank": {"$in": ["x"]}},
        {"rank": {"$gt": "x"}},
        {"plain": {"$gt": 1}},
        {"loose": {"$gt": 1}},
        {"id": {"$gt": A}},
        {"rank": {"$like": "1"}},
        {"or": []},
        {"and": []},
        [],
    ],
)
def test_invalid_conditions_are_refused(ranked: Client, where: Any) -> None:
    body = ranked.bad_query("notes", where=where)
    assert body["hint"]["input"] == {"notes": {"$": {"where": where}}}
    assert body["hint"]["errors"][0]["in"][:3] == ["notes", "$", "where"]


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        ({}, ["a", "b", "c", "d"]),
        ({"order": {"serverCreatedAt": "desc"}}, ["d", "c", "b", "a"]),
        ({"order": {"rank": "asc"}}, ["d", "a", "b", "c"]),
        ({"order": {"rank": "desc"}}, ["c", "b", "a", "d"]),
        ({"order": {"rank": "asc"}, "limit": 2, "offset": 1}, ["a", "b"]),
        ({"first": 1}, ["a"]),
        ({"last": 2}, ["c", "d"]),
        ({"limit": None, "offset": 3}, ["d"]),
        ({"order": {}}, ["a", "b", "c", "d"]),
    ],
)
def test_order_and_pages(ranked: Client, options: Any, titles: list[str]) -> None:
    assert ranked.titles(**options) == titles


def test_updates_do_not_change_the_order_of_creation(ranked: Client) -> None:
    ranked.done(["update", "notes", A, {"rank": 100}])
    assert ranked.titles() == ["a", "b", "c", "d"]


def test_page_is_sorted_by_id_when_the_order_attribute_is_not_among_the_fields(
    ranked: Client,
) -> None:
    ranked.done(["update", "notes", A, {"rank": 100}])
    options = {"order": {"rank": "asc"}, "offset": 1}
    assert ranked.titles(**options) == ["b", "c", "a"]
    assert ranked.titles(**options, fields=["title"]) == ["a", "b", "c"]
    assert ranked.titles(**options, fields=["title", "rank"]) == ["b", "c", "a"]


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 0},
        {"limit": "5"},
        {"first": -1},
        {"last": 0},
        {"offset": -1},
        {"limit": 1, "first": 1},
        {"order": {"rank": "up"}},
        {"order": {"rank": "asc", "title": "asc"}},
        {"order": {"colour": "asc"}},
        {"order": {"plain": "asc"}},
        {"order": {"loose": "asc"}},
        {"after": ["x"]},
        {"fields": "title"},
        {"sort": 1},
        {"aggregate": "sum"},
    ],
)
def test_invalid_options_are_refused(ranked: Client, options: Any) -> None:
    ranked.bad_query("notes", **options)


def test_count_is_accepted_and_answered_with_nothing(ranked: Client) -> None:
    assert ranked.find("notes", aggregate="count") == []


def test_fields_always_have_the_id_and_ignore_unknown_names(ranked: Client) -> None:
    assert ranked.find("notes", where={"title": "a"}, fields=["plain", "colour"]) == [
        {"id": A, "plain": 5}
    ]


def test_rule_parameters_inside_the_query_are_accepted(ranked: Client) -> None:
    response = ranked.post("/admin/query", {"query": {"$$ruleParams": {"k": 1}, "notes": {}}})
    assert list(response.json()) == ["notes"]
