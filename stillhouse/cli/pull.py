"""`stillhouse pull`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.arguments import JobId, job_of
from stillhouse.cli.session import AsJson, Session
from stillhouse.cli.text import clean, size
from stillhouse.client import OnProgress


def pull(
    context: typer.Context,
    job: JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder, or file with --zip. Default: named like the job.")
    ] = None,
    zip: Annotated[bool, typer.Option("--zip", help="Fetch everything as one ZIP file.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace other files of the same name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download the student of a finished job: weights, ONNX, report, model card.

    An interrupted pull goes on where it stopped when it is run again; every file is checked against its checksum.
    """
    speak = session.of(context)
    with speak.client() as client:
        found = job_of(client, job)
        with progress_bars(speak) as on_progress:
            if zip:
                target = output or Path(f"{found.id}.zip")
                paths = [client.jobs.bundle(found, target, overwrite=force, on_progress=on_progress)]
            else:
                folder = output or Path(found.id)
                paths = list(client.jobs.download(found, folder, overwrite=force, on_progress=on_progress))
    speak.answer([{"path": str(path), "bytes": path.stat().st_size} for path in paths], lambda: _listing(paths))


@contextmanager
def progress_bars(speak: Session) -> Iterator[OnProgress | None]:
    """A bar per file on a terminal; nothing elsewhere."""
    if not speak.live:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=speak.err, transient=True) as progress:

        def update(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(clean(name), total=total or None)
            progress.update(bars[name], completed=done)

        yield update


def _listing(paths: list[Path]) -> Text:
    return Text("\n".join(clean(f"{path}  {size(path.stat().st_size)}") for path in paths))
