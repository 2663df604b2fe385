"""Mistakes that newcomers make: each gets one clear line, a hint, and its exit code."""

from __future__ import annotations

import shlex

import pytest
from helpers.command_line import CommandLine

MISSING = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"

# What is typed (ID stands for a sandbox that runs), the exit code, and what the line says.
MISTAKES = [
    ("frobnicate", 2, "no such command 'frobnicate'"),
    ("list", 2, "ls"),
    ("-x", 2, "no such option '-x'"),
    ("--store", 2, "'--store' requires an argument"),
    ("--store foo ls", 2, "'--store': this is no store; use instantdb, sqlite:///"),
    ("ls --store ./x.db", 2, "this is no store"),
    ("ls --store sqlite://x.db", 2, "this is no store"),
    ("ls --store ''", 2, "this is no store"),
    ("ls --store sqlite:////dev/null", 100, "/dev/null"),
    ("ls --store instantdb", 100, "INSTANT_APP_ID and INSTANT_APP_ADMIN_TOKEN"),
    ("ls --limit 0", 2, "'--limit'"),
    ("ls --limit x", 2, "'--limit'"),
    ("ls --newer yesterday", 2, "'yesterday' is no duration; write 90"),
    ("ls --newer 99999999999999999d", 2, "it must be at most 11574d"),
    ("extend ID 11575d", 2, "it must be at most 11574d"),
    ("wait ID cmd-1 --timeout 11575d", 2, "it must be at most 11574d"),
    ("purge ID --older 999999999999999999999999d", 2, "it must be at most 11574d"),
    ("ls extra", 2, "extra argument (extra)"),
    ("ls --purpose", 2, "'--purpose' requires an argument"),
    ("create --provider nowhere", 100, "no provider 'nowhere' is installed; installed: "),
    ("create --provider foldr", 100, "no provider 'foldr' is installed"),
    ("create --provider Folder", 100, "is not a provider name"),
    ("create --provider ''", 100, "is not a provider name"),
    ("create folder", 2, "extra argument (folder)"),
    ("create --timeout 10x", 2, "'10x' is no duration"),
    ("create --timeout 0", 2, "it must be at least 1s"),
    ("create --timeout -5", 2, "'-5' is no duration"),
    ("create --port 8080", 111, "cannot honour ports=(8080,)"),
    ("create --port 99999", 100, "ports.0: "),
    ("create --port abc", 2, "'abc' is not a valid integer"),
    ("create --vcpus 0", 100, "resources.vcpus: "),
    ("create --vcpus many", 2, "'many' is not a valid float"),
    ("create -e 'A B=1'", 2, "a variable is written NAME=VALUE"),
    ("create -e UNSET_XYZ", 2, "UNSET_XYZ is not set here"),
    ("create --env-from UNSET_XYZ", 100, "UNSET_XYZ"),
    ("create --env-from 'x y'", 100, "is not a variable name"),
    ("create --param foo", 2, "write KEY=VALUE"),
    ("create --param ekairos=1", 100, "which is reserved"),
    ("create -o name", 2, "write KEY=VALUE"),
    ("create -o nam=x", 100, "nam: Extra inputs are not permitted"),
    ("create --config nofile.json", 2, "'nofile.json': No such file or directory"),
    ("create --config /etc/passwd", 2, "the file holds no JSON object"),
    ("create --id 123", 2, "'123' is no sandbox id; a sandbox id is a UUID"),
    ("create --on-gone explode", 2, "'explode' is not one of"),
    (f"create --purpose {'x' * 300}", 100, "purpose: "),
    ("run", 2, "missing argument 'ID'"),
    ("run ID", 2, "write `--` before the command: `ekairos-sandbox run ID -- ls -l`"),
    ("run ID --", 2, "the command is missing"),
    ("run -- ls", 2, "missing argument 'ID'"),
    ("run ID ls", 2, "write `--` before the command"),
    ("run ID ls -la", 2, "write `--` before the command"),
    ("run ID ID -- ls", 2, "extra argument"),
    ("run nobody -- ls", 2, "'nobody' is no sandbox id"),
    (f"run {MISSING} -- ls", 101, f"no sandbox has the id {MISSING}"),
    ("run ID --timeout abc -- ls", 2, "'abc' is no duration"),
    ("run ID --timeout 0 -- ls", 2, "it must be at least 0.001s"),
    ("run ID --frob -- ls", 2, "no such option '--frob'"),
    ("run ID -w '' -- ls", 2, "--cwd is empty"),
    ("run ID -w /nowhere -- ls", 110, "the command did not run"),
    ("run ID -e 1A=2 -- ls", 2, "a variable is written NAME=VALUE"),
    ("run ID --command-id ../x -- ls", 2, "'../x' is no command id"),
    ("run ID --shell -- ls -l", 2, "with --shell the command is one word"),
    ("run ID -- ''", 2, "the command is empty"),
    ("start ID", 2, "write `--` before the command: `ekairos-sandbox start ID -- ls -l`"),
    ("logs ID", 2, "missing argument 'COMMAND'"),
    ("logs ID cmd-1", 101, "the sandbox knows no command cmd-1"),
    ("logs ID 'a b'", 2, "'a b' is no command id"),
    ("wait ID nope", 101, "the sandbox knows no command nope"),
    ("wait ID nope --timeout x", 2, "'x' is no duration"),
    ("kill ID nope", 101, "the sandbox knows no command nope"),
    ("ps", 2, "missing argument 'ID'"),
    (f"ps {MISSING}", 101, "no sandbox has the id"),
    ("put ID", 2, "missing argument 'LOCAL'"),
    ("put ID nofile", 1, "No such file or directory: 'nofile'"),
    (f"put {MISSING} /etc/hosts", 101, "no sandbox has the id"),
    ("put ID /etc/hosts ''", 2, "REMOTE is missing"),
    ("get ID", 2, "missing argument 'REMOTE'"),
    ("get ID nope", 101, "no such file in the sandbox"),
    ("get ID /", 2, "LOCAL is missing"),
    ("get ID '' x", 2, "the path is empty"),
    (f"show {MISSING}", 101, "no sandbox has the id"),
    ("show x", 2, "'x' is no sandbox id"),
    ("stop", 2, "missing argument 'ID...'"),
    ("destroy all", 2, "'all' is no sandbox id"),
    (f"reconnect {MISSING}", 101, "no sandbox has the id"),
    ("url ID 0", 2, "'PORT'"),
    ("url ID http", 2, "'PORT'"),
    ("extend ID forever", 2, "'forever' is no duration"),
    ("checkpoint create", 2, "missing argument 'ID'"),
    ("checkpoint delete ID x", 2, "no such command 'delete'"),
    ("checkpoint restore ID nope", 101, "the sandbox has no checkpoint 'nope'"),
    ("providers nope", 100, "no provider 'nope' is installed"),
    ("reconcile --destroy-unrecorded", 2, "--destroy-unrecorded needs --apply"),
    ("reconcile --provider nope", 100, "no provider 'nope' is installed"),
    ("purge ID --older -1", 2, "'-1' is no duration"),
    ("store rekey", 2, "say which: --moved or --copied"),
    ("store frob", 2, "no such command 'frob'"),
    ("schema push", 100, "InstantDB needs an app id"),
    ("rules push", 100, "InstantDB needs an app id"),
    ("doctor --provider nope", 100, "no provider 'nope' is installed"),
    ("doctor --fix", 2, "no such option '--fix'"),
]


