"""`stillhouse webhooks …`."""

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import JobId, job_of
from stillhouse.cli.render import deliveries_table
from stillhouse.cli.session import AsJson

app = typer.Typer(help="See how messages to webhooks fare, and the secret that signs them.", no_args_is_help=True)


@app.command("ls")
def list_deliveries(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """List the messages about one job; there are none before it is over."""
    session.ask_list(
        context,
        lambda client: client.webhooks.deliveries(job_of(client, job)),
        deliveries_table,
        none="No messages.",
    )


@app.command("secret")
def show_secret(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the secret that receivers check messages with."""
    session.ask(context, lambda client: client.webhooks.secret(), lambda found: Text(found.secret))


@app.command("rotate-secret")
def rotate_secret(context: typer.Context, as_json: AsJson = False) -> None:
    """Make a new secret and print it; the previous one signs too for another day."""
    session.ask(context, lambda client: client.webhooks.rotate_secret(), lambda found: Text(found.secret))
