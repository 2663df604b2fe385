"""How the SDK is used: built upon, but never let loose."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from ekairos_sandbox_daytona.options import DaytonaOptions
from ekairos_sandbox_daytona.provider import DaytonaProvider
from helpers.daytona import provider_for
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox.provider import Connection, CreateSpec, ProviderContext, SandboxRef, Tags
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.service import SandboxService

TAGS = Tags("owner", "x", 1)


def make(provider: DaytonaProvider, name: str = "ekairos-x") -> Connection:
    return provider.create(CreateSpec(name, TAGS, DaytonaOptions(ephemeral=False), 60))


def say(connection: Connection) -> bytes:
    return connection.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)


def in_a_new_process(code: str, *args: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_neither_plugin_nor_provider_imports_the_sdk() -> None:
    code = """
import json, sys
import ekairos_sandbox_daytona.plugin
ekairos_sandbox_daytona.plugin.ekairos_sandbox_provider()
heavy = ("daytona", "daytona_api_client", "daytona_toolbox_api_client", "requests", "httpx",
         "opentelemetry", "socketio", "aiohttp")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    assert in_a_new_process(code) == []


def test_its_use_loads_the_api_clients_alone_and_starts_no_thread(server: DaytonaServer) -> None:
    code = """
import json, sys, threading
from ekairos_sandbox.provider import CreateSpec, ProviderContext, SandboxRef, Tags
from ekairos_sandbox_daytona import DaytonaOptions, DaytonaProvider
provider = DaytonaProvider(ProviderContext(environ=json.loads(sys.argv[1])))
made = provider.create(CreateSpec("ekairos-x", Tags("o", "x", 1), DaytonaOptions(), 60))
made.shell(b"true", timeout_s=30, max_bytes=1000)
provider.destroy(SandboxRef("ekairos-x"))
heavy = ("daytona", "httpx", "opentelemetry", "socketio", "aiohttp")
threads = [thread.name for thread in threading.enumerate()]
print(json.dumps([[name for name in heavy if name in sys.modules], threads]))
"""
    loaded, threads = in_a_new_process(code, json.dumps(server.environ()))
    assert loaded == []
    assert threads == ["MainThread"]
    assert [kind for kind in server.counts() if "socket.io" in kind] == []


HOSTILE = """\
DAYTONA_API_KEY=dtn_evil
DAYTONA_API_URL=https://evil.example/api
DAYTONA_SERVER_URL=https://evil.example/api
DAYTONA_JWT_TOKEN=evil
DAYTONA_ORGANIZATION_ID=evil
DAYTONA_TARGET=evil
DAYTONA_OTEL_ENABLED=true
DAYTONA_EXPERIMENTAL_OTEL_ENABLED=true
SANDBOX_DAYTONA_EPHEMERAL=0
"""


def seen(server: DaytonaServer) -> list[tuple[Any, ...]]:
    kept = ("authorization", "x-daytona-organization-id", "x-daytona-source")
    found = []
    for one in server.requests:
        body = json.loads(one.body) if one.body else {}
        # Scripts hold random numbers.
        body.pop("command", None)
        headers = {name: one.headers.get(name) for name in kept}
        path = one.path.replace(server.alive()[0].id, "*") if server.alive() else one.path
        found.append((one.method, path, headers, body))
    return found


