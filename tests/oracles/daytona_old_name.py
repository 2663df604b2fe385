"""A client of the deprecated package ``daytona_sdk``, handed to this provider. Prints JSON."""

from __future__ import annotations

import importlib
import json
import sys
import warnings

settings = json.load(sys.stdin)
sys.path[:0] = settings["source"]

from ekairos_sandbox.provider import ProviderContext  # noqa: E402
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository  # noqa: E402
from ekairos_sandbox.service import SandboxService  # noqa: E402
from ekairos_sandbox_daytona import DaytonaProvider  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    sdk = importlib.import_module("daytona_sdk")

    environ = settings["environ"]
    client = sdk.Daytona(
        sdk.DaytonaConfig(
            api_key=environ["DAYTONA_API_KEY"],
            api_url=environ["DAYTONA_API_URL"],
            use_deprecated_polling=True,
        )
    )

provider = DaytonaProvider(ProviderContext(environ={}), client=client)
store = SqliteSandboxRepository(settings["store"])
with SandboxService(store, environ={}, providers=[provider]) as service:
    sandbox = service.raising.create_sandbox(provider="daytona")
    output = sandbox.run_command("echo", ["old name"]).output
    module = type(sandbox.native()).__module__.partition(".")[0]
    sandbox.destroy()
print(json.dumps({"output": output, "native": module}))
