"""The commands of ``ekairos-daytona-local``, put together from checkout, containers and API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox_daytona.oss import api
from ekairos_sandbox_daytona.oss.checkout import LAST_REF, REPOSITORY, Checkout
from ekairos_sandbox_daytona.oss.compose import Compose, Layout
from ekairos_sandbox_daytona.oss.problems import ExitCode, StackError
from ekairos_sandbox_daytona.oss.programs import docker, git
from ekairos_sandbox_daytona.oss.settings import Settings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stack:
    """One local stack.

    Attributes:
        settings: Where it is.
        environ: Environment of git and docker.
        clock: Time and sleep.
        platform: As ``sys.platform``.
        say: Writes a line for the user.
        warn: Writes a line that must not be missed.
    """

    settings: Settings
    environ: Mapping[str, str] = field(repr=False)
    clock: Clock
    platform: str
    say: Say
    warn: Say

    def init(self, repository: str = REPOSITORY) -> None:
        """Make the checkout, or check another ref out in it."""
        checkout = self._checkout()
        if not checkout.exists:
            ref = self.settings.ref or LAST_REF
            self.say(f"cloning {ref} into {checkout.home}; this takes a while")
            checkout.create(repository, ref)
        elif self.settings.ref is not None:
            checkout.switch(self.settings.ref)
        self.say(f"{checkout.home} is at {checkout.described()}")

    def pull(self) -> None:
        """Bring the checkout up to date."""
        checkout = self._checkout()
        checkout.require()
        before = checkout.described()
        if self.settings.ref is not None:
            checkout.switch(self.settings.ref)
        else:
            checkout.update()
        after = checkout.described()
        self.say(f"already at {after}" if before == after else f"{before} -> {after}")

    def up(self, *, timeout_s: float) -> None:
        """Start the containers, wait for the API and say how to use it."""
        compose = self._compose(init=True)
        layout = compose.layout()
        compose.up(layout)
        self._await(layout, timeout_s)

    def down(self) -> None:
        """Stop and remove the containers; their data stays."""
        self._compose().down()

    def restart(self, *, timeout_s: float) -> None:
        """Stop the containers and start them again."""
        compose = self._compose()
        layout = compose.layout()
        compose.down()
        compose.up(layout)
        self._await(layout, timeout_s)

    def status(self) -> None:
        """Show the containers, and whether the API answers."""
        compose = self._compose()
        layout = compose.layout()
        compose.status()
        url = _url(layout)
        try:
            found = api.ask(url)
        except TransportError as error:
            self.say(f"the API does not answer at {url}: {error}")
            return
        self._introduce(found)
        self._judge_sdk(found)
        self._judge_names(found)

    def logs(self, services: list[str], *, follow: bool, tail: str) -> None:
        """Show what the containers wrote."""
        self._compose().logs(services, follow=follow, tail=tail)

    def clean(self, *, confirm: Callable[[], bool]) -> None:
        """Remove the containers and all their data, once that is confirmed.

        Raises:
            StackError: ``NOT_CONFIRMED``; nothing was removed.
        """
        compose = self._compose()
        layout = compose.layout()
        self.say("this removes the containers of the stack and, for good, its volumes:")
        for volume in layout.volumes:
            self.say(f"  {volume}")
        self.say(
            "with them sandboxes, snapshots, Daytona volumes, users and API keys are lost; "
            f"the checkout in {self.settings.home} stays"
        )
        if not confirm():
            raise StackError(ExitCode.NOT_CONFIRMED, "nothing was removed", "confirm it with --yes")
        compose.down(volumes=True)
        self.say("removed")

    def _checkout(self) -> Checkout:
        own_file = self.settings.compose is not None
        return Checkout(self.settings.home, git(self.environ), needs_compose_file=not own_file)

    def _compose(self, *, init: bool = False) -> Compose:
        program = docker(self.environ)
        program.path()
        if self.settings.compose is None:
            checkout = self._checkout()
            ref = self.settings.ref
            if init and not (checkout.exists and (ref is None or checkout.is_at(ref))):
                self.init()
            checkout.require()
        compose = Compose(self.settings.compose_file, program, self.platform)
        compose.check()
        return compose

    def _await(self, layout: Layout, timeout_s: float) -> None:
        url = _url(layout)
        found = api.wait(
            url,
            self.clock,
            timeout_s=timeout_s,
            waiting=lambda: self.say(f"waiting for the API at {url}"),
        )
        self._introduce(found)
        dashboard = f"{url.removesuffix('/api')}/dashboard"
        self.say(f"""
Dashboard  {dashboard}
           user dev@daytona.io, password `password` (this local stack alone)
API key    in the dashboard, under Keys, create one with all permissions
Snapshot   under Snapshots, wait until the default one is active

Set these variables:
{_assignments(url, windows=self._windows)}
""")
        self._judge_sdk(found)
        self._judge_names(found)

    def _introduce(self, found: api.Api) -> None:
        self.say(f"Daytona {found.version or 'of an unknown version'} answers at {found.url}")

    def _judge_sdk(self, found: api.Api) -> None:
        fitting = found.sdk_requirement
        self.say(f"SDK that fits: pip install '{fitting}'")
        installed = api.installed_sdk()
        if installed is not None and not found.accepts(installed[1]):
            name, version = installed
            self.warn(
                f"warning: {name} {version} is newer than this API and refuses its answers; a "
                "create through the SDK itself raises after the sandbox was made"
            )

    def _judge_names(self, found: api.Api) -> None:
        host = found.toolbox_host
        if host and not api.resolves(host):
            file = r"C:\Windows\System32\drivers\etc\hosts" if self._windows else "/etc/hosts"
            self.warn(
                f"warning: this machine does not know the host {host}, to which commands and "
                f"files are sent; add the line `127.0.0.1 {host}` to {file}"
            )

    @property
    def _windows(self) -> bool:
        return self.platform == "win32"


def _url(layout: Layout) -> str:
    return f"http://localhost:{layout.api_port}/api"


def _assignments(url: str, *, windows: bool) -> str:
    values = {
        "SANDBOX_PROVIDER": "daytona",
        "DAYTONA_API_URL": url,
        "DAYTONA_API_KEY": "<the key>",
    }
    form = '  $env:{} = "{}"' if windows else "  export {}='{}'"
    return "\n".join(form.format(name, value) for name, value in values.items())
