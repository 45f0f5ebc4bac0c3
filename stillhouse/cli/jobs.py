"""`stillhouse jobs …`: those that look."""

from typing import Annotated

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import Count, Deleted, JobId, job_of, labels_of
from stillhouse.cli.render import job_view, jobs_table, trashed
from stillhouse.cli.session import AsJson
from stillhouse.cli.text import clean
from stillhouse.spec.errors import Invalid
from stillhouse.spec.states import JobStatus

app = typer.Typer(
    help="List and look at jobs; pause, stop, finish, retry, clone and delete them.", no_args_is_help=True
)


@app.command("ls")
def list_jobs(
    context: typer.Context,
    status: Annotated[
        list[str] | None, typer.Option(help="Only jobs of this status; repeat it, or separate with commas.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of exactly this name.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only jobs with this label: key=value. Repeatable.")] = None,
    deleted: Deleted = False,
    count: Count = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    speak = session.of(context)
    with speak.client() as client:
        wanted, labels = _statuses(status or []), labels_of(label or [])
        jobs = list(client.jobs.list(status=wanted, name=name, labels=labels, deleted=deleted, limit=count))
    speak.answer(jobs, lambda: jobs_table(jobs) if jobs else Text("No jobs."))


@app.command("show")
def show_job(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show one job: where it stands, its measured table once it succeeded, its error when it failed."""
    speak = session.of(context)
    with speak.client() as client:
        found = job_of(client, job)
    speak.answer(found, lambda: job_view(found))


@app.command("rm")
def delete_job(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Full id of a job.")],
    as_json: AsJson = False,
) -> None:
    """Put a job that is over into the trash, with its files. Models it made stay."""
    speak = session.of(context)
    with speak.client() as client:
        found = client.jobs.delete(job)
    speak.answer(found, lambda: trashed(found))


@app.command("restore")
def restore_job(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Full id of a job.")],
    as_json: AsJson = False,
) -> None:
    """Take a job out of the trash."""
    speak = session.of(context)
    with speak.client() as client:
        found = client.jobs.restore(job)
    speak.answer(found, lambda: trashed(found))


@app.command("log")
def show_log(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Print the job's log."""
    speak = session.of(context)
    with speak.client() as client:
        found = job_of(client, job)
        text = client.jobs.log(found)
    speak.answer({"job_id": found.id, "log": text}, lambda: Text(clean(text.rstrip("\n"))))


def _statuses(given: list[str]) -> list[JobStatus]:
    words = [word.strip() for item in given for word in item.split(",")]
    known = {status.value for status in JobStatus}
    if unknown := [word for word in words if word not in known]:
        raise Invalid(f"There is no status {unknown[0]!r}.", hint=f"A status is one of {', '.join(JobStatus)}.")
    return [JobStatus(word) for word in words]