def test_an_env_file_in_the_working_directory_changes_nothing_that_is_sent(
    server: DaytonaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(HOSTILE)
    (tmp_path / ".env.local").write_text(HOSTILE)
    runs = []
    for folder in (Path(__file__).parent, tmp_path):
        monkeypatch.chdir(folder)
        server.clear_requests()
        provider = provider_for(server)
        account = provider.account()
        say(make(provider))
        runs.append((account, seen(server)))
        provider.destroy(SandboxRef("ekairos-x"))
    assert runs[0] == runs[1]


def test_nothing_sets_an_alarm(server: DaytonaServer, provider: DaytonaProvider) -> None:
    before = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        say(make(provider))
        provider.stop(SandboxRef("ekairos-x"))
        provider.connect(SandboxRef("ekairos-x"))
        provider.destroy(SandboxRef("ekairos-x"))
        left, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert signal.getsignal(signal.SIGALRM) is before
    assert left > 0


def test_a_forked_child_uses_the_provider_on_sockets_of_its_own(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    connection = make(provider)
    assert b"<on>" in say(connection)
    child = os.fork()
    if child == 0:
        good = b"<on>" in say(connection) and provider.find("ekairos-x") is not None
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"<on>" in say(connection)


def test_a_fork_while_another_thread_is_in_a_call_does_not_block_the_child(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    connection = make(provider)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            provider.find("ekairos-x")

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if b"<on>" in say(connection) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:Polling-only mode:DeprecationWarning")
def test_a_client_of_the_callers_own_lends_its_account_and_its_objects(
    server: DaytonaServer, tmp_path: Path
) -> None:
    from daytona import Daytona, DaytonaConfig

    config = DaytonaConfig(
        api_key=server.organisation.api_key,
        api_url=server.api_url,
        target="eu",
        use_deprecated_polling=True,
    )
    client = Daytona(config)
    provider = DaytonaProvider(ProviderContext(environ={}), client=client)
    assert provider.account() == provider_for(server).account()
    store = SqliteSandboxRepository(tmp_path / "records.db")
    with SandboxService(store, environ={}, providers=[provider]) as service:
        sandbox = service.raising.create_sandbox(provider="daytona")
        assert sandbox.run_command("echo", ["mine"]).output == "mine\n"
        native = sandbox.native()
        assert type(native).__module__.startswith("daytona.")
        assert native.target == "eu"
        assert native.process.exec("echo native").result == "native\n"
        sandbox.destroy()


def test_something_else_than_a_client_is_refused() -> None:
    with pytest.raises(TypeError):
        DaytonaProvider(client=types.SimpleNamespace(api_key="x"))


def test_the_native_object_comes_without_websocket_and_thread(
    server: DaytonaServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="daytona")
    before = threading.active_count()
    native = sandbox.native()
    assert native.id == sandbox.record().external_sandbox_id
    assert native.process.exec("echo $((6*7))").result == "42\n"
    assert threading.active_count() - before <= len(server.requests)
    assert [kind for kind in server.counts() if "socket.io" in kind] == []


def test_a_server_that_the_sdk_does_not_understand_still_works_but_for_its_object(
    server: DaytonaServer, service: RaisingService
) -> None:
    server.control.version = "0.190"
    sandbox = service.create_sandbox(provider="daytona")
    assert sandbox.run_command("echo", ["on"]).output == "on\n"
    with pytest.raises(UnsupportedOperationError, match=r"pip install 'daytona==0.190"):
        sandbox.native()


def test_secrets_are_in_no_repr_and_no_error(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    key = server.organisation.api_key
    server.faults.add(
        "answer", "GET", ".*", status=400, body={"statusCode": 400, "message": f"bad key {key}"}
    )
    with pytest.raises(Exception, match=r"bad key \*\*\*") as caught:
        provider.account()
    connection = make(provider)
    everything = [provider, connection, caught.value, *vars(provider).values()]
    everything += [provider._connected().settings, provider._connected().http]
    assert [thing for thing in everything if key in repr(thing)] == []


def test_the_sdks_answer_to_a_missing_package_says_what_to_install(
    server: DaytonaServer, provider: DaytonaProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "daytona_api_client", None)
    with pytest.raises(UnsupportedOperationError, match="pip install"):
        provider.find("x")


def test_the_api_clients_are_where_this_provider_expects_them() -> None:
    for name in ("daytona_api_client", "daytona_toolbox_api_client"):
        module = importlib.import_module(name)
        client = module.ApiClient(module.Configuration(host=""))
        assert hasattr(client, "rest_client")
        assert isinstance(client.default_headers, dict)


def test_eight_processes_that_create_one_sandbox_id_make_one(
    server: DaytonaServer, tmp_path: Path
) -> None:
    code = """
import json, sys
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.service import SandboxService
from ekairos_sandbox_daytona import DaytonaProvider
provider = DaytonaProvider(ProviderContext(environ=json.loads(sys.argv[1])))
with SandboxService(SqliteSandboxRepository(sys.argv[2]), environ={}, providers=[provider]) as s:
    made = s.raising.create_sandbox(
        {"provider": "daytona"}, sandbox_id="6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21")
    print(json.dumps([made.record().external_sandbox_id, made.run_command("echo", ["on"]).output]))
"""
    server.boxes.delays["creating"] = 0.5
    arguments = [json.dumps(server.environ()), str(tmp_path / "records.db")]
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    answers = [process.communicate(timeout=100) for process in running]
    assert [error for _, error in answers] == [""] * 8
    assert {output.strip() for output, _ in answers} == {json.dumps([server.alive()[0].id, "on\n"])}
    assert len(server.alive()) == 1


def test_proxies_of_the_environment_are_used_except_for_loopback(
    server: DaytonaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert provider_for(server).find("x") is None
        context = ProviderContext(
            environ={**server.environ(), "DAYTONA_API_URL": "https://daytona.example/api"},
            clock=provider_for(server).context.clock,
        )
        with pytest.raises(Exception, match="could not connect"):
            DaytonaProvider(context).find("x")
