"""`stillhouse audit`."""

from typing import Annotated

import typer

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
    session.ask_list(
        context,
        lambda client: client.audit.list(key=key, action=action, target=target, limit=count),
        audit_table,
        none="No entries.",
    )
