"""``ekairos-daytona-local init`` and ``pull``, with real git on a repository made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ekairos_sandbox_daytona.oss.main import main
from helpers.local_stack import Repository, environment, git

Run = Callable[..., int]
COMPOSE = Path("docker/docker-compose.yaml")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "origin")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "daytona-oss"


@pytest.fixture
def run(tmp_path: Path, repository: Repository, home: Path) -> Run:
    """Run the program; ``init`` clones the repository made here."""

    def run(*argv: str, **more: str) -> int:
        environ = environment(tmp_path, "git", DAYTONA_OSS_HOME=str(home), **more)
        if argv[0] == "init":
            argv = (*argv, "--repository", str(repository.folder))
        return main(argv, environ=environ)

    return run


def test_init_checks_out_the_last_version_with_code(
    run: Run, home: Path, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init") == 0
    short = repository.git("rev-parse", "--short", "v0.190.0")
    assert (home / COMPOSE).read_text() == "services: {}\n"
    assert (home / "README.md").read_text() == "0.190\n"
    assert f"{home} is at v0.190.0 ({short})" in capsys.readouterr().out
    assert [path.name for path in home.parent.iterdir()] == ["daytona-oss"]


def test_init_uses_the_home_folder_when_no_variable_is_set(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = environment(tmp_path, "git")
    assert main(["init", "--repository", str(repository.folder)], environ=environ) == 0
    assert (tmp_path / ".ekairos" / "daytona-oss" / COMPOSE).is_file()


def test_init_fills_an_empty_folder(run: Run, home: Path) -> None:
    home.mkdir(parents=True)
    assert run("init") == 0
    assert (home / COMPOSE).is_file()


@pytest.mark.parametrize("kind", ["tag", "branch", "commit", "short commit"])
def test_init_takes_tags_branches_and_commits(
    kind: str, run: Run, home: Path, repository: Repository
) -> None:
    older = repository.git("rev-parse", "stable")
    repository.git("tag", "old", "stable")
    ref = {"tag": "old", "branch": "stable", "commit": older, "short commit": older[:8]}[kind]
    assert run("init", "--ref", ref) == 0
    assert git(home, "rev-parse", "HEAD") == older
    assert (home / "README.md").read_text() == "0.189\n"


def test_ref_comes_from_the_variable_unless_the_command_line_says_otherwise(
    run: Run, home: Path
) -> None:
    assert run("init", DAYTONA_OSS_REF="stable") == 0
    assert (home / "README.md").read_text() == "0.189\n"
    assert run("init", "--ref", "v0.190.0", DAYTONA_OSS_REF="stable") == 0
    assert (home / "README.md").read_text() == "0.190\n"


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("v9.9.9", "no tag, branch or commit v9.9.9"),
        ("main", "main holds no docker/docker-compose.yaml"),
        ("--upload-pack=touch x", "not the name of a tag"),
        ("a..b", "not the name of a tag"),
    ],
)
def test_ref_that_cannot_be_used_is_named_and_leaves_nothing(
    ref: str, said: str, run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", f"--ref={ref}") == 7
    assert said in capsys.readouterr().err
    assert not home.parent.exists() or list(home.parent.iterdir()) == []


def test_unusable_ref_leaves_an_existing_checkout_where_it_was(run: Run, home: Path) -> None:
    run("init")
    before = git(home, "rev-parse", "HEAD")
    assert run("init", "--ref", "v9.9.9") == 7
    assert run("init", "--ref", "main") == 7
    assert git(home, "rev-parse", "HEAD") == before


def test_compose_file_of_ones_own_needs_none_in_the_checkout(
    run: Run, home: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    assert run("init", "--ref", "main", DAYTONA_OSS_COMPOSE=str(own)) == 0
    assert (home / "README.md").read_text() == "moved\n"


def test_repository_that_is_not_there_leaves_nothing(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = environment(tmp_path, "git", DAYTONA_OSS_HOME=str(home))
    assert main(["init", "--repository", str(tmp_path / "none")], environ=environ) == 1
    assert capsys.readouterr().err.startswith("error: the repository cannot be cloned: fatal:")
    assert list(home.parent.iterdir()) == []


def test_folder_that_holds_something_else_is_left_alone(run: Run, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "notes.txt").write_text("mine")
    assert run("init") == 8
    assert [(p.name, p.read_text()) for p in home.iterdir()] == [("notes.txt", "mine")]


def test_git_that_is_not_installed_is_an_error_of_its_own(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = environment(tmp_path, DAYTONA_OSS_HOME=str(home))
    assert main(["init"], environ=environ) == 3
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "error: git is not installed",
        "hint: install it, for example from https://git-scm.com",
    ]


def test_variables_of_another_repository_are_not_obeyed(
    run: Run, home: Path, tmp_path: Path
) -> None:
    other = Repository(tmp_path / "other")
    before = other.git("rev-parse", "HEAD")
    assert run("init", GIT_DIR=str(other.folder / ".git"), GIT_WORK_TREE=str(other.folder)) == 0
    assert (home / COMPOSE).is_file()
    assert other.git("rev-parse", "HEAD") == before
    assert other.git("status", "--porcelain") == ""


def test_init_without_a_ref_keeps_what_is_checked_out(run: Run, home: Path) -> None:
    run("init", "--ref", "stable")
    (home / "README.md").write_text("mine")
    assert run("init") == 0
    assert (home / "README.md").read_text() == "mine"


@pytest.mark.parametrize("argv", [("init", "--ref", "stable"), ("pull",)])
def test_changed_files_are_never_overwritten(
    argv: tuple[str, ...], run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("init")
    (home / "README.md").write_text("mine")
    assert run(*argv) == 8
    assert (home / "README.md").read_text() == "mine"
    assert "has local changes, for example in README.md" in capsys.readouterr().err


def test_new_file_in_the_way_is_never_overwritten(
    run: Run, home: Path, repository: Repository
) -> None:
    repository.git("checkout", "--quiet", "stable")
    repository.commit({"docker/.env": "theirs"})
    repository.git("checkout", "--quiet", "main")
    run("init")
    (home / "docker" / ".env").write_text("mine")
    assert run("init", "--ref", "stable") == 8
    assert (home / "docker" / ".env").read_text() == "mine"
    assert (home / "README.md").read_text() == "0.190\n"


def test_new_file_that_is_in_nobodys_way_is_kept(run: Run, home: Path) -> None:
    run("init")
    (home / "docker" / "own.yaml").write_text("mine")
    assert run("init", "--ref", "stable") == 0
    assert (home / "docker" / "own.yaml").read_text() == "mine"


def test_commits_that_no_branch_holds_are_not_left_behind(
    run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("init")
    (home / "README.md").write_text("mine")
    git(home, "commit", "--quiet", "--all", "--message", "mine")
    mine = git(home, "rev-parse", "HEAD")
    assert run("init", "--ref", "stable") == 8
    assert "local commits that no branch holds" in capsys.readouterr().err
    assert git(home, "rev-parse", "HEAD") == mine


def test_commits_on_a_branch_of_ones_own_survive_a_switch(run: Run, home: Path) -> None:
    run("init")
    git(home, "checkout", "--quiet", "-b", "own")
    (home / "README.md").write_text("mine")
    git(home, "commit", "--quiet", "--all", "--message", "mine")
    mine = git(home, "rev-parse", "HEAD")
    assert run("init", "--ref", "stable") == 0
    assert git(home, "rev-parse", "own") == mine


def test_pull_forwards_a_branch(
    run: Run, home: Path, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    run("init", "--ref", "stable")
    repository.git("checkout", "--quiet", "stable")
    newest = repository.commit({"README.md": "0.189.1\n"})
    assert run("pull") == 0
    assert git(home, "rev-parse", "HEAD") == newest
    assert (home / "README.md").read_text() == "0.189.1\n"
    assert " -> stable (" in capsys.readouterr().out
    assert run("pull") == 0
    assert "already at stable" in capsys.readouterr().out


def test_pull_refuses_a_branch_that_went_another_way(
    run: Run, home: Path, repository: Repository
) -> None:
    run("init", "--ref", "stable")
    repository.git("checkout", "--quiet", "stable")
    repository.commit({"theirs.txt": "theirs\n"})
    (home / "README.md").write_text("mine")
    git(home, "commit", "--quiet", "--all", "--message", "mine")
    mine = git(home, "rev-parse", "HEAD")
    for command in (("pull",), ("init", "--ref", "stable")):
        assert run(*command) == 8
        assert git(home, "rev-parse", "HEAD") == mine
        assert git(home, "status", "--porcelain") == ""


def test_pull_leaves_a_tag_where_it_is_unless_a_ref_is_set(
    run: Run, home: Path, repository: Repository
) -> None:
    run("init")
    repository.git("tag", "v0.190.1", "stable")
    assert run("pull") == 0
    assert (home / "README.md").read_text() == "0.190\n"
    assert run("pull", DAYTONA_OSS_REF="v0.190.1") == 0
    assert (home / "README.md").read_text() == "0.189\n"


def test_init_fetches_what_is_new(run: Run, home: Path, repository: Repository) -> None:
    run("init")
    repository.git("tag", "v0.190.1", "stable")
    assert run("init", "--ref", "v0.190.1") == 0
    repository.git("checkout", "--quiet", "stable")
    newest = repository.commit({"README.md": "0.189.1\n"})
    assert run("init", "--ref", "stable") == 0
    assert git(home, "rev-parse", "HEAD") == newest
    assert git(home, "symbolic-ref", "--short", "HEAD") == "stable"


def test_ref_that_is_known_already_is_not_fetched_again(
    run: Run, home: Path, repository: Repository
) -> None:
    run("init")
    older = repository.git("rev-parse", "stable")
    repository.folder.rename(repository.folder.with_name("away"))
    assert run("init", "--ref", "v0.190.0") == 0
    assert run("init", "--ref", older) == 0
    assert git(home, "rev-parse", "HEAD") == older


def test_git_that_is_at_work_there_already_is_no_local_change(
    run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("init")
    (home / ".git" / "index.lock").touch()
    assert run("init", "--ref", "stable") == 1
    assert f"error: {home} cannot be changed: fatal:" in capsys.readouterr().err
    assert (home / "README.md").read_text() == "0.190\n"


def test_pull_without_a_checkout_says_what_to_run(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pull") == 9
    assert "hint: run `ekairos-daytona-local init` first" in capsys.readouterr().err
