"""`stillhouse submit`."""

from typing import Annotated

import typer
from rich.text import Text

from stillhouse.cli import exits, session
from stillhouse.cli.render import validated_view
from stillhouse.cli.session import AsJson, Session
from stillhouse.cli.specfile import read_spec_file
from stillhouse.cli.watch import follow_and_point_on
from stillhouse.client.jobs import checked_spec
from stillhouse.spec.errors import Invalid
from stillhouse.spec.job import JobSpec
from stillhouse.spec.views import Job


def submit(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Job spec in YAML or JSON; `-` reads standard input.")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job to its end.")] = False,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check the spec and show what would run; submit nothing.")
    ] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="The same key and file give the same job, however often they are submitted."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job. The spec is checked here first, then by the service."""
    speak = session.of(context)
    source = read_spec_file(file)
    try:
        spec = checked_spec(source.data)
        if validate_only:
            _validate(speak, spec)
        else:
            _submit(speak, spec, idempotency_key, watch=watch)
    except Invalid as error:
        error.errors = tuple(sorted(error.errors, key=lambda field: source.line(field.pointer)))
        speak.fail(error, place=source.place)
        raise typer.Exit(exits.of_error(error)) from error


def _validate(speak: Session, spec: JobSpec) -> None:
    with speak.client() as client:
        validated = client.jobs.validate(spec)
    speak.answer(validated, lambda: validated_view(validated))


def _submit(speak: Session, spec: JobSpec, idempotency_key: str | None, *, watch: bool) -> None:
    with speak.client() as client:
        job = client.jobs.create(spec, idempotency_key=idempotency_key)
        if watch:
            speak.note(f"{job.id} was accepted.")
            raise typer.Exit(follow_and_point_on(speak, client, job))
    speak.answer(job, lambda: Text(_accepted(job)))


def _accepted(job: Job) -> str:
    commands = (
        f"stillhouse watch {job.id}",
        f"stillhouse pull {job.id}",
        f"stillhouse jobs cancel {job.id}",
    )
    return "\n".join([f"{job.id} was accepted. Follow it, fetch its student when it is done, or stop it:", *commands])
