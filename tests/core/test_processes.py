"""Processes that die, fork, are interrupted and race, with the local provider."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox import RaisingService, SandboxError, SandboxService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

pytest.importorskip("ekairos_sandbox_local.plugin")

PRELUDE = """
import json, os, signal, sys, threading, time
from ekairos_sandbox import *
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
service = SandboxService(SqliteSandboxRepository(os.environ["STORE"])).raising
def tell(*what): print(json.dumps(what), flush=True)
"""


class Site:
    """A record file, a service over it, and programs in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "records.db"
        self.service: RaisingService = SandboxService(SqliteSandboxRepository(self.store)).raising
        self.programs: list[subprocess.Popen[str]] = []

    def program(self, body: str, *args: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + body, *args],
            env={**os.environ, "STORE": str(self.store)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.programs.append(started)
        return started

    def create(self, **fields: object) -> str:
        return self.service.create_sandbox({"provider": "local", **fields}).sandbox_id

    def clean_up(self) -> None:
        for program in self.programs:
            # The number of one that was waited for may be another's by now.
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
            program.communicate()
        for record in self.service.iter_sandboxes():
            self.service.destroy_sandbox(record.id)
        self.service.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.clean_up()


def told(program: subprocess.Popen[str]) -> Any:
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line, program.communicate()[1]
    return json.loads(line)


def open_files() -> list[str]:
    links = []
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(name.readlink()))
    return sorted(links)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_kill_of_the_client_in_a_command_loses_nothing_and_runs_it_once(site: Site) -> None:
    sandbox_id = site.create()
    program = site.program(
        "sandbox = service.get_sandbox(sys.argv[1])\n"
        "def seen(chunk): tell('running')\n"
        "sandbox.run_command('echo ran >>log; echo begun; sleep 1; echo done', shell=True,"
        " command_id='the-job', on_output=seen)\n",
        sandbox_id,
    )
    assert told(program) == ["running"]
    program.send_signal(signal.SIGKILL)
    program.wait()
    result = site.service.get_command(sandbox_id, "the-job").wait(timeout_s=30)
    assert (result.stdout, result.exit_code) == (b"begun\ndone\n", 0)
    assert site.service.read_file(sandbox_id, "log") == b"ran\n"


def test_repeating_the_call_of_a_killed_client_returns_its_result(site: Site) -> None:
    sandbox_id = site.create()
    line = "echo ran >>log; echo begun; sleep 0.5; echo done"
    body = (
        "def seen(chunk): tell('running')\n"
        f"service.run_command(sys.argv[1], {line!r}, shell=True, command_id='job', on_output=seen)"
    )
    program = site.program(body, sandbox_id)
    assert told(program) == ["running"]
    program.send_signal(signal.SIGKILL)
    result = site.service.run_command(sandbox_id, line, shell=True, command_id="job")
    assert result.stdout == b"begun\ndone\n"
    assert site.service.read_file(sandbox_id, "log") == b"ran\n"


def test_ctrl_c_ends_the_command_and_the_program(site: Site) -> None:
    sandbox_id = site.create()
    program = site.program(
        "def seen(chunk): tell('running')\n"
        "try:\n"
        "    service.run_command(sys.argv[1], 'echo begun; sleep 100', shell=True,"
        " command_id='job', on_output=seen)\n"
        "except KeyboardInterrupt:\n"
        "    tell('interrupted')\n",
        sandbox_id,
    )
    assert told(program) == ["running"]
    program.send_signal(signal.SIGINT)
    assert told(program) == ["interrupted"]
    result = site.service.get_command(sandbox_id, "job").wait(timeout_s=20)
    assert (result.cancelled, result.exit_code, result.stdout) == (True, None, b"begun\n")


def test_ctrl_c_during_a_create_leaves_nothing(site: Site) -> None:
    body = (
        "import ekairos_sandbox.lifecycle.creation as creation\n"
        "prepare = creation.prepare\n"
        "def slow(*a, **k):\n"
        "    tell('preparing'); time.sleep(60)\n"
        "creation.prepare = slow\n"
        "try:\n"
        "    service.create_sandbox(provider='local')\n"
        "except KeyboardInterrupt:\n"
        "    tell('interrupted')\n"
    )
    program = site.program(body)
    assert told(program) == ["preparing"]
    program.send_signal(signal.SIGINT)
    assert told(program) == ["interrupted"]
    (record,) = site.service.iter_sandboxes()
    state = record.state
    assert state is not None
    assert (record.status, state.release) == ("error", None)
    provider = site.service._operations.ledger.provider("local")
    assert list(provider.list_owned(state.owner)) == []


def test_forked_children_use_what_their_parent_opened(site: Site) -> None:
    sandbox_id = site.create()
    program = site.program(
        "sandbox = service.get_sandbox(sys.argv[1])\n"
        "assert sandbox.run_command('true').success\n"
        "children = []\n"
        "for number in range(4):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        ok = sandbox.run_command('echo', [str(number)]).output == f'{number}\\n'\n"
        "        ok = ok and service.list_sandboxes().records[0].id == sys.argv[1]\n"
        "        os._exit(0 if ok else 1)\n"
        "    children.append(pid)\n"
        "codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]\n"
        "tell(codes, sandbox.run_command('echo', ['parent']).output)\n",
        sandbox_id,
    )
    assert told(program) == [[0, 0, 0, 0], "parent\n"]


