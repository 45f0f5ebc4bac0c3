"""`stillhouse teacher-outputs …`."""

from typing import Annotated

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import Count
from stillhouse.cli.render import outputs_table
from stillhouse.cli.session import AsJson

app = typer.Typer(help="See what is kept of teachers' outputs, and delete some.", no_args_is_help=True)


@app.command("ls")
def list_outputs(
    context: typer.Context,
    count: Count = 20,
    as_json: AsJson = False,
) -> None:
    """List kept outputs, newest first: whose they are, their size, and how many jobs read them."""
    session.ask_list(
        context, lambda client: client.teacher_outputs.list(limit=count), outputs_table, none="No teacher outputs."
    )


@app.command("rm")
def delete_outputs(
    context: typer.Context,
    output: Annotated[str, typer.Argument(metavar="OUTPUTS", help="Id of kept outputs.")],
    as_json: AsJson = False,
) -> None:
    """Delete kept outputs. A later job that needs them makes them again."""
    speak = session.of(context)
    with speak.client() as client:
        client.teacher_outputs.delete(output)
    speak.answer({"deleted": output}, lambda: Text(f"Deleted {output}."))
