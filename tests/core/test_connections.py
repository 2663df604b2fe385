from __future__ import annotations

import os
import threading
from typing import Any, cast

import pytest

from ekairos_sandbox.connections import ConnectionCache, Live
from ekairos_sandbox.provider import Connection, Provider, SandboxRef


class Counted(Connection):
    """Counts how often it was closed."""

    external_id = "x"

    def __init__(self) -> None:
        self.closed = 0

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        raise AssertionError("not called here")

    def close(self) -> None:
        self.closed += 1


def live(sandbox_id: str) -> Live:
    return Live(
        sandbox_id=sandbox_id,
        provider=cast("Provider[Any]", None),
        ref=SandboxRef(name=sandbox_id),
        connection=Counted(),
        incarnation=1,
        epoch="e",
        home="/",
    )


def closed(entry: Live) -> int:
    return cast("Counted", entry.connection).closed


def test_what_was_put_is_found() -> None:
    cache, one = ConnectionCache(), live("one")
    assert cache.get("one") is None
    cache.put(one)
    assert cache.get("one") is one
    assert closed(one) == 0


def test_the_least_recently_used_is_closed_and_let_go() -> None:
    cache = ConnectionCache(size=2)
    one, two, three = live("one"), live("two"), live("three")
    cache.put(one)
    cache.put(two)
    cache.get("one")
    cache.put(three)
    assert cache.get("two") is None
    assert (cache.get("one"), cache.get("three")) == (one, three)
    assert [closed(entry) for entry in (one, two, three)] == [0, 1, 0]


def test_a_newer_connection_takes_the_place_of_the_older() -> None:
    cache, old, new = ConnectionCache(), live("one"), live("one")
    cache.put(old)
    cache.put(new)
    assert cache.get("one") is new
    assert (closed(old), closed(new)) == (1, 0)


def test_putting_the_same_again_does_not_close_it() -> None:
    cache, one = ConnectionCache(size=1), live("one")
    cache.put(one)
    cache.put(one)
    assert cache.get("one") is one
    assert closed(one) == 0


def test_drop_closes() -> None:
    cache, one = ConnectionCache(), live("one")
    cache.put(one)
    cache.drop("one")
    cache.drop("one")
    cache.drop("unknown")
    assert cache.get("one") is None
    assert closed(one) == 1


def test_drop_of_a_certain_one_leaves_its_successor_alone() -> None:
    cache, old, new = ConnectionCache(), live("one"), live("one")
    cache.put(new)
    cache.drop("one", old)
    assert cache.get("one") is new
    assert closed(new) == 0
    cache.drop("one", new)
    assert cache.get("one") is None
    assert closed(new) == 1


def test_close_lets_go_of_everything_and_the_cache_can_be_used_again() -> None:
    cache, entries = ConnectionCache(), [live("one"), live("two")]
    for entry in entries:
        cache.put(entry)
    cache.close()
    cache.close()
    assert [closed(entry) for entry in entries] == [1, 1]
    cache.put(entries[0])
    assert cache.get("one") is entries[0]


def test_threads_share_it_within_its_bound() -> None:
    cache = ConnectionCache(size=4)
    entries = [[live(f"{n}-{i}") for i in range(100)] for n in range(8)]

    def use(mine: list[Live]) -> None:
        for entry in mine:
            cache.put(entry)
            cache.get(entry.sandbox_id)

    threads = [threading.Thread(target=use, args=(mine,)) for mine in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [entry for mine in entries for entry in mine]
    kept = [entry for entry in everything if cache.get(entry.sandbox_id)]
    assert len(kept) == 4
    assert all(closed(entry) == (entry not in kept) for entry in everything)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_empty_even_if_the_lock_was_held() -> None:
    cache, one = ConnectionCache(), live("one")
    cache.put(one)
    with cache._lock:
        pid = os.fork()
        if pid == 0:
            empty = cache.get("one") is None and closed(one) == 0
            os._exit(0 if empty else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert cache.get("one") is one
    assert closed(one) == 0
