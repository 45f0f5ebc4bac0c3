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


_FullId = Annotated[str, typer.Argument(metavar="JOB", help="Full id of a job.")]
"""Without `last`: what is deleted must be meant."""


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
    wanted, labels = _statuses(status or []), labels_of(label or [])
    session.ask_list(
        context,
        lambda client: client.jobs.list(status=wanted, name=name, labels=labels, deleted=deleted, limit=count),
        jobs_table,
        none="No jobs.",
    )


@app.command("show")
def show_job(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show one job: where it stands, its measured table once it succeeded, its error when it failed."""
    session.ask(context, lambda client: job_of(client, job), job_view)


@app.command("rm")
def delete_job(context: typer.Context, job: _FullId, as_json: AsJson = False) -> None:
    """Put a job that is over into the trash, with its files. Models it made stay."""
    session.ask(context, lambda client: client.jobs.delete(job), trashed)


@app.command("restore")
def restore_job(context: typer.Context, job: _FullId, as_json: AsJson = False) -> None:
    """Take a job out of the trash."""
    session.ask(context, lambda client: client.jobs.restore(job), trashed)


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
