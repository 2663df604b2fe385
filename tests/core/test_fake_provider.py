"""What tests of applications use in the place of a provider."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.memory_world import ManualClock

from ekairos_sandbox import (
    OutcomeUnknownError,
    ProviderUnavailableError,
    RaisingService,
    RemoteFileError,
    RemoteFileNotFoundError,
    SandboxGoneError,
    SandboxService,
)
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing import (
    FakeCommand,
    FakeProvider,
    FakeResult,
    MemorySandboxRepository,
)


class App:
    """An application's service over a fake provider."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        context = ProviderContext(environ={}, clock=self.clock)
        self.fake = FakeProvider.standing_for("sprites", context)
        self.store = MemorySandboxRepository()
        self.service = self.again()

    def again(self) -> RaisingService:
        return SandboxService(
            self.store, environ={}, clock=self.clock, providers=[self.fake]
        ).raising


@pytest.fixture
def app() -> App:
    return App()


def test_commands_end_as_scripted(app: App) -> None:
    app.fake.on("python", stdout="42\n")
    app.fake.on(lambda argv: argv[:2] == ("git", "clone"), exit_code=128, stderr="fatal: no\n")
    sandbox = app.service.create_sandbox()
    assert sandbox.run_command("python", ["-c", "print('%s')"]).output == "42\n"
    cloned = sandbox.run_command("git", ["clone", "x"])
    assert (cloned.exit_code, cloned.error) == (128, "fatal: no\n")
    assert sandbox.record().provider == "sprites"


def test_a_command_that_was_not_scripted_says_so(app: App) -> None:
    result = app.service.create_sandbox().run_command("ls")
    assert (result.exit_code, result.error) == (127, "ls: no result was scripted for it\n")


def test_what_was_said_last_counts_first(app: App) -> None:
    app.fake.on("a", stdout="first")
    app.fake.on("a", stdout="second")
    assert app.service.create_sandbox().run_command("a").output == "second"


def test_started_commands_are_kept_with_all_that_was_given(app: App) -> None:
    sandbox = app.service.create_sandbox(env={"SECRET": "s\n'é'", "UID": "7"})
    words = ["", "it's", "línea\n", "-x", "%s\\"]
    env = {"A": "1 '2'\n", "B": "", "C": "é"}
    sandbox.run_command("a", words, stdin=b"\x00in\xff", env=env, cwd="it's/à\nla")
    [command] = app.fake.commands
    assert command.argv == ("a", *words)
    assert command.stdin == b"\x00in\xff"
    assert command.env == env
    assert command.cwd == "/home/fake/it's/à\nla"
    assert command.sandbox_env == {"SECRET": "s\n'é'", "UID": "7"}
    assert command.sandbox_id == sandbox.sandbox_id


def test_a_command_without_a_working_directory_is_in_the_home(app: App) -> None:
    app.service.create_sandbox().run_command("a")
    assert app.fake.commands[0].cwd == "/home/fake"