def test_each_mistake_gets_one_clear_line(cli: CommandLine, sandbox: str) -> None:
    wrong = []
    for typed, code, text in MISTAKES:
        done = cli(*(sandbox if word == "ID" else word for word in shlex.split(typed)))
        error, *hints = done.stderr.splitlines() or [""]
        if (
            (done.code, done.out) != (code, "")
            or not error.startswith("error: ")
            or text not in error
            or len(hints) > 1
            or not all(line.startswith("hint: ") for line in hints)
            or (code == 2 and not hints)
        ):
            wrong.append((typed, done))
    assert wrong == []


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"EKAIROS_SANDBOX_STORE": "postgres://u:s3cret@h/db"}, "is not a store"),
        ({"EKAIROS_SANDBOX_STORE": "", "INSTANT_APP_ID": MISSING}, "INSTANT_APP_ADMIN_TOKEN"),
        ({"EKAIROS_SANDBOX_STORE": "", "INSTANT_APP_ADMIN_TOKEN": "s3cret"}, "INSTANT_APP_ID"),
        ({"SANDBOX_PROVIDER": "rm -rf s3cret"}, "SANDBOX_PROVIDER is not a provider name"),
        ({"EKAIROS_FOLDER_FAULTS": "nonsense"}, "unknown faults"),
    ],
)
def test_wrong_variables_are_named_without_their_values(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str
) -> None:
    with monkeypatch.context() as context:
        for name, value in variables.items():
            context.setenv(name, value)
        done = cli("create")
    assert (done.code, done.out) == (100, "")
    assert text in done.stderr
    assert "s3cret" not in done.stderr


def test_a_store_that_is_refused_is_not_repeated(cli: CommandLine) -> None:
    done = cli("ls", "--store", "postgres://user:s3cret@host/db")
    assert done.code == 2
    assert "s3cret" not in done.stderr


def test_a_group_alone_shows_its_help(cli: CommandLine) -> None:
    for words in ((), ("checkpoint",), ("store",), ("schema",), ("rules",)):
        done = cli(*words)
        assert (done.code, done.out) == (2, "")
        assert done.stderr.startswith("Usage: ekairos-sandbox")


def test_a_defect_is_one_line_unless_its_traceback_is_asked_for(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret-value")

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a defect near s3cret-value")

    with monkeypatch.context() as context:
        context.setattr("ekairos_sandbox.service.SandboxService.from_env", broken)
        done = cli("create")
        assert done.code == 1
        assert done.stderr.splitlines()[0] == "error: RuntimeError: a defect near ***"
        assert "Traceback" in cli("--debug", "create").stderr
