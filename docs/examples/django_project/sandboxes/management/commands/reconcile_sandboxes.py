"""``manage.py reconcile_sandboxes``: settle what crashes left behind; for cron."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from sandboxes.service import service


class Command(BaseCommand):
    """Compares records with what the providers have."""

    help = "Settle what crashes left behind. Without --apply it only says what it would do."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare ``--apply``."""
        parser.add_argument("--apply", action="store_true", help="do it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Reconcile, and fail if something could not be settled."""
        del args
        report = service().reconcile(apply=options["apply"])
        for action in report.actions:
            self.stdout.write(
                f"{action.kind}: {action.sandbox_id or action.provider}: {action.detail}"
                + (f" ({action.error})" if action.error else "")
            )
        self.stdout.write(f"{report.checked} records, {len(report.actions)} actions")
        if any(action.error for action in report.actions):
            raise CommandError("not everything could be settled; run it again later")
