"""The fake provider keeps the contract, as far as nothing of a real sandbox is needed for that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from helpers.fake_sh import HostSh

from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing import FakeProvider, ProviderConformance

NO_SH = "hands a script of its own to `shell`, which understands those of the library alone"
NO_PROCESSES = "a command is no process: how it ends is settled when it starts"
NO_FOLDERS = "there are plain files alone, no folders, links or FIFOs"
NO_PROGRAMS = "no program in a sandbox could be replaced by one that lies"

NOT_HERE = {
    NO_SH: (
        "test_a_closed_connection_still_works",
        "test_a_created_sandbox_runs_scripts_at_once",
        "test_a_script_past_its_deadline_is_an_error_of_unknown_outcome",
        "test_files_that_were_rolled_back_are_noticed_and_healed",
        "test_more_output_than_allowed_is_an_error_of_unknown_outcome",
        "test_shell_does_not_wait_for_what_runs_on_in_the_background",
        "test_shell_passes_every_byte_of_the_script",
        "test_shell_returns_large_output_complete",
        "test_shell_returns_standard_output_and_not_standard_error",
        "test_shell_serves_several_threads_at_once",
        "test_shell_takes_scripts_of_the_promised_length",
    ),
    NO_PROCESSES: (
        "test_a_background_command_is_collected_by_another_service",
        "test_a_child_left_in_the_background_does_not_hang_the_command",
        "test_a_file_is_replaced_in_one_step",
        "test_a_timeout_ends_the_command_and_all_its_children",
        "test_another_service_can_kill_a_command",
        "test_output_arrives_while_the_command_runs",
        "test_stopping_ends_the_commands_inside",
        "test_waiting_goes_on_after_lost_answers",
    ),
    NO_FOLDERS: (
        "test_a_bad_working_directory_is_an_error_and_nothing_runs",
        "test_a_fifo_does_not_hang_a_reader",
        "test_special_bits_and_outward_links_of_a_real_tree_do_not_come_out",
        "test_a_tree_comes_back_with_modes_and_links",
    ),
}
REASONS = {name: reason for reason, names in NOT_HERE.items() for name in names}


class AnotherAccount(FakeProvider):
    def account(self) -> str:
        return "fake:another"


@pytest.mark.slow
class TestFake(ProviderConformance):
    """Commands end as this machine's sh says; what needs more of a sandbox is skipped by name."""

    big_file_bytes = 1 << 20
    big_output_bytes = 1 << 20

    @pytest.fixture(scope="class")
    @classmethod
    def provider(cls, tmp_path_factory: pytest.TempPathFactory) -> FakeProvider:
        fake = FakeProvider(ProviderContext(environ={}))
        HostSh(fake, tmp_path_factory.mktemp("homes"))
        return fake

    @pytest.fixture(scope="class")
    @classmethod
    def other_account(cls) -> FakeProvider:
        return AnotherAccount(ProviderContext(environ={}))

    @pytest.fixture(scope="class")
    @classmethod
    def make_untagged(cls, provider: FakeProvider) -> Callable[[str], None]:
        def make(name: str) -> None:
            provider.add(name)

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def unreachable(cls, provider: FakeProvider) -> Callable[[], AbstractContextManager[None]]:
        return provider.unreachable

    @pytest.fixture(scope="class")
    @classmethod
    def liar(cls) -> None:
        pytest.skip(NO_PROGRAMS)

    @pytest.fixture(autouse=True)
    def _only_what_applies(self, request: pytest.FixtureRequest) -> None:
        reason = REASONS.get(request.function.__name__)
        if reason is not None:
            pytest.skip(reason)

    def test_what_does_not_apply_is_part_of_the_suites(self) -> None:
        assert [name for name in REASONS if not hasattr(type(self), name)] == []
