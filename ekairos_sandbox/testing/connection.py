"""The one method on which all commands and files are built: ``Connection.shell``."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ekairos_sandbox.exceptions import (
    ProviderError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.plugins import undeclared
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.testing.base import Lab, Suite


class ConnectionSuite(Suite):
    """What ``shell`` promises."""

    @pytest.fixture(scope="class")
    @classmethod
    def connection(cls, lab: Lab, shared: RaisingSandbox) -> Iterator[Connection]:
        """A connection of the provider itself to the shared sandbox."""
        connection = lab.connect(shared)
        yield connection
        connection.close()

    def test_the_connection_offers_exactly_what_the_provider_declares(
        self, lab: Lab, connection: Connection
    ) -> None:
        found = undeclared(type(connection), lab.provider.capabilities)
        assert found == {"missing": [], "undeclared": []}
        named = type(lab.provider).connection_class
        assert named is None or isinstance(connection, named)

    def test_shell_returns_standard_output_and_not_standard_error(
        self, connection: Connection
    ) -> None:
        output = connection.shell(
            b"echo '<out>'; echo '<err>' >&2; exit 3", timeout_s=30, max_bytes=65536
        )
        assert b"<out>" in output
        assert b"<err>" not in output

    def test_shell_passes_every_byte_of_the_script(self, connection: Connection) -> None:
        script = "printf '<%s>' 'a\"b`c$d\\e\té\U0001f600\n!~{}'".encode()
        output = connection.shell(script, timeout_s=30, max_bytes=65536)
        assert '<a"b`c$d\\e\té\U0001f600\n!~{}>'.encode() in output.replace(b"\r\n", b"\n")

    def test_shell_takes_scripts_of_the_promised_length(self, connection: Connection) -> None:
        longest = connection.max_script_bytes or 4 * 1024 * 1024
        head, tail = b"{ : '", b"'\necho '<end>'; exit; }\n"
        script = head + b"x" * (longest - len(head) - len(tail)) + tail
        assert len(script) == longest
        assert b"<end>" in connection.shell(script, timeout_s=60, max_bytes=65536)

    def test_shell_returns_large_output_complete(self, connection: Connection) -> None:
        script = b"i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        output = connection.shell(script, timeout_s=60, max_bytes=1 << 20)
        lines = [line.strip() for line in output.splitlines() if line.startswith(b"line ")]
        assert lines == [b"line %d" % i for i in range(20000)]

    def test_more_output_than_allowed_is_an_error_of_unknown_outcome(
        self, connection: Connection
    ) -> None:
        script = b"i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        with pytest.raises(ProviderError) as caught:
            connection.shell(script, timeout_s=60, max_bytes=10_000)
        assert caught.value.outcome == "unknown"
        assert not isinstance(caught.value, SandboxGoneError | SandboxNotRunningError)

    def test_a_script_past_its_deadline_is_an_error_of_unknown_outcome(
        self, connection: Connection
    ) -> None:
        with pytest.raises(ProviderError) as caught:
            connection.shell(b"sleep 4; echo late", timeout_s=0.5, max_bytes=65536)
        assert caught.value.outcome == "unknown"
        assert not isinstance(caught.value, SandboxGoneError | SandboxNotRunningError)

    def test_shell_does_not_wait_for_what_runs_on_in_the_background(
        self, connection: Connection
    ) -> None:
        script = b"sleep 60 >/dev/null 2>&1 </dev/null & echo '<done>'"
        assert b"<done>" in connection.shell(script, timeout_s=30, max_bytes=65536)

    def test_shell_serves_several_threads_at_once(self, connection: Connection) -> None:
        outputs: dict[int, bytes] = {}

        def call(number: int) -> None:
            script = b"sleep 0.2; echo '<%d>'" % number
            outputs[number] = connection.shell(script, timeout_s=60, max_bytes=65536)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [number for number in range(6) if b"<%d>" % number in outputs[number]] == [
            0,
            1,
            2,
            3,
            4,
            5,
        ]

    def test_a_closed_connection_still_works(self, lab: Lab, shared: RaisingSandbox) -> None:
        connection = lab.connect(shared)
        connection.close()
        connection.close()
        assert b"<on>" in connection.shell(b"echo '<on>'", timeout_s=30, max_bytes=65536)
