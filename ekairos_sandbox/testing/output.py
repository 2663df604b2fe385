"""Output: two streams, every byte, bounded memory, live."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import hashlib

import pytest

from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.results import OutputChunk
from ekairos_sandbox.testing.base import Lab, Suite, home_of, sh

KEPT = 64 * 1024

# Writes $1 blocks of 64 KiB in which no two lines are the same.
BLOCKS = """
b=$(i=0; while [ $i -lt 1023 ]; do
  printf '%05d 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefgh 01\\n' $i; i=$((i+1)); done)
n=0; while [ $n -lt "$1" ]; do printf 'block %057d\\n%s\\n' $n "$b"; n=$((n+1)); done
"""


class OutputSuite(Suite):
    """What a result and a stream hold of what a command wrote."""

    def test_all_256_bytes_come_back_exactly(self, shared: RaisingSandbox) -> None:
        octal = "".join(f"\\{byte:03o}" for byte in range(256))
        result = sh(shared, f"printf '{octal}'; printf '{octal}{octal}' >&2").check()
        assert result.stdout == bytes(range(256))
        assert result.stderr == bytes(range(256)) * 2
        assert (result.stdout_size, result.stderr_size, result.truncated) == (256, 512, False)

    def test_the_two_streams_come_apart(self, shared: RaisingSandbox) -> None:
        script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
        result = sh(shared, script).check()
        assert result.output == "out 1\nout 2\nout 3\n"
        assert result.error == "err 1\nerr 2\nerr 3\n"

    def test_no_output_is_no_output(self, shared: RaisingSandbox) -> None:
        result = shared.run_command("true")
        assert (result.stdout, result.stderr, result.truncated) == (b"", b"", False)

    @pytest.mark.parametrize("size", [KEPT - 1, KEPT, KEPT + 1])
    def test_64_kib_are_kept_and_more_is_said_to_be_truncated(
        self, shared: RaisingSandbox, size: int
    ) -> None:
        script = 'printf begin; head -c "$1" /dev/zero | tr "\\0" x; printf end'
        result = sh(shared, script, str(size - 8)).check()
        assert result.stdout_size == size
        assert result.truncated == (size > KEPT)
        assert len(result.stdout) == min(size, KEPT)
        assert result.stdout.startswith(b"beginx")
        assert result.stdout.endswith(b"xend")

    def test_large_output_is_stored_whole_and_the_result_says_how_much(
        self, shared: RaisingSandbox
    ) -> None:
        blocks = -(-self.big_output_bytes // KEPT)
        result = sh(shared, BLOCKS, str(blocks), timeout_s=600).check()
        assert result.stdout_size == blocks * KEPT
        assert result.truncated
        assert len(result.stdout) == KEPT
        assert result.stdout.startswith(_block(0)[: KEPT // 2])
        assert result.stdout.endswith(_block(blocks - 1)[-KEPT // 2 :])
        digest, size = hashlib.sha256(), 0
        for piece in shared.get_command(result.command_id).output():
            digest.update(piece)
            size += len(piece)
        expected = hashlib.sha256()
        for number in range(blocks):
            expected.update(_block(number))
        assert size == blocks * KEPT
        assert digest.hexdigest() == expected.hexdigest()

    def test_output_can_be_read_from_any_offset(self, lab: Lab, shared: RaisingSandbox) -> None:
        result = sh(shared, "printf 0123456789; printf abcdef >&2").check()
        command = lab.service().get_command(shared.sandbox_id, result.command_id)
        assert b"".join(command.output(offset=4)) == b"456789"
        assert b"".join(command.output("stderr", offset=5)) == b"f"
        assert b"".join(command.output(offset=10)) == b""

    def test_text_that_imitates_an_answer_is_only_text(self, shared: RaisingSandbox) -> None:
        frame = "@EK1:%s:job:b:exited:0:-:-:1.00:1.00:n:2:0:aGk=:::%s@"
        # Whatever is framed with marks that the command can find beside its own files.
        script = f"""
        for n in 0123456789abcdef "$EKAIROS_JOB_MARK" $(ls -a "$1" "$1"/jobs/* |
            tr -c '0-9a-f\\n' '\\n' | grep -x '[0-9a-f]\\{{16\\}}'); do
          printf '\\n{frame}\\n' "$n" "$n" "$n" "$n" >&2
        done
        printf '\\n{frame}\\n' 0123456789abcdef 0123456789abcdef
        exit 5
        """
        result = sh(shared, script, f"{home_of(shared)}/.local/state/ekairos-sandbox")
        assert result.exit_code == 5
        nonce = "0123456789abcdef"
        assert result.output == f"\n{frame % (nonce, nonce)}\n"
        assert result.stdout_size == len(result.stdout)

    def test_a_stream_is_complete_in_order_and_ends_with_the_result(
        self, shared: RaisingSandbox
    ) -> None:
        script = "i=0; while [ $i -lt 3000 ]; do echo $i; echo e$i >&2; i=$((i+1)); done; exit 7"
        seen: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        with shared.stream_command(["sh", "-c", script]) as stream:
            for chunk in stream:
                assert chunk.offset == len(seen[chunk.stream])
                assert chunk.data
                seen[chunk.stream] += chunk.data
            result = stream.result()
        assert seen["stdout"] == b"".join(b"%d\n" % i for i in range(3000))
        assert seen["stderr"] == b"".join(b"e%d\n" % i for i in range(3000))
        assert (result.exit_code, result.stdout) == (7, seen["stdout"])

    def test_output_arrives_while_the_command_runs(
        self, shared: RaisingSandbox, folder: str
    ) -> None:
        script = 'echo first; until [ -e "$1/go" ]; do sleep 0.1; done; echo second'
        chunks: list[OutputChunk] = []

        def on_output(chunk: OutputChunk) -> None:
            chunks.append(chunk)
            if chunk.offset == 0:
                shared.write_files({f"{folder}/go": b""})

        result = sh(shared, script, folder, on_output=on_output, timeout_s=60).check()
        assert result.output == "first\nsecond\n"
        assert [(c.stream, c.offset, c.data) for c in chunks] == [
            ("stdout", 0, b"first\n"),
            ("stdout", 6, b"second\n"),
        ]

    def test_large_output_can_be_streamed(self, shared: RaisingSandbox) -> None:
        blocks = 128
        expected, got = hashlib.sha256(), hashlib.sha256()
        for number in range(blocks):
            expected.update(_block(number))
        with shared.stream_command(["sh", "-c", BLOCKS, "sh", str(blocks)]) as stream:
            for chunk in stream:
                got.update(chunk.data)
            result = stream.result()
        assert result.stdout_size == blocks * KEPT
        assert got.hexdigest() == expected.hexdigest()


_LINES = b"".join(
    b"%05d 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefgh 01\n" % i for i in range(1023)
)


def _block(number: int) -> bytes:
    """What ``BLOCKS`` writes as its block of this number."""
    return b"block %057d\n" % number + _LINES
