"""Views over sandboxes. A real project lets only their owners in; here everybody is."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.views.decorators.http import require_http_methods

from ekairos_sandbox import CommandResult, RaisingSandbox
from sandboxes.service import service


@require_http_methods(["POST"])
def collection(request: HttpRequest) -> HttpResponse:
    """Create a sandbox. The client may choose its ``id``, which makes it safe to ask again."""
    asked = _body(request)
    made = service().create_sandbox(
        provider=settings.SANDBOX_PROVIDER,
        timeout_ms=settings.SANDBOX_LIFETIME_MS,
        purpose=asked.get("purpose"),
        sandbox_id=asked.get("id"),
    )
    return JsonResponse({"id": made.sandbox_id}, status=201)


@require_http_methods(["GET", "DELETE"])
def sandbox(request: HttpRequest, sandbox_id: UUID) -> HttpResponse:
    """Say what is recorded, or destroy the sandbox."""
    handle = _handle(sandbox_id)
    record = handle.destroy() if request.method == "DELETE" else handle.record()
    return JsonResponse({"id": record.id, "status": record.status, "purpose": record.purpose})


@require_http_methods(["POST"])
def run(request: HttpRequest, sandbox_id: UUID) -> HttpResponse:
    """Run a command and answer with its result."""
    asked = _body(request)
    result = _handle(sandbox_id).run_command(
        _argv(asked),
        stdin=str(asked.get("stdin", "")),
        timeout_s=settings.SANDBOX_COMMAND_TIMEOUT_S,
    )
    return JsonResponse(_shown(result))


@require_http_methods(["POST"])
def stream(request: HttpRequest, sandbox_id: UUID) -> HttpResponseBase:
    """Run a command and send its standard output as it comes.

    The command ends when the client hangs up: the server then closes the generator, and leaving
    the ``with`` block ends the command.
    """
    output = _handle(sandbox_id).stream_command(
        _argv(_body(request)), timeout_s=settings.SANDBOX_COMMAND_TIMEOUT_S
    )

    def pieces() -> Iterator[bytes]:
        with output:
            yield from (chunk.data for chunk in output if chunk.stream == "stdout")

    return StreamingHttpResponse(pieces(), content_type="application/octet-stream")


@require_http_methods(["POST"])
def start(request: HttpRequest, sandbox_id: UUID) -> HttpResponse:
    """Start a command that goes on when this process ends; poll it by its id.

    The client may choose ``command_id``: asking again then does not start it again.
    """
    asked = _body(request)
    started = _handle(sandbox_id).start_command(_argv(asked), command_id=asked.get("command_id"))
    return JsonResponse({"command_id": started.command_id}, status=202)


@require_http_methods(["GET", "DELETE"])
def command(request: HttpRequest, sandbox_id: UUID, command_id: str) -> HttpResponse:
    """Say what a command is doing, with its result once it has ended; or end it."""
    found = _handle(sandbox_id).get_command(command_id)
    if request.method == "DELETE":
        return JsonResponse({"state": "killed", "result": _shown(found.kill())})
    state = found.state()
    if state in ("created", "running"):
        return JsonResponse({"state": state, "result": None})
    return JsonResponse({"state": state, "result": _shown(found.wait(timeout_s=0))})


@require_http_methods(["GET", "PUT"])
def file(request: HttpRequest, sandbox_id: UUID, name: str) -> HttpResponseBase:
    """Upload or download a file of any size, without holding it in memory."""
    handle = _handle(sandbox_id)
    if request.method == "PUT":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            with path.open("wb") as kept:
                while piece := request.read(1 << 20):
                    kept.write(piece)
                    if kept.tell() > settings.SANDBOX_UPLOAD_MAX_BYTES:
                        raise ValueError("the file is too large")
            stats = handle.upload(path, name)
        return JsonResponse({"bytes": stats.bytes}, status=201)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "download"
        handle.download(name, path)
        # An open file outlives its name: the answer still reads it, and nothing is left behind.
        return FileResponse(path.open("rb"), content_type="application/octet-stream")


def _handle(sandbox_id: UUID) -> RaisingSandbox:
    return service().get_sandbox(str(sandbox_id))


def _body(request: HttpRequest) -> dict[str, Any]:
    asked = json.loads(request.body or b"{}")
    if not isinstance(asked, dict):
        raise ValueError("the body must be a JSON object")
    return asked


def _argv(asked: dict[str, Any]) -> list[str]:
    argv = asked.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        raise ValueError("argv must be a list of words")
    return argv


def _shown(result: CommandResult) -> dict[str, Any]:
    return {
        "command_id": result.command_id,
        "exit_code": result.exit_code,
        "output": result.output,
        "error": result.error,
        "timed_out": result.timed_out,
        "truncated": result.truncated,
    }