def test_fork_while_other_threads_are_busy_does_not_hang_the_child(site: Site) -> None:
    sandbox_id = site.create()
    program = site.program(
        "sandbox = service.get_sandbox(sys.argv[1])\n"
        "sandbox.run_command('true')\n"
        "over = threading.Event()\n"
        "def work():\n"
        "    while not over.is_set():\n"
        "        service.list_sandboxes(); sandbox.run_command('true')\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[t.start() for t in threads]\n"
        "codes = []\n"
        "for _ in range(8):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os._exit(0 if sandbox.run_command('true').success else 1)\n"
        "    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "over.set(); [t.join() for t in threads]; tell(codes)\n",
        sandbox_id,
    )
    assert told(program) == [[0] * 8]


def test_sixteen_threads_on_one_service_mix_nothing_up(site: Site) -> None:
    ids = [site.create() for _ in range(2)]

    def work(number: int) -> list[str]:
        outputs = []
        for turn in range(3):
            word = f"{number}-{turn}"
            result = site.service.run_command(ids[number % 2], "echo", [word])
            outputs.append(result.output.strip() if result.success else "failed")
        return outputs

    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(work, range(16)))
    assert outputs == [[f"{number}-{turn}" for turn in range(3)] for number in range(16)]


def test_processes_that_create_the_same_id_get_one_sandbox(site: Site) -> None:
    sandbox_id = "0b0e9a52-5d0e-4c6e-8a53-2f7f6c1c9a11"
    body = (
        "made = service.create_sandbox(provider='local', sandbox_id=sys.argv[1])\n"
        "tell(made.run_command('cat', ['/proc/sys/kernel/hostname']).exit_code)\n"
    )
    programs = [site.program(body, sandbox_id) for _ in range(4)]
    assert [told(program) for program in programs] == [[0]] * 4
    provider = site.service._operations.ledger.provider("local")
    owner = site.service._operations.ledger.repository.owner
    assert len(list(provider.list_owned(owner))) == 1
    assert site.service.get_record(sandbox_id).status == "active"


def test_racing_stops_runs_and_losses_end_with_record_and_machine_agreeing(site: Site) -> None:
    sandbox_id = site.create()
    body = """
import random
random.seed(int(sys.argv[2]))
from ekairos_sandbox.lifecycle import Ledger
counts = {}
ledger = service._operations.ledger
for _ in range(12):
    act = random.choice(["run", "run", "stop", "reconnect", "lose", "reconcile"])
    try:
        if act == "run": service.run_command(sys.argv[1], "true")
        elif act == "stop": service.stop_sandbox(sys.argv[1])
        elif act == "reconnect": service.reconnect_to_sandbox(sys.argv[1])
        elif act == "reconcile": service.reconcile(apply=True)
        else: ledger.provider("local").destroy(ledger.ref(ledger.get(sys.argv[1])))
        outcome = "ok"
    except SandboxError as error:
        outcome = error.code
    counts[f"{act}:{outcome}"] = counts.get(f"{act}:{outcome}", 0) + 1
tell(counts)
"""
    programs = [site.program(body, sandbox_id, str(seed)) for seed in range(3)]
    total: Counter[str] = Counter()
    for program in programs:
        (counts,) = told(program)
        total.update(counts)
    assert sum(total.values()) == 36
    surprising = {
        key
        for key in total
        if key.split(":")[1]
        not in ("ok", "sandbox_stopped", "sandbox_not_found", "outcome_unknown", "record_conflict")
    }
    assert surprising == set()
    site.service.stop_sandbox(sandbox_id)
    site.service.reconcile(apply=True)
    record = site.service.get_record(sandbox_id)
    state = record.state
    assert state is not None
    assert (record.status, state.stop) == ("shutdown", "requested")
    provider = site.service._operations.ledger.provider("local")
    infos = list(provider.list_owned(state.owner))
    assert len(infos) <= 1
    assert [info.state for info in infos] in ([], ["stopped"])


def test_interpreter_exit_with_a_command_running_leaves_the_command_alone(site: Site) -> None:
    sandbox_id = site.create()
    program = site.program(
        "c = service.start_command(sys.argv[1], 'sleep 0.5; echo late', shell=True)\n"
        "tell(c.command_id)\n",
        sandbox_id,
    )
    (command_id,) = told(program)
    program.wait()
    assert program.returncode == 0
    result = site.service.get_command(sandbox_id, command_id).wait(timeout_s=20)
    assert result.output == "late\n"


def test_closing_a_service_leaves_no_thread_and_no_socket(site: Site) -> None:
    sandbox_id = site.create()

    def use() -> None:
        with SandboxService(SqliteSandboxRepository(site.store)) as service:
            for _ in range(3):
                service.raising.run_command(sandbox_id, "true")

    use()  # SQLite closes a file late while another connection of the process holds a lock.
    threads, files = threading.active_count(), open_files()
    use()
    assert threading.active_count() == threads
    assert open_files() == files


def test_lost_state_of_a_sandbox_is_an_error_that_says_so(site: Site) -> None:
    sandbox_id = site.create()
    site.service.destroy_sandbox(sandbox_id)
    with pytest.raises(SandboxError) as caught:
        site.service.reconnect_to_sandbox(sandbox_id)
    assert caught.value.code == "sandbox_not_found"
    assert caught.value.sandbox_id == sandbox_id
