"""Services in programs that fork and spawn, as task queues do; on SQLite and on InstantDB."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.sites import SITE_PARAMS, SITES, Site

from ekairos_sandbox import Sandbox, SandboxService

pytest.importorskip("ekairos_sandbox_local.plugin")

PREFORK = """
sandbox = service.create_sandbox(CONFIG, sandbox_id=sys.argv[1])
sandbox.run_command('true')  # so that connections are open

def work(child):
    for turn in range(2):
        word = f'{child}-{turn}'
        assert sandbox.run_command('echo', [word]).output == word + '\\n'
        sandbox.write_files({f'files/{word}': word.encode()})
        assert service.get_record(sys.argv[1]).status == 'active'

def begin(child):
    pid = os.fork()
    if pid:
        return pid
    work(child)
    if child == 'recycled-0':  # a worker that has children of its own
        grandchild = os.fork()
        if grandchild:
            assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
        else:
            work('grandchild')
    sys.exit(0)

running = {begin(f'first-{number}'): number for number in range(4)}
codes, recycled = [], 0
while running:
    work(f'parent-{len(codes)}')
    pid, status = os.wait()
    codes.append(os.waitstatus_to_exitcode(status))
    del running[pid]
    if recycled < 3:
        running[begin(f'recycled-{recycled}')] = 0
        recycled += 1
names = sandbox.run_command(['ls', 'files']).output.split()
tell(codes, len(names))
service.close()
"""

ID = "7c2f3a52-8d5c-4a53-9d6a-4d1f6f2d8f11"


@pytest.fixture(params=SITE_PARAMS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with SITES[request.param]() as made:
        yield made


def test_workers_that_fork_from_a_used_service_work_at_once_and_are_recycled(site: Site) -> None:
    program = site.program(PREFORK, ID)
    out, err = program.communicate(timeout=100)
    assert err == ""
    assert program.returncode == 0
    # Seven workers, a grandchild, and seven turns of the parent: two files each.
    assert json.loads(out) == [[0] * 7, 2 * (7 + 1 + 7)]
    (info,) = site.owned()
    assert info.state == "running"


def _run_there(environ: dict[str, str], sandbox_id: str, word: str) -> tuple[str, str]:
    with SandboxService.from_env(environ) as service:
        command = service.raising.start_command(sandbox_id, "echo", [word])
        return command.command_id, service.raising.read_file(sandbox_id, "told").decode()


def test_spawned_processes_work_by_ids_and_the_environment(site: Site) -> None:
    with site.service() as service, multiprocessing.get_context("spawn").Pool(2) as pool:
        sandbox = service.create_sandbox(site.config)
        sandbox.write_files({"told": b"by the parent"})
        calls = [(dict(site.environ), sandbox.sandbox_id, f"word-{n}") for n in range(4)]
        answers = pool.starmap(_run_there, calls)
        assert [told for _, told in answers] == ["by the parent"] * 4
        outputs = [sandbox.get_command(command).wait().output for command, _ in answers]
        assert outputs == [f"word-{n}\n" for n in range(4)]


HANDLES: dict[str, Callable[[SandboxService], Any]] = {
    "service": lambda service: service,
    "raising service": lambda service: service.raising,
    "sandbox": lambda service: service.get_sandbox(ID),
    "raising sandbox": lambda service: service.raising.get_sandbox(ID),
    "command": lambda service: service.get_command(ID, "job"),
    "raising command": lambda service: service.raising.get_command(ID, "job"),
}


@pytest.mark.parametrize("what", HANDLES)
def test_a_service_and_its_handles_say_how_to_do_without_being_pickled(what: str) -> None:
    from ekairos_sandbox.testing import MemorySandboxRepository

    thing = HANDLES[what](SandboxService(MemorySandboxRepository(), environ={"KEY": "hunter22"}))
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"pass ids, and have SandboxService\.from_env"):
            attempt(thing)


def test_a_stream_is_not_pickled_with_the_credentials_behind_it(site: Site) -> None:
    with site.service() as service:
        sandbox = service.create_sandbox(site.config)
        line = "echo begun; sleep 100"
        with (
            sandbox.stream_command(line, shell=True) as stream,
            pytest.raises(TypeError, match="pass the ids of sandbox and command"),
        ):
            pickle.dumps(stream)


def test_the_ids_of_a_handle_are_what_another_process_needs(site: Site) -> None:
    with site.service() as service:
        made = service.create_sandbox(site.config)
        ids = pickle.loads(pickle.dumps((made.sandbox_id, made.start_command("true").command_id)))
        with SandboxService.from_env(site.environ) as other:
            handle = other.get_sandbox(ids[0])
            assert isinstance(handle, Sandbox)
            assert handle.get_command(ids[1]).wait().unwrap().success
