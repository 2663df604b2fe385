"""Programs that end while something is under way: at once, without a word, with nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.sites import SITE_PARAMS, SITES, Site

pytest.importorskip("ekairos_sandbox_local.plugin")
pytestmark = pytest.mark.slow

ID = "7e4f3a52-8d5c-4a53-9d6a-4d1f6f2d8f11"
SLOW = "'echo begun; sleep 1; echo ended', shell=True, command_id='job'"

ENDINGS = {
    "a service that was used and not closed": "service.run_command(ID, 'true')",
    "a service that only read records": "list(service.iter_sandboxes())",
    "a started command": f"service.start_command(ID, {SLOW})",
    "an open stream that goes out of use": (
        f"stream = service.stream_command(ID, {SLOW}); next(stream)"
    ),
    "output that is followed no further": (
        f"command = service.start_command(ID, {SLOW})\n"
        "output = command.chunks(follow=True); next(output)"
    ),
    "threads that nobody waits for": (
        "def run(): service.run_command(ID, 'sleep 1', shell=True)\n"
        "[threading.Thread(target=run, daemon=True).start() for _ in range(4)]\n"
        "time.sleep(0.3)"
    ),
    "threads in the middle of commands": (
        "def run(): assert service.run_command(ID, 'sleep 0.5', shell=True).success\n"
        "[threading.Thread(target=run).start() for _ in range(4)]"
    ),
    "threads that begin commands when the main one has ended": (
        "def run(): time.sleep(0.3); assert service.run_command(ID, 'true').success\n"
        "threading.Thread(target=run).start()"
    ),
    "use at exit": (
        "service.run_command(ID, 'true')\n"
        "atexit.register(lambda: service.get_record(ID))\n"
        "atexit.register(lambda: service.run_command(ID, 'true').check())"
    ),
    "closed at exit": (
        "service.run_command(ID, 'true')\natexit.register(service.close); service.close()"
    ),
    "an iterator of records that is not exhausted": (
        "records = service.iter_sandboxes(); next(records)"
    ),
}


@pytest.fixture(scope="module", params=SITE_PARAMS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with SITES[request.param]() as made:
        yield made


def session_of(pid: int) -> list[int]:
    """Return the processes that a program and its children have left in its session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == pid:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return found


def ended(program: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a program; return its exit code and what it complained of."""
    try:
        _, err = program.communicate(timeout=60)
    finally:
        if program.poll() is None:
            program.kill()
    assert session_of(program.pid) == []
    return program.returncode, err


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_ends_quietly_whatever_is_under_way(site: Site, ending: str) -> None:
    body = f"ID = {ID!r}\nservice.create_sandbox(CONFIG, sandbox_id=ID)\n{ENDINGS[ending]}\n"
    assert ended(site.program(body)) == (0, "")
    with site.service() as service:
        if SLOW in ENDINGS[ending]:
            result = service.get_command(ID, "job").wait(timeout_s=30)
            assert (result.output, result.exit_code) == ("begun\nended\n", 0)
        assert service.run_command(ID, ["echo", "fine"]).output == "fine\n"
    site.clear()


@pytest.mark.parametrize("how", ["raise SystemExit(7)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_leaving_the_block_of_a_stream_by_the_end_of_the_program_ends_the_command(
    site: Site, how: str
) -> None:
    body = (
        f"ID = {ID!r}\nservice.create_sandbox(CONFIG, sandbox_id=ID)\n"
        "with service.stream_command(ID, 'echo begun; sleep 100', shell=True,"
        f" command_id='job') as stream:\n    next(stream)\n    {how}\n    time.sleep(100)\n"
    )
    code, err = ended(site.program(body))
    assert (code, err.splitlines()[-1:]) in (
        (7, []),
        (-signal.SIGINT, ["KeyboardInterrupt"]),
    )
    with site.service() as service:
        result = service.get_command(ID, "job").wait(timeout_s=30)
    assert (result.cancelled, result.output) == (True, "begun\n")
    site.clear()


def test_many_uses_in_one_program_leave_no_descriptor_and_no_thread(site: Site) -> None:
    body = (
        f"ID = {ID!r}\nservice.create_sandbox(CONFIG, sandbox_id=ID)\n"
        "def use():\n"
        "    with SandboxService.from_env() as one:\n"
        "        one.raising.run_command(ID, 'true')\n"
        "        one.raising.write_files(ID, {'a': b'x'})\n"
        "        try:\n"
        "            with one.raising.stream_command(ID, ['cat', '/dev/zero']) as stream:\n"
        "                next(stream); raise KeyboardInterrupt\n"
        "        except KeyboardInterrupt: pass\n"
        "def counts(): return len(os.listdir('/proc/self/fd')), threading.active_count()\n"
        "service.close(); use(); before = counts()\n"
        "for _ in range(5): use()\n"
        "tell(before, counts())\n"
    )
    program = site.program(body)
    out, err = program.communicate(timeout=100)
    assert err == ""
    before, after = json.loads(out)
    assert after == before
    site.clear()
