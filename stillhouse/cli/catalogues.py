"""`stillhouse students | losses | version`: what the service knows, and what it is."""

import typer
from rich.text import Text

import stillhouse
from stillhouse.cli import session
from stillhouse.cli.render import catalogue_table
from stillhouse.cli.session import AsJson
from stillhouse.cli.text import clean


def students(context: typer.Context, as_json: AsJson = False) -> None:
    """List the student architectures, and the fields of each."""
    speak = session.of(context)
    with speak.client() as client:
        catalogue = client.students()
    speak.answer(catalogue, lambda: catalogue_table(catalogue))


def losses(context: typer.Context, as_json: AsJson = False) -> None:
    """List the losses a job can weigh, and the fields of each."""
    speak = session.of(context)
    with speak.client() as client:
        catalogue = client.losses()
    speak.answer(catalogue, lambda: catalogue_table(catalogue))


def version(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the versions of this client and of the service."""
    speak = session.of(context)
    with speak.client() as client:
        service = client.version()
        url = client.url
    answer = {"client": stillhouse.__version__, "url": url, "service": service.model_dump(mode="json")}
    words = f"client {stillhouse.__version__}\nservice {service.version} at {url}"
    speak.answer(answer, lambda: Text(clean(words)))
