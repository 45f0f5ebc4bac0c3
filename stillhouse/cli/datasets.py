"""`stillhouse datasets …`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Group
from rich.text import Text

from stillhouse.cli import exits, session
from stillhouse.cli.arguments import Count, Deleted, as_option
from stillhouse.cli.pull import progress_bars
from stillhouse.cli.render import dataset_view, datasets_table, trashed
from stillhouse.cli.session import AsJson
from stillhouse.spec.errors import Invalid
from stillhouse.spec.upload import UploadFormat

app = typer.Typer(help="Upload, look at and delete datasets.", no_args_is_help=True)

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="Id of a dataset.")]


@app.command("add")
def add_dataset(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="CSV, JSON lines, Parquet, .npz, or a ZIP of class folders with PNG or JPEG.")
    ],
    name: Annotated[str | None, typer.Option(help="What you call it. Default: the file's name.")] = None,
    format: Annotated[UploadFormat | None, typer.Option(help="Default: told by the bytes.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column that holds the class. Default: label, target, class or y.")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option(help="Column that says train, validation or test. Default: splits are made.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Column to leave out. Repeatable.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share of rows for validation. Default: 0.15.")] = None,
    test: Annotated[float | None, typer.Option(help="Share of rows for the test. Default: 0.15.")] = None,
    seed: Annotated[int | None, typer.Option(help="Start of the stream that makes the splits. Default: 0.")] = None,
    bad_rows: Annotated[
        Literal["reject", "drop"] | None,
        typer.Option(help="reject: one bad row refuses the file. drop: bad rows are left out and listed."),
    ] = None,
    unlabelled: Annotated[
        Literal["reject", "keep"] | None,
        typer.Option(help="keep: training rows without a label stay, to learn from the teacher alone."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels every image is brought to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a dataset. The service checks it before it is stored, and says what it found."""
    speak = session.of(context)
    try:
        with speak.client() as client, progress_bars(speak) as on_progress:
            dataset = client.datasets.add(
                file,
                name=name,
                format=format,
                label=label,
                split_column=split_column,
                ignore=ignore or (),
                validation=validation,
                test=test,
                seed=seed,
                bad_rows=bad_rows,
                unlabelled=unlabelled,
                image_size=image_size,
                on_progress=on_progress,
            )
    except Invalid as error:
        speak.fail(error, place=as_option)
        raise typer.Exit(exits.of_error(error)) from error
    use = Text(f"In a job spec:  dataset: {{id: {dataset.id}}}", style="dim")
    speak.answer(dataset, lambda: Group(dataset_view(dataset), Text(), use))


@app.command("ls")
def list_datasets(
    context: typer.Context,
    deleted: Deleted = False,
    count: Count = 20,
    as_json: AsJson = False,
) -> None:
    """List datasets, newest first."""
    session.ask_list(
        context,
        lambda client: client.datasets.list(deleted=deleted, limit=count),
        datasets_table,
        none="No datasets.",
    )


@app.command("show")
def show_dataset(context: typer.Context, dataset: DatasetId, as_json: AsJson = False) -> None:
    """Show one dataset: shape, classes, splits, and what was found when it was stored."""
    session.ask(context, lambda client: client.datasets.get(dataset), dataset_view)


@app.command("rm")
def delete_dataset(context: typer.Context, dataset: DatasetId, as_json: AsJson = False) -> None:
    """Put a dataset no job needs now into the trash. Reports of jobs that ran on it stay."""
    session.ask(context, lambda client: client.datasets.delete(dataset), trashed)


@app.command("restore")
def restore_dataset(context: typer.Context, dataset: DatasetId, as_json: AsJson = False) -> None:
    """Take a dataset out of the trash."""
    session.ask(context, lambda client: client.datasets.restore(dataset), trashed)
