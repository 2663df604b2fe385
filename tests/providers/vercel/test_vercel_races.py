"""Several processes and threads at one sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from helpers.vercel import new_spec, provider_for, ref_of
from servers.vercel.server import VercelServer

from ekairos_sandbox.exceptions import ProviderError, SandboxGoneError
from ekairos_sandbox.provider import SandboxRef
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox_vercel import VercelOptions, VercelProvider

CREATE = """
import json, sys
from ekairos_sandbox_vercel import VercelOptions, VercelProvider
from ekairos_sandbox.provider import CreateSpec, ProviderContext, Tags

order = json.load(sys.stdin)
provider = VercelProvider(ProviderContext(environ=order["environ"]))
spec = CreateSpec(order["name"], Tags("0f1e2d3c4b5a6978", order["id"], 1), VercelOptions(), 60)
made = provider.create(spec)
json.dump([made.external_id, made.data["session"], made.ownership], sys.stdout)
"""


@pytest.mark.slow
def test_eight_processes_that_create_one_name_make_one_sandbox(server: VercelServer) -> None:
    spec = new_spec()
    order = {
        "environ": server.environ(),
        "name": spec.name,
        "id": spec.tags.sandbox_id,
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", CREATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
    answers = []
    for process in processes:
        assert process.stdout is not None
        with process.stdout:
            answers.append(json.load(process.stdout))
        assert process.wait(60) == 0
    assert len({(name, session) for name, session, _ in answers}) == 1
    assert sorted(ownership for _, _, ownership in answers) == ["adopted"] * 7 + ["created"]
    assert list(server.sandboxes()) == [spec.name]


def test_starting_races_stopping_and_nothing_is_called_gone(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    provider.create(spec)
    server.world.down_polls = 2
    unexpected: list[BaseException] = []

    def stop() -> None:
        for _ in range(8):
            try:
                provider.stop(ref_of(spec))
            except ProviderError as error:
                if isinstance(error, SandboxGoneError):
                    unexpected.append(error)

    def start() -> None:
        for _ in range(8):
            try:
                connection = provider.connect(ref_of(spec))
                connection.shell(b"true", timeout_s=30, max_bytes=1000)
            except ProviderError as error:
                if isinstance(error, SandboxGoneError):
                    unexpected.append(error)

    threads = [threading.Thread(target=act) for act in (stop, start, start)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    again = provider.connect(ref_of(spec))
    assert b"<on>" in again.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)


def test_a_command_goes_on_after_another_process_restarted_the_sandbox(
    service: RaisingService, cold: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="vercel", vercel={"persistent": True})
    sandbox.write_files({"file": b"kept"})
    cold.stop_sandbox(sandbox.sandbox_id)
    cold.reconnect_to_sandbox(sandbox.sandbox_id)
    result = sandbox.run_command(["cat", "file"])
    assert (result.output, result.recreated) == ("kept", False)


def test_a_sandbox_restarted_elsewhere_from_older_files_gets_a_new_epoch(
    server: VercelServer, provider: VercelProvider, service: RaisingService
) -> None:
    """As the dashboard or another program may do, behind the back of the record."""
    sandbox = service.create_sandbox(provider="vercel", vercel={"persistent": True})
    checkpoint = sandbox.create_checkpoint()
    first = sandbox.run_command(["sh", "-c", "echo x >>count"], command_id="once")
    first.check()
    before = sandbox.record().state
    (box,) = server.sandboxes().values()
    project = server.world.projects[server.project]
    server.world.stop(project, box.session)
    box.current_snapshot_id = checkpoint.id
    server.world.resume(project, box)
    assert sandbox.run_command(["sh", "-c", "ls count || echo none"]).output == "none\n"
    after = sandbox.record().state
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch


def test_two_projects_of_a_team_do_not_see_each_other(
    server: VercelServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="vercel")
    name = str(sandbox.record().external_sandbox_id)
    _, project, token = server.add_project(server.team)
    other = provider_for(
        {
            **server.environ(),
            "SANDBOX_VERCEL_PROJECT_ID": project,
            "SANDBOX_VERCEL_TOKEN": token,
        }
    )
    ref: SandboxRef[VercelOptions] = SandboxRef(name, external_id=name)
    assert other.find(name) is None
    other.stop(ref)
    other.destroy(ref)
    assert sandbox.run_command(["echo", "on"]).output == "on\n"
