"""Calls of `shell` per operation"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bench.measure import Row, sandbox
from ekairos_sandbox_local.sandboxes import Sandboxes
from ekairos_sandbox_local.state import Meta

from ekairos_sandbox import SandboxService


def rows() -> Iterator[Row]:
    """Count the scripts that reach the sandbox while the verbs run."""
    calls: list[int] = []
    shell = Sandboxes.shell

    def counted(self: Sandboxes, meta: Meta, script: bytes, **limits: Any) -> bytes:
        calls.append(len(script))
        return shell(self, meta, script, **limits)

    Sandboxes.shell = counted  # type: ignore[method-assign]

    def count(act: Callable[[], object]) -> str:
        calls.clear()
        act()
        return str(len(calls))

    try:
        with sandbox() as box:
            yield Row("warm `run_command`", count(lambda: box.run_command("true")), "1")
            repository = box.service._operations.ledger.repository
            reads: list[str] = []
            get = repository.get

            def reading(sandbox_id: str) -> Any:
                reads.append(sandbox_id)
                return get(sandbox_id)

            repository.get = reading  # type: ignore[method-assign]
            other = SandboxService(repository).raising
            by_id = count(lambda: other.run_command(box.sandbox_id, "true"))
            yield Row("by id from a new process", f"{len(reads)} record read + {by_id}", "1 + 1")
            got: list[int] = []
            big = count(
                lambda: box.run_command(
                    ["head", "-c", "10000000", "/dev/zero"],
                    on_output=lambda chunk: got.append(len(chunk.data)),
                )
            )
            yield Row(f"10 MB of output, all {sum(got)} bytes received", big, "3")
            yield Row("`write_files`, 20 small files", count(lambda: box.write_files(
                {f"f{i}": b"x" for i in range(20)})), "1")  # fmt: skip
            yield Row("`read_file`", count(lambda: box.read_file("f1")), "1")
    finally:
        Sandboxes.shell = shell  # type: ignore[method-assign]
