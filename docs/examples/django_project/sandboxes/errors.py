"""What the library raises, as HTTP answers."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse

from ekairos_sandbox import (
    CommandNotFoundError,
    CommandStartError,
    ConfigurationError,
    IdConflictError,
    OutcomeUnknownError,
    ProviderRateLimitedError,
    RecordNotFoundError,
    RemoteFileError,
    RemoteFileNotFoundError,
    SandboxError,
    SandboxGoneError,
    SandboxNotReadyError,
    SandboxStoppedError,
)

STATUSES: list[tuple[type[Exception], int]] = [
    (RecordNotFoundError, 404),
    (CommandNotFoundError, 404),
    (RemoteFileNotFoundError, 404),
    (SandboxGoneError, 410),
    (SandboxStoppedError, 409),
    (SandboxNotReadyError, 409),
    (IdConflictError, 409),
    (RemoteFileError, 422),
    (CommandStartError, 422),
    (ConfigurationError, 400),
    (ProviderRateLimitedError, 429),
    # Whether it happened is not known: look, do not simply repeat.
    (OutcomeUnknownError, 504),
    (SandboxError, 502),
    (ValueError, 400),
]


class SandboxErrors:
    """Middleware: answers with the status, the stable code and the message of an error."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for an error that a view raised; None leaves it to Django."""
        del request
        for kind, status in STATUSES:
            if isinstance(error, kind):
                code = getattr(error, "code", "invalid_request")
                return JsonResponse({"code": code, "error": str(error)}, status=status)
        return None
