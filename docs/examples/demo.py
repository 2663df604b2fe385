"""The main job of the library in one minute, with no account: run it with ``make demo``.

Records are in a SQLite file, or with ``make demo STORE=instantdb`` in an InstantDB app on a server
that runs here, which shows each request of the protocol.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ekairos_sandbox import RaisingSandbox, SandboxService, UnsupportedOperationError

PROGRAM = """
import math, sys
digits = str(math.factorial(1000))
print(f"1000! has {len(digits)} digits, says Python {sys.version.split()[0]}")
"""
SERVERS = Path(__file__).resolve().parents[2] / "tests"
LONG_COMMAND = "for i in 1 2 3; do echo step $i; sleep 1; done; echo finished"

started = float(os.environ.setdefault("DEMO_STARTED", str(time.monotonic())))


def say(what: str, result: object) -> None:
    """Print one line for one step."""
    print(f"{time.monotonic() - started:6.2f} s  {what:<34} {result}", flush=True)


def create(service: SandboxService) -> RaisingSandbox:
    """Create a sandbox; where this machine forbids isolation, say why and go on without."""
    try:
        return service.raising.create_sandbox(provider="local", purpose="demo")
    except UnsupportedOperationError as error:
        print(f"note: {error}\nnote: going on with isolation='none', which protects nothing")
        return service.raising.create_sandbox(
            provider="local", purpose="demo", local={"isolation": "none"}
        )


def first_process() -> None:
    """Create, run, write, read, start a long command; then end, leaving two ids behind."""
    with SandboxService.from_env() as service:
        sandbox = create(service)
        say("created a sandbox, durable id", sandbox.sandbox_id)

        result = sandbox.run_command("python3", ["-c", PROGRAM]).check()
        say("ran a program in it", result.output.strip())

        sandbox.write_files({"notes/hello.txt": "written by the first process\n"})
        say("wrote a file and read it", sandbox.read_file("notes/hello.txt").decode().strip())

        command = sandbox.start_command(LONG_COMMAND, shell=True)
        say("started a long command, id", command.command_id)
        Path(os.environ["DEMO_IDS"]).write_text(f"{sandbox.sandbox_id} {command.command_id}")
    say("first process ends", f"pid {os.getpid()}")


def second_process() -> None:
    """Collect the result by the two ids alone, then list, stop and destroy."""
    sandbox_id, command_id = Path(os.environ["DEMO_IDS"]).read_text().split()
    with SandboxService.from_env() as service:
        sandbox = service.raising.get_sandbox(sandbox_id)
        say("second process starts", f"pid {os.getpid()}, knows only the ids")

        result = sandbox.get_command(command_id).wait(timeout_s=50)
        say("collected the long command", ", ".join(result.output.split("\n")[:-1]))
        say("the file is there too", sandbox.read_file("notes/hello.txt").decode().strip())

        page = service.raising.list_sandboxes(purpose="demo", status="active")
        say("listed the active sandboxes", ", ".join(record.id for record in page.records))

        say("stopped it, the record says", sandbox.stop().status)
        refused = service.run_command(sandbox_id, "true")
        say("a command is refused now", "not refused!" if refused.ok else refused.code)
        sandbox.destroy()
        say("destroyed it", "nothing is left")


@contextlib.contextmanager
def instantdb() -> Iterator[dict[str, str]]:
    """Serve an app with the schema; return the variables that lead to it."""
    command = [sys.executable, "-m", "servers.instantdb", "--schema", "sandbox", "--log"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=SERVERS, text=True, stdin=pipe, stdout=pipe) as server:
        app = json.loads(server.stdout.readline())
        say("an InstantDB server is at", app["url"])
        yield {
            "EKAIROS_SANDBOX_STORE": "instantdb",
            "INSTANT_APP_ID": app["app_id"],
            "INSTANT_APP_ADMIN_TOKEN": app["admin_token"],
            "INSTANT_API_URI": app["url"],
        }
        server.stdin.close()


def main() -> int:
    """Run both processes over one record store."""
    store = os.environ.get("STORE") or "sqlite"
    if store not in ("sqlite", "instantdb"):
        print("STORE is sqlite (the default) or instantdb", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ekairos-demo-") as folder:
        sqlite = {"EKAIROS_SANDBOX_STORE": f"sqlite:///{folder}/sandboxes.db"}
        with instantdb() if store == "instantdb" else contextlib.nullcontext(sqlite) as variables:
            environ = {**os.environ, **variables, "DEMO_IDS": f"{folder}/ids"}
            for step in ("first", "second"):
                words = [sys.executable, __file__, step]
                done = subprocess.run(words, env=environ, check=False)
                if done.returncode:
                    return done.returncode
    print("done")
    return 0


if __name__ == "__main__":
    steps = {"first": first_process, "second": second_process}
    if len(sys.argv) > 1:
        steps[sys.argv[1]]()
    else:
        sys.exit(main())
