from __future__ import annotations

import ast
import importlib
import inspect
import types
import typing

import pytest

import ekairos_sandbox
from ekairos_sandbox import exceptions


def test_all_is_sorted_without_repeats() -> None:
    assert ekairos_sandbox.__all__ == sorted(set(ekairos_sandbox.__all__))


def test_a_type_checker_sees_the_names_that_all_lists_where_they_are() -> None:
    """The package's source names each twice: for the type checker and for the first use."""
    seen: dict[str, str | None] = {}
    for node in ast.walk(ast.parse(inspect.getsource(ekairos_sandbox))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ekairos_sandbox"):
            seen |= {alias.name: node.module for alias in node.names}
    assert sorted(seen) == ekairos_sandbox.__all__
    for name, module in seen.items():
        assert module is not None
        defined = getattr(importlib.import_module(module), name)
        assert getattr(ekairos_sandbox, name) is defined


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'SandboxServise'"):
        _ = ekairos_sandbox.SandboxServise  # type: ignore[attr-defined]
    assert not hasattr(ekairos_sandbox, "_private")


def test_completion_shows_what_is_public() -> None:
    assert set(ekairos_sandbox.__all__) <= set(dir(ekairos_sandbox))


def test_every_exception_and_warning_is_public() -> None:
    raised = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert raised <= set(ekairos_sandbox.__all__)


def test_everything_public_says_what_it_is() -> None:
    silent = [
        name
        for name in ekairos_sandbox.__all__
        if isinstance(getattr(ekairos_sandbox, name), type | types.FunctionType)
        and not getattr(ekairos_sandbox, name).__doc__
    ]
    assert silent == []


def test_the_verbs_of_the_service_are_those_that_raise() -> None:
    def verbs(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    service = verbs(ekairos_sandbox.SandboxService) - {"from_env"}
    assert service == verbs(ekairos_sandbox.RaisingService)
    handle = verbs(ekairos_sandbox.Sandbox) - {"raising"}
    assert handle == verbs(ekairos_sandbox.RaisingSandbox)
    command = verbs(ekairos_sandbox.Command) - {"raising", "sandbox_id", "command_id"}
    assert command == verbs(ekairos_sandbox.RaisingCommand)


def test_a_handle_has_the_verbs_of_the_service() -> None:
    renamed = {
        "get_record": "record",
        "reconnect_to_sandbox": "reconnect",
        "stop_sandbox": "stop",
        "destroy_sandbox": "destroy",
    }
    without_an_id = {"create_sandbox", "get_sandbox", "list_sandboxes", "iter_sandboxes"}
    others = {"reconcile", "close"}
    names = {name for name in vars(ekairos_sandbox.RaisingService) if not name.startswith("_")}
    expected = {renamed.get(name, name) for name in names - without_an_id - others}
    handle = {name for name in vars(ekairos_sandbox.RaisingSandbox) if not name.startswith("_")}
    assert handle == expected


def test_a_handles_signature_is_the_verbs_without_the_id() -> None:
    verb = list(inspect.signature(ekairos_sandbox.RaisingService.run_command).parameters)
    for handle in (ekairos_sandbox.RaisingSandbox, ekairos_sandbox.Sandbox):
        names = list(inspect.signature(handle.run_command).parameters)
        assert names == [name for name in verb if name != "sandbox_id"]
        assert handle.run_command.__doc__ == ekairos_sandbox.RaisingService.run_command.__doc__


def test_the_result_type_is_either_ok_or_err() -> None:
    assert typing.get_args(ekairos_sandbox.ServiceResult)[1] is ekairos_sandbox.Err
