"""Programs inside that do their worst through every verb; they can spoil their own sandbox only.

Forged job files are in ``test_jobs_hostile``, archives in ``test_files_hostile_archives`` and in
``ekairos_sandbox.testing.hostile``, escapes in ``test_cli_escapes``, isolation in the tests of the
local provider.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from helpers.sites import SITE_PARAMS, SITES, Site

from ekairos_sandbox import RaisingService, SandboxError
from ekairos_sandbox.exceptions import OutcomeUnknownError, TransferError
from ekairos_sandbox.raising import RaisingSandbox

pytest.importorskip("ekairos_sandbox_local.plugin")
pytestmark = pytest.mark.slow

ID = "7f5f3a52-8d5c-4a53-9d6a-4d1f6f2d8f11"
JOB = "cd .local/state/ekairos-sandbox/jobs/$EKAIROS_JOB && "


@pytest.fixture(scope="module", params=SITE_PARAMS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with SITES[request.param]() as made:
        yield made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[RaisingService]:
    with site.service() as service:
        yield service


@pytest.fixture(scope="module")
def neighbour(service: RaisingService) -> RaisingSandbox:
    """Another sandbox of the same service, which must not notice anything."""
    made = service.create_sandbox()
    made.write_files({"precious": b"untouched"})
    return made


@pytest.fixture
def guest(service: RaisingService, neighbour: RaisingSandbox) -> Iterator[RaisingSandbox]:
    made = service.create_sandbox(sandbox_id=ID)
    yield made
    assert neighbour.read_file("precious") == b"untouched"
    assert neighbour.run_command(["echo", "fine"]).output == "fine\n"
    made.destroy()
    service._operations.ledger.repository.delete(ID)


def well(guest: RaisingSandbox) -> bool:
    """Whether the sandbox serves its next callers."""
    guest.write_files({"note": b"note"})
    return guest.read_file("note") == guest.run_command(["cat", "note"]).stdout == b"note"


ENDLESS = """
import resource
ID = sys.argv[1]
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
service.run_command(ID, ['echo', 'warm'])
before = peak()
result = service.run_command(ID, ['cat', '/dev/zero'], timeout_s=2)
streamed = 0
with service.stream_command(ID, ['cat', '/dev/zero'], timeout_s=30) as stream:
    for chunk in stream:
        streamed += len(chunk.data)
        if streamed > 50_000_000: break
tell(result.timed_out, result.truncated, len(result.stdout) <= 65536, peak() - before)
"""


def test_endless_output_is_cut_and_takes_little_memory(site: Site, guest: RaisingSandbox) -> None:
    out, err = site.program(ENDLESS, guest.sandbox_id).communicate(timeout=100)
    assert err == ""
    timed_out, truncated, short, grown_mib = json.loads(out)
    assert (timed_out, truncated, short) == (True, True, True)
    assert grown_mib <= 64
    assert well(guest)


@pytest.mark.parametrize("what", ["$(cut -d' ' -f1 go)", "-1"])
def test_a_supervisor_that_is_killed_is_told_of_and_spoils_nothing_else(
    guest: RaisingSandbox, what: str, site: Site
) -> None:
    if what == "-1" and site.provider != "local":
        pytest.skip("the loopback service runs on this machine: everything here would be killed")
    with pytest.raises(SandboxError) as caught:
        guest.run_command(
            f"{JOB}kill -9 {what}; sleep 60", shell=True, command_id="job", timeout_s=30
        )
    assert isinstance(caught.value, OutcomeUnknownError)
    assert well(guest)
    assert guest.get_command("job").state() in ("lost", "running")


NO_FILES = {
    "a FIFO": "mkfifo thing",
    "a link to a FIFO": "mkfifo pipe; ln -s pipe thing",
    "a link to a device": "ln -s /dev/zero thing",
    "a directory": "mkdir thing",
    "a link to itself": "ln -s thing thing",
    "a link to nothing": "ln -s nowhere thing",
    "a file that nobody may read": "echo x >thing; chmod 000 thing",
    "a link to a terminal": "ln -s /dev/tty thing",
}


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_refused_and_holds_nobody_up(
    guest: RaisingSandbox, site: Site, what: str
) -> None:
    guest.run_command(NO_FILES[what], shell=True).check()
    if what == "a file that nobody may read" and guest.run_command("cat thing", shell=True).success:
        pytest.skip("root may read everything")
    target = site.folder / "target"
    with pytest.raises(SandboxError):
        guest.read_file("thing")
    if what != "a directory":
        with pytest.raises(SandboxError):
            guest.download("thing", target)
        assert not target.exists()
    assert well(guest)


def test_files_that_grow_faster_than_they_are_read_come_to_an_end(
    guest: RaisingSandbox, site: Site
) -> None:
    guest.run_command("head -c 4000000 /dev/zero >grows", shell=True).check()
    writer = guest.start_command(
        "while :; do head -c 2000000 /dev/zero >>grows; sleep 0.05; done", shell=True, timeout_s=60
    )
    for attempt in (
        lambda: guest.read_file("grows"),
        lambda: guest.download("grows", site.folder / "grown"),
    ):
        # Between two of its writes it may be read as it was.
        with contextlib.suppress(TransferError):
            attempt()
    writer.kill()
    assert well(guest)


@pytest.mark.parametrize("where", ["note", "folder/note"])
def test_links_and_devices_in_the_place_of_what_is_written_are_replaced_or_refused(
    guest: RaisingSandbox, where: str
) -> None:
    guest.run_command(
        "echo kept >victim; mkdir folder; ln -s ../victim folder/note; ln -s /dev/full note",
        shell=True,
    ).check()
    try:
        guest.write_files({where: b"note"})
    except SandboxError:
        pass
    else:
        assert guest.read_file(where) == b"note"
    assert guest.read_file("victim") in (b"kept\n", b"note")
    assert guest.run_command(["echo", "fine"]).output == "fine\n"


def test_tools_that_lie_spoil_their_own_sandbox_only(guest: RaisingSandbox) -> None:
    lie = "#!/bin/sh\nwhile :; do echo '@EK1:0123456789abcdef:job:b:exited:0@'; done\n"
    guest.write_files({"lies/base64": lie, "lies/head": lie, "lies/cat": lie})
    guest.run_command(
        'chmod 755 lies/*; echo "export PATH=$PWD/lies:$PATH" >>.local/state/ekairos-sandbox/env',
        shell=True,
    ).check()
    try:
        result = guest.run_command(["cat", "/dev/null"], timeout_s=2)
    except SandboxError:
        pass
    else:
        assert result.timed_out
        assert len(result.stdout) <= 65536


def test_a_full_tmp_is_an_error_that_says_so_or_no_hindrance(guest: RaisingSandbox) -> None:
    if guest.run_command("df -P /tmp | tail -1 | awk '{print $2}'", shell=True).output >= "2":
        filled = guest.run_command(
            "ulimit -f 20000; cat /dev/zero >/tmp/full-of-it", shell=True, timeout_s=20
        )
        assert not filled.success
    assert well(guest)
    guest.run_command(["rm", "-f", "/tmp/full-of-it"])
