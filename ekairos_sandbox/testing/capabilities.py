"""What a provider declares works; what it does not declare is refused before any call."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from ekairos_sandbox.exceptions import (
    CheckpointNotFoundError,
    CommandNotFoundError,
    ProviderError,
    UnsupportedOperationError,
)
from ekairos_sandbox.provider import Capability
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.testing.base import CREATE_ENV, Lab, Suite, sh, text
from ekairos_sandbox.testing.faults import Faults, faulty, lost_after

VERBS: dict[str, tuple[Capability, Callable[[RaisingSandbox], Any]]] = {
    "create_checkpoint": (Capability.CHECKPOINTS, lambda sandbox: sandbox.create_checkpoint()),
    "list_checkpoints": (Capability.CHECKPOINTS, lambda sandbox: sandbox.list_checkpoints()),
    "restore_checkpoint": (Capability.CHECKPOINTS, lambda sandbox: sandbox.restore_checkpoint("x")),
    "preview_url": (Capability.PREVIEW_URL, lambda sandbox: sandbox.preview_url(8080)),
    "extend_timeout": (Capability.EXTEND_TIMEOUT, lambda sandbox: sandbox.extend_timeout(60_000)),
    "native": (Capability.NATIVE, lambda sandbox: sandbox.native()),
}


class CapabilitySuite(Suite):
    """Checkpoints, preview URLs, longer lives, the SDK's own object.

    Attributes:
        preview_port: A port that a sandbox made with ``options`` and ``config`` can show.
        preview_options: Options on top of ``options`` that a sandbox needs for that.
        checkpoint_options: The same for checkpoints.
    """

    preview_port = 8080
    preview_options: ClassVar[Mapping[str, Any]] = {}
    checkpoint_options: ClassVar[Mapping[str, Any]] = {}

    @pytest.mark.parametrize("verb", list(VERBS))
    def test_what_is_not_declared_is_refused_before_any_call(
        self, lab: Lab, shared: RaisingSandbox, verb: str
    ) -> None:
        capability, act = VERBS[verb]
        if capability in lab.provider.capabilities:
            pytest.skip(f"the provider declares {capability.value}")
        faults = Faults()
        sandbox = lab.service(faulty(lab.provider, faults)).get_sandbox(shared.sandbox_id)
        sh(sandbox, "true").check()
        calls = len(faults.calls)
        with pytest.raises(UnsupportedOperationError):
            act(sandbox)
        assert faults.calls[calls:] == []

    def test_an_unknown_checkpoint_is_not_found_and_changes_nothing(self, lab: Lab) -> None:
        self._needs(lab, Capability.CHECKPOINTS)
        other = lab.create(options=self.checkpoint_options)
        others = other.create_checkpoint().id
        sandbox = lab.create(options=self.checkpoint_options)
        sandbox.write_files({"data": b"kept"})
        own = sandbox.create_checkpoint().id
        command = sandbox.start_command(["sleep", "308"])
        for unknown in ("no-such-checkpoint", others):
            if unknown == own:  # its kind counts them in each sandbox
                continue
            with pytest.raises(CheckpointNotFoundError):
                sandbox.restore_checkpoint(unknown)
        assert sandbox.record().status == "active"
        assert command.state() == "running"
        assert sandbox.read_file("data") == b"kept"
        command.kill()

    def test_a_checkpoint_brings_the_files_back_and_commands_work_afterwards(
        self, lab: Lab
    ) -> None:
        self._needs(lab, Capability.CHECKPOINTS)
        sandbox = lab.create(env=CREATE_ENV, options=self.checkpoint_options)
        sandbox.write_files({"data": b"old"})
        first = sandbox.create_checkpoint("before the change")
        sandbox.write_files({"data": b"new", "later": b""})
        second = sandbox.create_checkpoint()
        assert first.id != second.id
        listed = [c.id for c in sandbox.list_checkpoints() if c.id in (first.id, second.id)]
        assert listed == [first.id, second.id]
        after = sandbox.start_command(["sleep", "307"])
        other = lab.service().get_sandbox(sandbox.sandbox_id)
        assert sh(other, "true").success
        before = sandbox.record().state
        sandbox.restore_checkpoint(first.id)
        state = sandbox.record().state
        assert before is not None
        assert state is not None
        assert state.epoch != before.epoch
        assert state.incarnation == 1
        assert sandbox.read_file("data") == b"old"
        for handle in (sandbox, other):
            script = (
                'cat "$HOME/data"; [ ! -e "$HOME/later" ]; printf "%s" "$CONFORMANCE_AT_CREATE"'
            )
            assert text(handle, script) == "old" + CREATE_ENV["CONFORMANCE_AT_CREATE"]
        with pytest.raises(CommandNotFoundError):
            after.wait(5)

    def test_a_restore_whose_answer_was_lost_is_noticed(self, lab: Lab) -> None:
        self._needs(lab, Capability.CHECKPOINTS)
        faults = Faults()
        service = lab.service(faulty(lab.provider, faults))
        sandbox = lab.create(service, options=self.checkpoint_options)
        other = lab.service().get_sandbox(sandbox.sandbox_id)
        sandbox.write_files({"data": b"old"})
        checkpoint = sandbox.create_checkpoint()
        sandbox.write_files({"data": b"new"})
        assert text(other, "cat data") == "new"
        before = sandbox.record().state
        faults.at("restore_checkpoint", lost_after)
        with pytest.raises(ProviderError):
            sandbox.restore_checkpoint(checkpoint.id)
        state = sandbox.record().state
        assert before is not None
        assert state is not None
        # Or else commands from before and after could not be told apart.
        assert state.epoch != before.epoch
        assert text(sandbox, "cat data") == "old"
        assert text(other, "cat data") == "old"

    def test_a_preview_url_is_an_address_and_its_repr_shows_no_token(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        self._needs(lab, Capability.PREVIEW_URL)
        sandbox = lab.create(options=self.preview_options) if self.preview_options else shared
        preview = sandbox.preview_url(self.preview_port)
        assert preview.url.startswith(("https://", "http://"))
        assert preview.token is None or preview.token not in repr(preview)

    def test_a_lifetime_can_be_extended(self, lab: Lab, shared: RaisingSandbox) -> None:
        self._needs(lab, Capability.EXTEND_TIMEOUT)
        end = shared.extend_timeout(600_000)
        assert end is None or end > shared.record().created_at
        assert sh(shared, "echo on").output == "on\n"

    def test_the_native_object_is_there_or_the_error_says_what_to_install(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        self._needs(lab, Capability.NATIVE)
        native, problem = None, ""
        try:
            native = shared.native()
        except UnsupportedOperationError as error:
            problem = str(error)
        assert native is not None or "pip install" in problem

    def _needs(self, lab: Lab, capability: Capability) -> None:
        if capability not in lab.provider.capabilities:
            pytest.skip(f"the provider does not declare {capability.value}")
