"""`stillhouse models …`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stillhouse.cli import exits, session
from stillhouse.cli.arguments import Count, Deleted, as_option
from stillhouse.cli.pull import progress_bars
from stillhouse.cli.render import model_view, models_table, trashed
from stillhouse.cli.session import AsJson
from stillhouse.spec.errors import Invalid
from stillhouse.spec.teachers import TeacherFormat
from stillhouse.spec.teachers.preprocessing import Fit, Interpolation

app = typer.Typer(help="Upload teachers, look at and delete models: each can be a job's teacher.", no_args_is_help=True)

ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="Id of a model.")]


@app.command("upload")
def upload_model(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help=".pth or .safetensors, .onnx, .pt2, or a folder: of transformers, timm, a job, or an ONNX graph and "
            "its data files."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What you call it. Default: the file's name.")] = None,
    format: Annotated[TeacherFormat | None, typer.Option(help="Default: told by the bytes.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Of a checkpoint: timm/resnet18, torchvision/resnet18 …")
    ] = None,
    match: Annotated[
        Literal["name", "order"] | None, typer.Option(help="How tensors of a checkpoint find their place.")
    ] = None,
    outputs: Annotated[
        Literal["logits", "probabilities"] | None, typer.Option(help="What it gives. Default: told by the file.")
    ] = None,
    classes: Annotated[list[str] | None, typer.Option(help="Name of an output. Repeatable, in order.")] = None,
    shape: Annotated[str | None, typer.Option(help="One row where the file leaves it open: 3,32,32.")] = None,
    scale: Annotated[str | None, typer.Option(help="Values are divided by this: 255, or dataset.")] = None,
    mean: Annotated[str | None, typer.Option(help="Subtracted after scaling: 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="What is left is divided by this.")] = None,
    size: Annotated[str | None, typer.Option(help="Height and width images are resized to: 224 or 224,224.")] = None,
    crop: Annotated[float | None, typer.Option(help="Share of the resized image that is kept.")] = None,
    fit: Annotated[Fit | None, typer.Option(help="How images are resized.")] = None,
    interpolation: Annotated[Interpolation | None, typer.Option(help="By which rule.")] = None,
    gray: Annotated[Literal["repeat"] | None, typer.Option(help="repeat: gray images fill three channels.")] = None,
    colour: Annotated[
        Literal["luminance"] | None, typer.Option(help="luminance: the brightness of colour images fills one channel.")
    ] = None,
    channels: Annotated[Literal["rgb", "bgr"] | None, typer.Option(help="Order of colours it takes.")] = None,
    layout: Annotated[Literal["nchw", "nhwc"] | None, typer.Option(help="Order of axes it takes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a teacher. The service reads it and tries it before it is stored, and says what it took it for."""
    speak = session.of(context)
    try:
        with speak.client() as client, progress_bars(speak) as on_progress:
            model = client.models.upload(
                file,
                name=name,
                format=format,
                architecture=architecture,
                match=match,
                outputs=outputs,
                classes=classes or None,
                shape=shape,
                scale=scale,
                mean=mean,
                std=std,
                size=size,
                crop=crop,
                fit=fit,
                interpolation=interpolation,
                gray=gray,
                colour=colour,
                channels=channels,
                layout=layout,
                on_progress=on_progress,
            )
    except Invalid as error:
        speak.fail(error, place=as_option)
        raise typer.Exit(exits.of_error(error)) from error
    speak.answer(model, lambda: model_view(model))


@app.command("ls")
def list_models(
    context: typer.Context,
    deleted: Deleted = False,
    count: Count = 20,
    as_json: AsJson = False,
) -> None:
    """List models, newest first."""
    session.ask_list(
        context, lambda client: client.models.list(deleted=deleted, limit=count), models_table, none="No models."
    )


@app.command("show")
def show_model(
    context: typer.Context,
    model: ModelId,
    as_json: AsJson = False,
) -> None:
    """Show one model: its network, its data, how to feed it."""
    session.ask(context, lambda client: client.models.get(model), model_view)


@app.command("rm")
def delete_model(context: typer.Context, model: ModelId, as_json: AsJson = False) -> None:
    """Put a model that teaches no job now into the trash. Reports that name it stay."""
    session.ask(context, lambda client: client.models.delete(model), trashed)


@app.command("restore")
def restore_model(context: typer.Context, model: ModelId, as_json: AsJson = False) -> None:
    """Take a model out of the trash."""
    session.ask(context, lambda client: client.models.restore(model), trashed)
