"""`stillhouse webhooks …`."""

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import JobId, job_of
from stillhouse.cli.render import deliveries_table
from stillhouse.cli.session import AsJson
from stillhouse.spec.webhook import WebhookSecret

app = typer.Typer(help="See how messages to webhooks fare, and the secret that signs them.", no_args_is_help=True)


@app.command("ls")
def list_deliveries(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """List the messages about one job; there are none before it is over."""
    speak = session.of(context)
    with speak.client() as client:
        found = list(client.webhooks.deliveries(job_of(client, job)))
    speak.answer(found, lambda: deliveries_table(found) if found else Text("No messages."))


@app.command("secret")
def show_secret(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the secret that receivers check messages with."""
    speak = session.of(context)
    with speak.client() as client:
        found = client.webhooks.secret()
    speak.answer(found, lambda: Text(found.secret))


@app.command("rotate-secret")
def rotate_secret(context: typer.Context, as_json: AsJson = False) -> None:
    """Make a new secret and print it; the previous one signs too for another day."""
    speak = session.of(context)
    with speak.client() as client:
        found: WebhookSecret = client.webhooks.rotate_secret()
    speak.answer(found, lambda: Text(found.secret))