def test_an_environment_too_large_for_one_call_is_kept(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekairos_sandbox.jobs.prepare.INLINE_SCRIPT_BYTES", 10_000)
    env = {"A": "'1'\n", "BIG": "x" * 10_000}
    sandbox = app.service.create_sandbox(env=env)
    sandbox.run_command("a")
    assert app.fake.commands[0].sandbox_env == env
    assert app.fake.sandbox(sandbox.sandbox_id).files == {}


def test_an_exit_code_that_no_program_has_is_refused(app: App) -> None:
    with pytest.raises(ValueError, match="from 0 to 255"):
        app.fake.on("a", exit_code=256)


def test_a_handler_sees_files_and_may_change_them(app: App) -> None:
    def copy(command: FakeCommand) -> FakeResult | None:
        if command.argv[0] != "cp":
            return None
        guest = app.fake.sandbox(command.sandbox_id).guest
        guest.files[command.argv[2]] = guest.files[command.argv[1]]
        return FakeResult()

    app.fake.handle(copy)
    sandbox = app.service.create_sandbox()
    sandbox.write_files({"/data/a": b"content"})
    sandbox.run_command("cp", ["/data/a", "/data/b"]).check()
    assert sandbox.read_file("/data/b") == b"content"
    assert app.fake.sandbox(sandbox.sandbox_id).files["/data/a"] == b"content"


def test_large_input_and_output_pass(app: App) -> None:
    app.fake.handle(lambda command: FakeResult(stdout=command.stdin * 2))
    sandbox = app.service.create_sandbox()
    given = bytes(range(256)) * 1000
    result = sandbox.run_command("double", stdin=given)
    assert (result.stdout_size, result.truncated) == (512_000, True)
    assert result.stdout[:10] == given[:10]
    output = b"".join(sandbox.get_command(result.command_id).output())
    assert output == given * 2


def test_a_command_is_started_once_whatever_is_repeated(app: App) -> None:
    app.fake.on("pay", stdout="paid")
    sandbox = app.service.create_sandbox()
    lost = ProviderUnavailableError("lost", outcome="unknown")
    app.fake.fail("shell", lost, times=3, after_effect=True)
    assert sandbox.run_command("pay", command_id="invoice-1").output == "paid"
    assert sandbox.run_command("pay", command_id="invoice-1").output == "paid"
    assert len(app.fake.commands) == 1


def test_a_long_command_ends_on_the_clock_and_is_found_by_another_process(app: App) -> None:
    app.fake.on("train", stdout="done", duration_s=3600)
    sandbox = app.service.create_sandbox()
    command = sandbox.start_command("train")
    assert command.state() == "running"
    again = app.again().get_sandbox(sandbox.sandbox_id).get_command(command.command_id)
    before = app.clock.now_ms()
    assert again.wait().output == "done"
    assert app.clock.now_ms() - before >= 3_500_000


def test_a_command_past_its_timeout_and_a_killed_one_say_so(app: App) -> None:
    app.fake.on("sleep", duration_s=60)
    sandbox = app.service.create_sandbox()
    assert sandbox.run_command("sleep", timeout_s=5).timed_out
    assert sandbox.start_command("sleep").kill().cancelled


def test_files_have_the_contracts_errors(app: App) -> None:
    sandbox = app.service.create_sandbox()
    sandbox.write_files({"dir/empty": b""})
    assert sandbox.read_file("dir/empty") == b""
    with pytest.raises(RemoteFileNotFoundError):
        sandbox.read_file("dir/other")
    with pytest.raises(RemoteFileError):
        sandbox.read_file("dir")


def test_a_file_that_is_in_the_way_of_another_is_an_error(app: App) -> None:
    sandbox = app.service.create_sandbox()
    sandbox.write_files({"a": b"1"})
    with pytest.raises(RemoteFileError):
        sandbox.write_files({"a/b": b"2"})
    assert app.fake.sandbox(sandbox.sandbox_id).files == {"/home/fake/a": b"1"}


@pytest.mark.parametrize("name", ["a.bin", "línea", "with space/and 'quote'", "línea\n2"])
def test_single_files_go_up_and_down(app: App, tmp_path: Path, name: str) -> None:
    sandbox = app.service.create_sandbox()
    (tmp_path / "up").write_bytes(b"\x00\xff content")
    (tmp_path / "up").chmod(0o640)
    assert sandbox.upload(tmp_path / "up", name).bytes == 10
    assert sandbox.download(name, tmp_path / "down").bytes == 10
    assert (tmp_path / "down").read_bytes() == b"\x00\xff content"
    assert (tmp_path / "down").stat().st_mode & 0o777 == 0o640
    with pytest.raises(RemoteFileNotFoundError):
        sandbox.download("other", tmp_path / "none")


def test_a_failed_creation_leaves_nothing_and_a_lost_sandbox_is_made_anew(app: App) -> None:
    app.fake.fail("create", ProviderUnavailableError("no capacity"))
    with pytest.raises(ProviderUnavailableError):
        app.service.create_sandbox()
    assert app.fake.sandboxes == {}
    app.fake.on("true")
    sandbox = app.service.create_sandbox()
    app.fake.lose(sandbox.sandbox_id)
    with pytest.raises(SandboxGoneError):
        sandbox.read_file("x")
    assert sandbox.run_command("true").recreated


def test_checkpoints_bring_files_back(app: App) -> None:
    app.fake.on("true")
    sandbox = app.service.create_sandbox()
    sandbox.write_files({"a": b"1"})
    kept = sandbox.create_checkpoint("one")
    sandbox.write_files({"a": b"2"})
    sandbox.restore_checkpoint(kept.id)
    assert sandbox.read_file("a") == b"1"
    assert sandbox.run_command("true").success


def test_what_ran_when_the_sandbox_was_stopped_is_lost(app: App) -> None:
    app.fake.on("train", duration_s=3600)
    sandbox = app.service.create_sandbox()
    command = sandbox.start_command("train")
    sandbox.stop()
    sandbox.reconnect()
    assert command.state() == "lost"
    with pytest.raises(OutcomeUnknownError):
        command.wait()


def test_purging_heeds_how_long_ago_a_command_ended(app: App) -> None:
    app.fake.on("true")
    sandbox = app.service.create_sandbox()
    sandbox.run_command("true")
    assert sandbox.purge_commands() == 0
    app.clock.sleep(8 * 86400)
    assert sandbox.purge_commands() == 1


def test_nothing_can_be_reached_as_long_as_a_block_lasts(app: App) -> None:
    app.fake.on("true")
    sandbox = app.service.create_sandbox()
    with app.fake.unreachable():
        with pytest.raises(ProviderUnavailableError):
            sandbox.run_command("true")
        with pytest.raises(ProviderUnavailableError):
            app.service.create_sandbox()
    assert len(app.fake.sandboxes) == 1
    assert not sandbox.run_command("true").recreated


def test_a_capability_can_be_made_to_fail_too(app: App) -> None:
    sandbox = app.service.create_sandbox()
    app.fake.fail("checkpoints", ProviderUnavailableError("lost", outcome="unknown"))
    with pytest.raises(ProviderUnavailableError):
        sandbox.create_checkpoint()
    assert sandbox.list_checkpoints() == []


def test_a_sandbox_that_the_user_made_can_be_used_by_its_name(app: App) -> None:
    app.fake.on("true")
    made = app.fake.add("mine")
    made.guest.write("/data/a", b"content", 0o644)
    sandbox = app.service.create_sandbox(provider_options={"sprites": {"name": "mine"}})
    assert sandbox.read_file("/data/a") == b"content"
    assert app.fake.sandbox(sandbox.sandbox_id) is made
    sandbox.run_command("true")
    assert app.fake.commands[0].sandbox_id == sandbox.sandbox_id
