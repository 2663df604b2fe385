"""Tests of the views without any sandbox: a fake provider stands in for the real one."""

import json
from typing import Any
from unittest import mock

from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.test import SimpleTestCase

from ekairos_sandbox import ProviderUnavailableError, SandboxService
from ekairos_sandbox.testing import FakeProvider, MemorySandboxRepository


class ViewTests(SimpleTestCase):
    """What the views answer."""

    def setUp(self) -> None:
        """Put the fake provider in the place of the configured one."""
        self.fake = FakeProvider.standing_for(settings.SANDBOX_PROVIDER)
        made = SandboxService(MemorySandboxRepository(), environ={}, providers=[self.fake])
        for module in ("views", "management.commands.reconcile_sandboxes"):
            patch = mock.patch(f"sandboxes.{module}.service", return_value=made.raising)
            patch.start()
            self.addCleanup(patch.stop)

    def create(self) -> str:
        """Return the address of a new sandbox."""
        answer = self.post("/sandboxes/", {"purpose": "test"})
        assert answer.status_code == 201, answer.content
        return f"/sandboxes/{answer.json()['id']}/"

    def post(self, address: str, body: dict[str, Any]) -> Any:
        """Post JSON."""
        return self.client.post(address, json.dumps(body), content_type="application/json")

    def test_a_command_is_run(self) -> None:
        """Its result is the answer."""
        self.fake.on("python", stdout="42\n")
        answer: HttpResponse = self.post(self.create() + "run", {"argv": ["python", "-c", "…"]})
        self.assertEqual(json.loads(answer.content)["output"], "42\n")

    def test_output_is_streamed(self) -> None:
        """All of it."""
        self.fake.on("cat", stdout=b"x" * 200_000)
        answer = self.post(self.create() + "stream", {"argv": ["cat", "big"]})
        self.assertEqual(b"".join(answer.streaming_content), b"x" * 200_000)

    def test_a_durable_command_is_polled(self) -> None:
        """First it runs, then it has a result."""
        self.fake.on("train", stdout="done", duration_s=0.3)
        address = self.create()
        started = self.post(address + "commands", {"argv": ["train"], "command_id": "job-7"})
        self.assertEqual((started.status_code, started.json()["command_id"]), (202, "job-7"))
        poll = address + "commands/job-7"
        self.assertEqual(self.client.get(poll).json(), {"state": "running", "result": None})
        while (found := self.client.get(poll).json())["state"] == "running":
            pass
        self.assertEqual(found["result"]["output"], "done")

    def test_files_go_up_and_down(self) -> None:
        """Byte by byte."""
        address = self.create() + "files/data/in.bin"
        content = bytes(range(256)) * 100
        put = self.client.put(address, content, content_type="application/octet-stream")
        self.assertEqual((put.status_code, put.json()), (201, {"bytes": 25600}))
        got = self.client.get(address)
        self.assertEqual(b"".join(got.streaming_content), content)
        self.assertEqual(self.client.get(address + "x").status_code, 404)

    def test_errors_have_a_status_and_a_stable_code(self) -> None:
        """One that the client can branch on."""
        missing = "/sandboxes/00000000-0000-4000-8000-000000000000/"
        self.assertEqual(self.client.get(missing).status_code, 404)
        address = self.create()
        absent = self.client.get(address + "commands/never")
        self.assertEqual((absent.status_code, absent.json()["code"]), (404, "command_not_found"))
        self.assertEqual(self.post(address + "run", {"argv": "ls"}).status_code, 400)
        self.client.delete(address)
        stopped = self.post(address + "run", {"argv": ["ls"]})
        self.assertEqual((stopped.status_code, stopped.json()["code"]), (409, "sandbox_stopped"))
        self.fake.fail("create", ProviderUnavailableError("no capacity"))
        self.assertEqual(self.post("/sandboxes/", {}).status_code, 502)

    def test_reconcile_is_a_management_command(self) -> None:
        """It settles what is left."""
        address = self.create()
        self.fake.lose(address.split("/")[2])
        call_command("reconcile_sandboxes", "--apply", stdout=mock.Mock())
        self.assertEqual(self.client.get(address).json()["status"], "shutdown")
