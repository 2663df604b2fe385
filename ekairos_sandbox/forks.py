"""What a forked child must let go of before it does anything else."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class _ForkAware(Protocol):
    def after_fork(self) -> None: ...


_known: weakref.WeakSet[_ForkAware] = weakref.WeakSet()


def reset_in_child(thing: _ForkAware) -> None:
    """Have ``thing.after_fork()`` called in every forked child, for as long as it lives.

    The child has a single thread, but locks are as they were: replace them there.
    """
    _known.add(thing)


def _in_child() -> None:
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
