"""`stillhouse secrets …`."""

import sys
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.render import secrets_table
from stillhouse.cli.session import AsJson
from stillhouse.spec.errors import Invalid
from stillhouse.spec.secret import MAX_SECRET_CHARACTERS

app = typer.Typer(help="Secrets that jobs use by name, such as a token of a hub.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and hyphens.")]


@app.command("set")
def set_secret(context: typer.Context, name: _Name, as_json: AsJson = False) -> None:
    """Store a secret or replace its value, which is asked for, or read from standard input: never an argument."""
    value = _value()
    speak = session.of(context)
    try:
        with speak.client() as client:
            made = client.secrets.set(name, value)
    except ValidationError:
        detail = f"The value must be 1 to {MAX_SECRET_CHARACTERS} printable ASCII characters, without spaces."
        raise Invalid(detail, hint="Check that it was copied whole, and nothing beside it.") from None
    speak.answer(made, lambda: Text(f'Stored. In a spec write {{"secret": "{made.name}"}}.'))


@app.command("list")
def list_secrets(context: typer.Context, as_json: AsJson = False) -> None:
    """List secrets by name; their values cannot be shown."""
    session.ask_list(context, lambda client: client.secrets.list(), secrets_table, none="No secrets.")


@app.command("delete")
def delete_secret(context: typer.Context, name: _Name, as_json: AsJson = False) -> None:
    """Forget a secret at once; jobs that name it and have not begun fail."""
    speak = session.of(context)
    with speak.client() as client:
        client.secrets.delete(name)
    speak.answer({"deleted": name}, lambda: Text(f"Deleted {name}."))


def _value() -> str:
    """From the terminal without an echo, or from a pipe, whose last line break does not count."""
    if sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True, err=True)).strip()
    # One character more than may be: too long is refused, whatever else comes is not read.
    return sys.stdin.read(MAX_SECRET_CHARACTERS + 2).removesuffix("\n").removesuffix("\r")
