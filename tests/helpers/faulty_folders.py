"""One test class for each mistake that a provider can make; run by the suite's own tests.

Not collected by itself: each of these classes is there to fail.
"""

from __future__ import annotations

from typing import ClassVar

from helpers.folder_conformance import FolderFixtures

from ekairos_sandbox.testing.base import Suite
from ekairos_sandbox.testing.capabilities import CapabilitySuite
from ekairos_sandbox.testing.commands import CommandSuite
from ekairos_sandbox.testing.connection import ConnectionSuite
from ekairos_sandbox.testing.creation import CreationSuite
from ekairos_sandbox.testing.files import FileSuite
from ekairos_sandbox.testing.lifecycle import LifecycleSuite
from ekairos_sandbox.testing.processes import ProcessSuite
from ekairos_sandbox.testing.trouble import TroubleSuite

CAUGHT: dict[str, tuple[type[Suite], str]] = {
    "account_changes": (CreationSuite, "test_account_is_stable_text"),
    "account_tells_token": (
        CreationSuite,
        "test_no_secret_is_part_of_what_is_shown_or_recorded",
    ),
    "adopts_stopped": (
        LifecycleSuite,
        "test_what_is_created_again_after_it_was_stopped_runs",
    ),
    "adopts_strangers": (CreationSuite, "test_a_name_with_other_tags_is_a_conflict[owner]"),
    "borrows_unasked": (
        CreationSuite,
        "test_without_a_name_of_the_users_choice_nothing_is_borrowed",
    ),
    "connect_recreates": (TroubleSuite, "test_reading_never_makes_a_gone_sandbox_anew"),
    "create_not_idempotent": (CreationSuite, "test_creating_twice_adopts_the_first"),
    "deadline_ignored": (
        ConnectionSuite,
        "test_a_script_past_its_deadline_is_an_error_of_unknown_outcome",
    ),
    "destroy_hides_trouble": (
        TroubleSuite,
        "test_a_provider_that_cannot_be_reached_never_says_gone",
    ),
    "destroy_keeps": (LifecycleSuite, "test_destroying_twice_leaves_nothing"),
    "destroy_twice_fails": (LifecycleSuite, "test_several_may_stop_and_destroy_at_once"),
    "destroys_any_id": (
        CreationSuite,
        "test_another_external_id_under_the_name_is_gone_and_not_touched",
    ),
    "exit_code_wrong": (CommandSuite, "test_an_exit_code_is_the_commands_own[1]"),
    "find_raises": (CreationSuite, "test_find_of_an_unknown_name_is_none"),
    "finds_by_part": (CreationSuite, "test_a_name_is_not_found_by_a_part_of_it"),
    "forget_tags": (CreationSuite, "test_find_tells_id_tags_and_state"),
    "gone_on_timeout": (TroubleSuite, "test_a_provider_that_cannot_be_reached_never_says_gone"),
    "ignores_tags": (
        CreationSuite,
        "test_other_tags_under_the_name_are_gone_and_not_touched[incarnation]",
    ),
    "inspect_starts": (LifecycleSuite, "test_looking_at_a_stopped_sandbox_does_not_start_it"),
    "leaks_environment": (LifecycleSuite, "test_nothing_of_our_environment_is_inside"),
    "list_owned_misses": (
        CreationSuite,
        "test_list_owned_yields_every_sandbox_with_the_owner_tag",
    ),
    "lists_other_owners": (CreationSuite, "test_list_owned_of_another_owner_is_empty"),
    "loses_files_on_stop": (
        LifecycleSuite,
        "test_reconnecting_starts_a_stopped_sandbox_and_keeps_what_its_kind_keeps",
    ),
    "lose_stdout_tail": (ConnectionSuite, "test_shell_returns_large_output_complete"),
    "max_bytes_ignored": (
        ConnectionSuite,
        "test_more_output_than_allowed_is_an_error_of_unknown_outcome",
    ),
    "missing_file_is_empty": (FileSuite, "test_a_missing_file_is_not_found_and_never_empty"),
    "mode_ignored": (FileSuite, "test_modes_are_set_whatever_the_umask"),
    "read_file_short": (FileSuite, "test_contents_come_back_exactly"),
    "restore_does_nothing": (
        CapabilitySuite,
        "test_a_checkpoint_brings_the_files_back_and_commands_work_afterwards",
    ),
    "stderr_in_stdout": (
        ConnectionSuite,
        "test_shell_returns_standard_output_and_not_standard_error",
    ),
    "stop_deletes_borrowed": (
        CreationSuite,
        "test_a_sandbox_without_our_tags_is_borrowed_and_never_deleted_unasked",
    ),
    "stop_keeps_processes": (LifecycleSuite, "test_stopping_ends_the_commands_inside"),
    "stop_starts": (LifecycleSuite, "test_stopping_twice_changes_nothing_and_starts_nothing"),
    "stopped_is_gone": (LifecycleSuite, "test_a_stopped_sandbox_refuses_commands_and_files"),
    "stopped_still_runs_scripts": (
        LifecycleSuite,
        "test_a_stopped_sandbox_refuses_commands_and_files",
    ),
    "times_in_seconds": (CreationSuite, "test_the_time_of_creation_is_in_milliseconds"),
    "undeclared_preview": (
        ConnectionSuite,
        "test_the_connection_offers_exactly_what_the_provider_declares",
    ),
    "unknown_checkpoint_is_ignored": (
        CapabilitySuite,
        "test_an_unknown_checkpoint_is_not_found_and_changes_nothing",
    ),
    "write_not_atomic": (FileSuite, "test_a_write_that_breaks_off_replaces_nothing"),
}
"""Each mistake, and the test that must not let it pass."""

TOLERATED: dict[str, tuple[type[Suite], str]] = {
    "resends": (ProcessSuite, "test_the_same_command_id_runs_once"),
}
"""What is no provider's mistake: a transport that sends every request twice."""

for _fault, (_suite, _) in {**CAUGHT, **TOLERATED}.items():
    globals()[f"Test_{_fault}"] = type(
        f"Test_{_fault}",
        (FolderFixtures, _suite),
        {
            "__module__": __name__,
            "environ": {"EKAIROS_FOLDER_FAULTS": _fault},
            "settle_s": 0.5,
        },
    )


class Test_expected(FolderFixtures, CreationSuite):
    """A mistake that is known, and one that is said to be and is not made."""

    environ: ClassVar[dict[str, str]] = {"EKAIROS_FOLDER_FAULTS": "account_changes"}
    expected_failures: ClassVar[dict[str, str]] = {
        "test_account_is_stable_text": "accounts change here",
        "test_find_of_an_unknown_name_is_none": "not true",
    }
