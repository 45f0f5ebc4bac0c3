"""`stillhouse students | losses | version`: what the service knows, and what it is."""

import re
from typing import Annotated

import typer
from rich.text import Text

import stillhouse
from stillhouse.cli import session
from stillhouse.cli.render import catalogue_table, sizes_table
from stillhouse.cli.session import AsJson
from stillhouse.cli.text import clean
from stillhouse.spec.errors import Invalid


def students(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="Id of a dataset: show what students cost on it.")] = None,
    shape: Annotated[
        str | None, typer.Option(help="The same for rows of this shape: 1,28,28 for images, 30 for a table.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Classes, beside --shape.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the student architectures, and the fields of each; for some data, their sizes."""
    speak = session.of(context)
    with speak.client() as client:
        catalogue = client.students(dataset=dataset, shape=_numbers(shape), classes=classes)
    asked = dataset is not None or shape is not None
    speak.answer(catalogue, lambda: sizes_table(catalogue) if asked else catalogue_table(catalogue))


def losses(context: typer.Context, as_json: AsJson = False) -> None:
    """List the losses a job can weigh, and the fields of each."""
    session.ask(context, lambda client: client.losses(), catalogue_table)


def version(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the versions of this client and of the service."""
    speak = session.of(context)
    with speak.client() as client:
        service = client.version()
        url = client.url
    answer = {"client": stillhouse.__version__, "url": url, "service": service.model_dump(mode="json")}
    words = f"client {stillhouse.__version__}\nservice {service.version} at {url}"
    speak.answer(answer, lambda: Text(clean(words)))


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if re.fullmatch(r"\d{1,9}(,\d{1,9})*", text) is None:
        raise Invalid(f"{text!r} is not a shape.", hint="Write it as --shape 3,32,32, or --shape 30 for a table.")
    return tuple(map(int, text.split(",")))
