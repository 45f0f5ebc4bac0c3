"""`stillhouse models …`."""

from typing import Annotated

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.render import model_view, models_table
from stillhouse.cli.session import AsJson

app = typer.Typer(help="Look at the models the service holds: each can be a job's teacher.", no_args_is_help=True)


@app.command("ls")
def list_models(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="At most so many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List models, newest first."""
    speak = session.of(context)
    with speak.client() as client:
        models = list(client.models.list(limit=count))
    speak.answer(models, lambda: models_table(models) if models else Text("No models."))


@app.command("show")
def show_model(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id of a model.")],
    as_json: AsJson = False,
) -> None:
    """Show one model: its network, its data, how to feed it."""
    speak = session.of(context)
    with speak.client() as client:
        found = client.models.get(model)
    speak.answer(found, lambda: model_view(found))
