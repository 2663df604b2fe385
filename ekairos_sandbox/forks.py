"""What has to be let go of around a fork."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class _ForkAware(Protocol):
    def after_fork(self) -> None: ...


class _Pausing(_ForkAware, Protocol):
    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...


_known: weakref.WeakSet[_ForkAware] = weakref.WeakSet()
_pausing: weakref.WeakSet[_Pausing] = weakref.WeakSet()
_paused: list[_Pausing] = []
_forking = threading.RLock()
"""Held during a fork; and whoever would change what it goes through waits for its end."""


def reset_in_child(thing: _ForkAware) -> None:
    """Have ``thing.after_fork()`` called in every forked child, for as long as it lives.

    The child has a single thread, but locks are as they were: replace them there.
    """
    with _forking:
        _known.add(thing)


def pause_for_fork(thing: _Pausing) -> None:
    """Have ``thing.before_fork()`` called before every fork, besides ``reset_in_child``.

    It must leave nothing open that a child may not inherit, and keep it so until
    ``after_fork_in_parent`` or, in the child, ``after_fork`` is called.
    """
    with _forking:
        _pausing.add(thing)
        _known.add(thing)


def _before() -> None:
    _forking.acquire()
    _paused.extend(_pausing)
    for thing in _paused:
        thing.before_fork()


def _in_parent() -> None:
    for thing in _paused:
        thing.after_fork_in_parent()
    _paused.clear()
    _forking.release()


def _in_child() -> None:
    global _forking
    _forking = threading.RLock()
    _paused.clear()
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
