"""`stillhouse keys …`."""

from typing import Annotated

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import Count
from stillhouse.cli.render import keys_table
from stillhouse.cli.session import AsJson
from stillhouse.spec.keys import MAX_DAYS, NewKey, Scope

app = typer.Typer(help="API keys of the project: make, list, rotate, revoke.", no_args_is_help=True)

_KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id of a key, as `keys ls` shows it: key_…")]


@app.command("me")
def show_me(context: typer.Context, as_json: AsJson = False) -> None:
    """Show whose key this is and what it may do."""
    session.ask(
        context,
        lambda client: client.keys.me(),
        lambda me: Text(f"project {me.project}\nkey {me.key.id} {me.key.name}\nscope {me.key.scope}"),
    )


@app.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[Scope, typer.Option(help="What it may do; each includes those before it.")] = "write",
    expires_in_days: Annotated[
        float | None, typer.Option(min=0, max=MAX_DAYS, help="Days until it ends. Default: never by itself.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    speak = session.of(context)
    with speak.client() as client:
        _show_new(speak, client.keys.create(name, scope=scope, expires_in_days=expires_in_days))


@app.command("ls")
def list_keys(context: typer.Context, count: Count = 20, as_json: AsJson = False) -> None:
    """List keys, newest first, also those that have ended."""
    session.ask(context, lambda client: list(client.keys.list(limit=count)), keys_table)


@app.command("rotate")
def rotate_key(
    context: typer.Context,
    key: _KeyId,
    overlap_hours: Annotated[float, typer.Option(min=0, max=720, help="How long the old key stays good.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Make a key in place of another and print it, this once."""
    speak = session.of(context)
    with speak.client() as client:
        _show_new(speak, client.keys.rotate(key, overlap_hours=overlap_hours))


@app.command("revoke")
def revoke_key(context: typer.Context, key: _KeyId, as_json: AsJson = False) -> None:
    """End a key at once and for good."""
    speak = session.of(context)
    with speak.client() as client:
        client.keys.revoke(key)
    speak.answer({"revoked": key}, lambda: Text(f"Revoked {key}."))


def _show_new(speak: session.Session, made: NewKey) -> None:
    speak.answer(made, lambda: Text(made.key))
    speak.note(f"{made.id}, scope {made.scope}. Keep the key: it cannot be shown again.")
