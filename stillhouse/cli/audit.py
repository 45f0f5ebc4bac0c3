"""`stillhouse audit`."""

from typing import Annotated

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import Count
from stillhouse.cli.render import audit_table
from stillhouse.cli.session import AsJson


def audit(
    context: typer.Context,
    key: Annotated[str | None, typer.Option(help="Only what was done with this key: its id.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this operation, such as create_job.")] = None,
    target: Annotated[str | None, typer.Option(help="Only what was done to this object: its id.")] = None,
    count: Count = 20,
    as_json: AsJson = False,
) -> None:
    """Show who did what, newest first. Needs a key with the scope admin."""
    speak = session.of(context)
    with speak.client() as client:
        found = list(client.audit.list(key=key, action=action, target=target, limit=count))
    speak.answer(found, lambda: audit_table(found) if found else Text("No entries."))
