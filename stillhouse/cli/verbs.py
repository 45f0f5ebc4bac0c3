"""`stillhouse jobs …`: those that ask something of a job."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import JobId, job_of
from stillhouse.cli.pull import progress_bars
from stillhouse.cli.render import checkpoints_table
from stillhouse.cli.session import AsJson
from stillhouse.cli.specfile import read_spec_file
from stillhouse.cli.text import clean, size
from stillhouse.client import Client
from stillhouse.spec.views import Job


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of jobs."""
    for name, command in _COMMANDS.items():
        app.command(name)(command)


def cancel(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Stop a job. It ends within seconds; what it did is not kept."""
    _ask(context, job, lambda client, found: client.jobs.cancel(found))


def pause(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Put a job aside: it writes a checkpoint and gives its device back."""
    _ask(context, job, lambda client, found: client.jobs.pause(found))


def resume(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Go on with a paused job from its checkpoint."""
    _ask(context, job, lambda client, found: client.jobs.resume(found))


def finish(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Stop training now, keep the best student so far, go on to evaluation and export."""
    _ask(context, job, lambda client, found: client.jobs.finish(found))


def retry(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Try a failed or cancelled job again; a failed one goes on from its last checkpoint."""
    _ask(context, job, lambda client, found: client.jobs.retry(found))


def clone(
    context: typer.Context,
    job: JobId,
    changes: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="Fields to change, in YAML or JSON; null removes one. `-`: standard input."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a new job with the spec of an old one, with or without changes."""
    patch = None if changes is None else read_spec_file(changes).data
    _ask(context, job, lambda client, found: client.jobs.clone(found, patch))


def checkpoints(
    context: typer.Context,
    job: JobId,
    best: Annotated[
        Path | None, typer.Option("--best", help="Fetch the best student so far into this file (safetensors).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another file of the same name.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints a job could go on from, or fetch its best student so far."""
    speak = session.of(context)
    with speak.client() as client:
        found = job_of(client, job)
        if best is not None:
            with progress_bars(speak) as on_progress:
                path = client.jobs.download_best(found, best, overwrite=force, on_progress=on_progress)
            told = {"path": str(path), "bytes": path.stat().st_size}
            speak.answer(told, lambda: Text(clean(f"{path}  {size(path.stat().st_size)}")))
            return
        kept = list(client.jobs.checkpoints(found))
    speak.answer(kept, lambda: checkpoints_table(kept) if kept else Text("No checkpoints."))


_COMMANDS: dict[str, Callable[..., None]] = {
    "cancel": cancel,
    "pause": pause,
    "resume": resume,
    "finish": finish,
    "retry": retry,
    "clone": clone,
    "checkpoints": checkpoints,
}


def _ask(context: typer.Context, job: str, verb: Callable[[Client, Job], Job]) -> None:
    session.ask(
        context,
        lambda client: verb(client, job_of(client, job)),
        lambda found: Text(clean(f"{found.id} {found.status}: {found.status_text}")),
    )
