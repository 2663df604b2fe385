"""Starting up: what is imported, what happens without the extra, completion."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.command_line import CommandLine

HEAVY = {"requests", "urllib3", "rich", "pydantic", "sqlite3", "pluggy", "tenacity", "ssl"}


def loaded_by(cli: CommandLine, *words: str) -> set[str]:
    """Return the modules that an invocation has loaded at its end."""
    script = (
        "import sys\n"
        "from ekairos_sandbox.cli.main import main\n"
        f"code = main({list(words)!r})\n"
        "print(chr(10).join(sys.modules), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=cli.process_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",)])
def test_help_loads_nothing_heavy_and_no_provider(cli: CommandLine, words: tuple[str, ...]) -> None:
    loaded = loaded_by(cli, *words)
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith(("ekairos_sandbox_", "cli_"))} == set()


def test_what_is_printed_into_a_pipe_needs_no_rich_and_no_http(
    cli: CommandLine, sandbox: str
) -> None:
    loaded = loaded_by(cli, "ls")
    assert loaded & {"rich", "requests", "urllib3"} == set()
    assert {name for name in loaded if name.startswith(("ekairos_sandbox_", "cli_"))} == set()


def test_the_library_needs_neither_click_nor_rich() -> None:
    script = (
        "import sys\n"
        "from ekairos_sandbox import SandboxService, InstantClient\n"
        "sys.exit(bool({'click', 'rich', 'ekairos_sandbox.cli'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["click", "rich"])
def test_without_the_extra_one_line_says_how_to_install_it(name: str) -> None:
    script = (
        "import importlib.util, runpy\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda n, *a: None if n == {name!r} else find(n, *a)\n"
        "runpy.run_module('ekairos_sandbox', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    line = f"the command line needs {name}: pip install 'ekairos-sandbox[cli]'\n"
    assert done.stderr == line


def complete(cli: CommandLine, *words: str) -> list[str]:
    done = cli.process(
        environ={
            "_EKAIROS_SANDBOX_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("ekairos-sandbox", *words)),
            "COMP_CWORD": str(len(words)),
        }
    )
    assert done.code == 0
    return [line.partition(",")[2] for line in done.out.splitlines() if line]


def test_commands_options_and_ids_are_completed(cli: CommandLine) -> None:
    first, second = cli.create(), cli.create()
    assert complete(cli, "rec") == ["reconcile", "reconnect"]
    assert "--timeout" in complete(cli, "run", "--t")
    assert complete(cli, "run", first[:12]) == [first]
    assert set(complete(cli, "destroy", first, "")) == {first, second}


def test_completion_never_fails_and_makes_no_store(cli: CommandLine) -> None:
    assert complete(cli, "show", "x") == []
    assert not (cli.home / "records.db").exists()
    cli.environ["EKAIROS_SANDBOX_STORE"] = "nonsense"
    assert complete(cli, "show", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_for_completion(cli: CommandLine, shell: str) -> None:
    path = os.environ["PATH"]
    if not any(os.access(f"{folder}/{shell}", os.X_OK) for folder in path.split(":")):
        pytest.skip(f"needs {shell}")
    done = cli.process(environ={"_EKAIROS_SANDBOX_COMPLETE": f"{shell}_source"})
    assert "ekairos-sandbox" in done.out
