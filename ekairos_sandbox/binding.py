"""Giving the handles the service's verbs without writing every signature again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from ekairos_sandbox.exceptions import SandboxError
from ekairos_sandbox.results import Err, Ok, ServiceResult

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
OuterT = TypeVar("OuterT")
InnerT = TypeVar("InnerT")


def result_of(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> ServiceResult[T]:
    """Call something that raises and return what came of it. Programming mistakes still raise."""
    try:
        return Ok(call(*args, **kwargs))
    except SandboxError as error:
        return Err(str(error), error.code, error)


def without(function: Callable[..., Any], parameter: str) -> inspect.Signature:
    """Return a function's signature without one parameter, for documentation and editors."""
    signature = inspect.signature(function)
    kept = [p for name, p in signature.parameters.items() if name != parameter]
    return signature.replace(parameters=kept)


def delegated(
    method: Callable[Concatenate[InnerT, P], T], inner: Callable[[OuterT], InnerT]
) -> Callable[Concatenate[OuterT, P], ServiceResult[T]]:
    """Make a method that calls ``method`` on an inner object and returns ``Ok`` or ``Err``."""

    @functools.wraps(method)
    def call(self: OuterT, /, *args: P.args, **kwargs: P.kwargs) -> ServiceResult[T]:
        return result_of(method, inner(self), *args, **kwargs)

    return call


def converted(
    method: Callable[Concatenate[InnerT, P], T],
    inner: Callable[[OuterT], InnerT],
    convert: Callable[[OuterT, T], U],
) -> Callable[Concatenate[OuterT, P], ServiceResult[U]]:
    """As ``delegated``, with what ``method`` returns turned into something else."""

    @functools.wraps(method)
    def call(self: OuterT, /, *args: P.args, **kwargs: P.kwargs) -> ServiceResult[U]:
        made = result_of(method, inner(self), *args, **kwargs)
        return Ok(convert(self, made.data)) if made.ok else made

    return call


def bound(
    method: Callable[Concatenate[InnerT, str, P], T], inner: Callable[[OuterT], tuple[InnerT, str]]
) -> Callable[Concatenate[OuterT, P], T]:
    """Make a method of a handle: ``method`` of its service, with its id as first argument."""

    @functools.wraps(method)
    def call(self: OuterT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        service, identity = inner(self)
        return method(service, identity, *args, **kwargs)

    call.__signature__ = without(method, "sandbox_id")  # type: ignore[attr-defined]
    return call
