"""``ekairos-daytona-local`` with a stub docker that writes its arguments down."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ekairos_sandbox_daytona.oss import api as oss_api
from ekairos_sandbox_daytona.oss.main import main
from helpers import local_stack
from helpers.local_stack import HANGS, Repository, StartingClock, StubDocker, environment, free_port
from helpers.memory_world import ManualClock

CONFIG = {
    "version": "v0.190.0",
    "oidc": {"issuer": "http://localhost:5556/dex"},
    "proxyToolboxUrl": "http://localhost:4000/toolbox",
}


class Site:
    """A checkout, a stub docker and a compose file whose API has a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docker = StubDocker(folder / "stub")
        self.home = folder / "daytona-oss"
        self.compose = str(self.home / "docker" / "docker-compose.yaml")
        self.port = free_port()
        self.url = f"http://localhost:{self.port}/api"
        self.clock: ManualClock = ManualClock()
        self.platform = "linux"
        self.servers = ExitStack()
        self.asked: list[str] = []
        self.docker.describe(self.config())

    def config(self) -> dict[str, Any]:
        """What docker says of the compose file."""
        return {
            "name": "daytona",
            "services": {
                "api": {"ports": [{"target": 3000, "published": str(self.port)}]},
                "db": {},
            },
            "volumes": {"db_data": {"name": "daytona_db_data"}, "minio_data": None},
        }

    def serve(self, body: Any = CONFIG, *, statuses: tuple[int, ...] = ()) -> None:
        """Let the API answer from now on."""
        self.asked = self.servers.enter_context(local_stack.api(self.port, body, statuses=statuses))

    def environ(self, **more: str) -> dict[str, str]:
        """An environment with git and the stub."""
        environ = environment(self.folder, "git", DAYTONA_OSS_HOME=str(self.home), **more)
        environ["STUB_DOCKER"] = str(self.docker.folder)
        environ["PATH"] = f"{self.docker.folder}:{environ['PATH']}"
        return environ

    def run(self, *argv: str, path: str | None = None, **more: str) -> int:
        """Run the program with the stub, or with another ``PATH``."""
        environ = self.environ(**more)
        environ["PATH"] = path or environ["PATH"]
        return main(argv, environ=environ, clock=self.clock, platform=self.platform)

    def composed(self) -> list[list[str]]:
        """The arguments of ``docker compose`` that change or show something."""
        asking = ("version", "config", "ps --quiet --status running")
        calls = [call[1:] for call in self.docker.calls() if call[0] == "compose"]
        words = [call[2:] if call[0] == "--file" else call for call in calls]
        return [call for call in words if not " ".join(call).startswith(asking)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A stack that is not running, with its sources checked out."""
    site = Site(tmp_path)
    (site.home / ".git").mkdir(parents=True)
    Path(site.compose).parent.mkdir()
    Path(site.compose).write_text("services: {}\n")
    with site.servers:
        yield site


@pytest.fixture
def starting(site: Site) -> Site:
    """The same, whose API answers after the first pause."""
    site.clock = StartingClock(site.serve)
    return site


def _sdk(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(oss_api, "installed_sdk", lambda: ("daytona", version))


def test_up_starts_waits_and_says_how_to_use_it(
    starting: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _sdk(monkeypatch, "0.190.2")
    assert starting.run("up") == 0
    assert [*starting.docker.calls()][-1] == [
        "compose",
        "--file",
        starting.compose,
        "up",
        "--detach",
    ]
    assert starting.asked == ["/api/config"]
    assert starting.clock.slept == [2.0]
    said = capsys.readouterr()
    assert said.err == ""
    for line in (
        f"waiting for the API at {starting.url}",
        f"Daytona v0.190.0 answers at {starting.url}",
        f"Dashboard  http://localhost:{starting.port}/dashboard",
        "user dev@daytona.io",
        "API key    in the dashboard, under Keys",
        "export SANDBOX_PROVIDER='daytona'",
        f"export DAYTONA_API_URL='{starting.url}'",
        "export DAYTONA_API_KEY='<the key>'",
        "pip install 'daytona==0.190.*'",
    ):
        assert line in said.out


def test_up_gives_powershell_lines_on_windows(
    starting: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    starting.platform = "win32"
    assert starting.run("up") == 0
    assert f'$env:DAYTONA_API_URL = "{starting.url}"' in capsys.readouterr().out


def test_up_waits_while_the_api_is_not_ready(site: Site) -> None:
    site.clock = StartingClock(lambda: site.serve(statuses=(502, 503, 404)))
    assert site.run("up") == 0
    assert site.clock.slept == [2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("installed", ["0.191.0", "0.226.1", "1.0.0", "2.0.0a3"])
def test_up_warns_of_an_sdk_that_is_newer_than_the_api(
    installed: str,
    starting: Site,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _sdk(monkeypatch, installed)
    assert starting.run("up") == 0
    said = capsys.readouterr()
    assert f"warning: daytona {installed} is newer than this API" in said.err
    assert "pip install 'daytona==0.190.*'" in said.out


@pytest.mark.parametrize(
    ("platform", "file"),
    [("linux", "/etc/hosts"), ("win32", r"C:\Windows\System32\drivers\etc\hosts")],
)
def test_up_warns_when_the_host_of_commands_is_not_known(
    platform: str, file: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    label = "x" * 64  # longer than a name may be, so nobody is asked
    toolbox = f"http://proxy.{label}.localhost:4000/toolbox"
    site.clock = StartingClock(lambda: site.serve({**CONFIG, "proxyToolboxUrl": toolbox}))
    site.platform = platform
    assert site.run("up") == 0
    assert f"add the line `127.0.0.1 proxy.{label}.localhost` to {file}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("api", "requirement"),
    [
        ("v0.190.0", "daytona==0.190.*"),
        ("0.187.0", "daytona==0.190.*"),
        ("0.231.4", "daytona==0.231.*"),
        ("", "daytona==0.190.*"),
        ("development", "daytona==0.190.*"),
    ],
)
def test_sdk_that_fits_is_the_newest_that_is_not_newer_than_the_api(
    api: str, requirement: str
) -> None:
    assert oss_api.Api("http://localhost:3000/api", api).sdk_requirement == requirement


def test_installed_sdk_is_the_one_of_this_environment() -> None:
    installed = oss_api.installed_sdk()
    assert installed is not None
    assert installed[0] == "daytona"
    assert installed[1][0].isdigit()


def test_up_makes_the_checkout_when_there_is_none(
    starting: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path / "origin")
    starting.home.rename(tmp_path / "away")
    instead = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.folder}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/daytonaio/daytona",
    }
    assert starting.run("up", **instead) == 0
    assert Path(starting.compose).is_file()
    assert f"cloning v0.190.0 into {starting.home}" in capsys.readouterr().out


def test_up_runs_the_version_that_the_variable_names(
    starting: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path / "origin")
    starting.home.rename(tmp_path / "away")
    assert starting.run("init", "--repository", str(repository.folder)) == 0
    assert starting.run("up", DAYTONA_OSS_REF="stable") == 0
    assert (starting.home / "README.md").read_text() == "0.189\n"
    starting.docker.reply("compose ps --quiet --status running", out="3f1c\n")
    Path(starting.compose).write_text("# mine\n")
    assert starting.run("up", DAYTONA_OSS_REF="stable") == 0
    assert starting.run("up") == 0
    assert starting.run("up", DAYTONA_OSS_REF="v0.190.0") == 8
    assert Path(starting.compose).read_text() == "# mine\n"


def test_docker_that_is_not_installed_is_an_error_of_its_own(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("up", "down", "restart", "status", "logs", "clean"):
        assert site.run(command, path=str(site.folder / "bin")) == 4
        assert capsys.readouterr().err.splitlines() == [
            "error: docker is not installed",
            "hint: install Docker Desktop, or Docker Engine with the compose plugin",
        ]


def test_docker_without_its_compose_plugin_is_named(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.docker.reply("compose version", code=1, err="docker: 'compose' is not a docker command.\n")
    assert site.run("up") == 4
    assert "error: docker has no compose plugin" in capsys.readouterr().err
    assert site.composed() == []


@pytest.mark.parametrize(
    ("platform", "said", "error", "hint"),
    [
        (
            "linux",
            "Cannot connect to the Docker daemon",
            "no Docker daemon is running",
            "systemctl",
        ),
        ("darwin", "Cannot connect to the Docker daemon", "no Docker daemon is running", "Desktop"),
        ("win32", "error during connect", "no Docker daemon is running", "Desktop"),
        ("linux", "permission denied while", "the Docker daemon may not be used", "group docker"),
    ],
)
def test_daemon_that_does_not_answer_is_an_error_of_its_own(
    platform: str,
    said: str,
    error: str,
    hint: str,
    site: Site,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site.platform = platform
    site.docker.reply("info", code=1, err=f"{said} at unix:///var/run/docker.sock\n")
    assert site.run("up") == 5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {error}"
    assert hint in lines[1]
    assert site.composed() == []


def test_port_that_is_taken_is_named_before_anything_starts(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.serve()
    assert site.run("up") == 6
    assert (
        f"error: another program has a port that the stack needs: {site.port}\n"
        in capsys.readouterr().err
    )
    assert site.composed() == []


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: Bind for 0.0.0.0:5556 failed: port is already allocated",
        "Error response from daemon: failed to bind host port 0.0.0.0:80: address already in use",
    ],
)
def test_port_that_docker_finds_taken_is_the_same_error(
    said: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.docker.reply("compose up", code=1, err=f" Container daytona-api-1  Starting\n{said}\n")
    assert site.run("up") == 6
    assert f"the stack needs: {said}" in capsys.readouterr().err


def test_stack_that_runs_already_does_not_stand_in_its_own_way(site: Site) -> None:
    site.docker.reply("compose ps --quiet --status running", out="3f1c\n")
    site.serve()
    assert site.run("up") == 0
    assert site.composed() == [["up", "--detach"]]


def test_failing_docker_is_reported_with_its_reason(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.docker.reply("compose up", code=18, err="pulling\nError: manifest unknown\n")
    assert site.run("up") == 1
    said = capsys.readouterr().err
    assert "pulling\n" in said  # what docker says is passed on
    assert said.splitlines()[-1] == "error: docker compose up failed: Error: manifest unknown"


def test_api_that_never_answers_ends_the_wait(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.run("up", "--timeout", "60") == 10
    assert site.clock.slept == [2.0] * 30
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"error: the API did not answer at {site.url} within 60 s: ")
    assert said[1].startswith("hint: see `ekairos-daytona-local logs api`")


def test_something_else_on_the_port_is_not_taken_for_daytona(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.clock = StartingClock(lambda: site.serve({"version": "1.2"}))
    assert site.run("up", "--timeout", "10") == 10
    assert "something else than Daytona answers" in capsys.readouterr().err


def test_commands_are_passed_to_docker_compose(site: Site) -> None:
    assert site.run("down") == 0
    assert site.run("logs") == 0
    assert site.run("logs", "--follow", "--tail", "all", "api", "runner") == 0
    assert site.run("status") == 0
    assert site.composed() == [
        ["down"],
        ["logs", "--tail", "200"],
        ["logs", "--tail", "all", "--follow", "api", "runner"],
        ["ps", "--all"],
    ]


def test_restart_stops_starts_and_waits(starting: Site) -> None:
    assert starting.run("restart") == 0
    assert starting.composed() == [["down"], ["up", "--detach"]]
    assert starting.asked == ["/api/config"]


def test_status_says_who_answers(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _sdk(monkeypatch, "0.226.1")
    assert site.run("status") == 0
    assert f"the API does not answer at {site.url}" in capsys.readouterr().out
    site.serve()
    assert site.run("status") == 0
    said = capsys.readouterr()
    assert f"Daytona v0.190.0 answers at {site.url}" in said.out
    assert "daytona 0.226.1 is newer than this API" in said.err


def test_clean_says_what_it_would_remove_and_needs_a_yes(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    assert site.run("clean") == 11
    assert site.composed() == []
    said = capsys.readouterr()
    assert "  daytona_db_data\n  minio_data\n" in said.out
    assert "hint: confirm it with --yes" in said.err
    assert site.run("clean", "--yes") == 0
    assert site.composed() == [["down", "--volumes", "--remove-orphans"]]
    assert Path(site.compose).is_file()


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("Yes\n", 0), ("\n", 11), ("", 11)])
def test_clean_asks_at_a_terminal(
    typed: str, code: int, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO(typed)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert site.run("clean") == code
    assert bool(site.composed()) == (code == 0)


def test_compose_file_of_ones_own_is_used_in_its_place(site: Site, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("services: {}\n")
    assert site.run("down", DAYTONA_OSS_COMPOSE=str(own)) == 0
    assert site.docker.calls()[-1] == ["compose", "--file", str(own), "down"]


def test_compose_file_that_is_not_there_is_named(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.run("up", DAYTONA_OSS_COMPOSE="/nowhere/own.yaml") == 9
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "error: there is no compose file /nowhere/own.yaml"
    assert "DAYTONA_OSS_COMPOSE" in said[1]


def test_compose_file_that_docker_refuses_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.docker.reply("compose config --format json", code=15, err="yaml: line 3: mapping values\n")
    assert site.run("up") == 1
    assert "is not usable: yaml: line 3: mapping values" in capsys.readouterr().err


def test_docker_that_describes_the_file_in_an_unknown_way_is_reported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.docker.reply("compose config --format json", out="services:\n  api:\n")
    assert site.run("up") == 1
    assert "a recent Docker Compose 2 is needed" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["down", "restart", "status", "logs", "clean"])
def test_commands_without_a_checkout_say_what_to_run(
    command: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.home.rename(site.folder / "away")
    assert site.run(command) == 9
    assert "hint: run `ekairos-daytona-local init` first" in capsys.readouterr().err
    assert site.docker.calls() == []


def test_interrupt_ends_with_its_exit_code(site: Site) -> None:
    site.docker.reply("compose logs", code=HANGS, out="api  | started\n")
    script = Path(sys.executable).parent / "ekairos-daytona-local"
    with subprocess.Popen(
        [script, "logs", "--follow"],
        env=site.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "api  | started\n"
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "required: COMMAND"),
        (("launch",), "invalid choice: 'launch'"),
        (("up", "--timeout", "-1"), "give seconds, at most a day"),
        (("up", "--timeout", "soon"), "give seconds, at most a day"),
        (("up", "--timeout", "nan"), "give seconds, at most a day"),
        (("logs", "--tail", "x"), "give a number of lines, or all"),
    ],
)
def test_wrong_arguments_are_refused(
    argv: tuple[str, ...], said: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        site.run(*argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_installed_script_documents_its_variables_and_exit_codes() -> None:
    script = Path(sys.executable).parent / "ekairos-daytona-local"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    for word in (
        "DAYTONA_OSS_HOME",
        "DAYTONA_OSS_REF",
        "DAYTONA_OSS_COMPOSE",
        "3 git missing, 4 docker missing, 5 daemon not running, 6 port taken, 7 unknown ref",
    ):
        assert word in done.stdout


def test_script_loads_no_sdk() -> None:
    ask = "import sys, ekairos_sandbox_daytona.oss.main; print('daytona' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
