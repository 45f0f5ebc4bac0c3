"""Models: teachers and students of earlier jobs, and teachers that are uploaded."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from zipfile import ZipFile, ZipInfo

from stillhouse.client.download import OnProgress
from stillhouse.client.pages import each
from stillhouse.client.transport import Transport, parse
from stillhouse.client.upload import check_options, name_of, upload
from stillhouse.spec.teachers import TeacherFormat, TeacherQuery
from stillhouse.spec.teachers.preprocessing import Fit, Interpolation
from stillhouse.spec.views import Model

Numbers = Sequence[float] | str
"""A list, or as text: `0.5,0.4,0.3`."""

_OF_A_FOLDER = (".json", ".safetensors")
_CHUNK_BYTES = 1024 * 1024


class Models:
    """`client.models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        format: TeacherFormat | None = None,
        architecture: str | None = None,
        match: Literal["name", "order"] | None = None,
        outputs: Literal["logits", "probabilities"] | None = None,
        classes: Sequence[str] | None = None,
        shape: Numbers | None = None,
        scale: float | str | None = None,
        mean: Numbers | None = None,
        std: Numbers | None = None,
        size: Numbers | None = None,
        crop: float | None = None,
        fit: Fit | None = None,
        interpolation: Interpolation | None = None,
        gray: Literal["repeat"] | None = None,
        colour: Literal["luminance"] | None = None,
        channels: Literal["rgb", "bgr"] | None = None,
        layout: Literal["nchw", "nhwc"] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Model:
        """Upload a teacher; it is read, tried and stored when this returns.

        `path` is a checkpoint of timm or torchvision, an ONNX graph, a .pt2 of torch.export, or the folder (or a ZIP of
        it) that transformers, timm or a finished job left, or that of one ONNX graph and its data files. Of a folder
        the .json and .safetensors files are sent; of one with an .onnx and no .safetensors all files, as data files
        may have any name, but hidden ones and subfolders.
        The options are those of `stillhouse.spec.teachers.TeacherQuery`; what is None is left to the service.
        `name`: the file's name when None. The file is streamed and arrives whole or is refused (Repr-Digest).
        Not sent again when the answer is lost: it might be stored twice.
        Raises OSError when the file cannot be read; Invalid, InvalidData, TooLarge, UnsupportedMedia.
        """
        path = Path(path)
        options = {
            "format": format,
            "architecture": architecture,
            "match": match,
            "outputs": outputs,
            "classes": _listed(classes),
            "shape": _listed(shape),
            "scale": scale,
            "mean": _listed(mean),
            "std": _listed(std),
            "size": _listed(size),
            "crop": crop,
            "fit": fit,
            "interpolation": interpolation,
            "gray": gray,
            "colour": colour,
            "channels": channels,
            "layout": layout,
        }
        given = {key: value for key, value in options.items() if value is not None}
        check_options(TeacherQuery, given)
        params = {"name": name or name_of(path), **given}
        with _as_file(path) as file:
            response = upload(
                self._transport, "/v1/models", file, params=params, shown=path.name, on_progress=on_progress
            )
        return parse(Model, response)

    def get(self, model_id: str) -> Model:
        """One model. Raises NotFound."""
        return parse(Model, self._transport.get(f"/v1/models/{quote(model_id, safe='')}"))

    def list(self, *, deleted: bool = False, limit: int | None = None) -> Iterator[Model]:
        """Models, newest first. `deleted`: those in the trash, instead of all others."""
        return each(self._transport, "/v1/models", Model, params={"deleted": "true" if deleted else None}, limit=limit)

    def delete(self, model_id: str) -> Model:
        """Put a model into the trash; until its `purge_at` it can be restored. Raises NotFound;
        Conflict while a job is taught by it."""
        return parse(
            Model, self._transport.request("DELETE", f"/v1/models/{quote(model_id, safe='')}", repeatable=True)
        )

    def restore(self, model_id: str) -> Model:
        """Take it out of the trash. Raises NotFound, also when it has been removed for good."""
        response = self._transport.request("POST", f"/v1/models/{quote(model_id, safe='')}/restore", repeatable=True)
        return parse(Model, response)


def _listed(values: Sequence[object] | str | None) -> tuple[str, ...] | None:
    """As the query writes it."""
    if values is None:
        return None
    return (values,) if isinstance(values, str) else tuple(str(value) for value in values)


@contextmanager
def _as_file(path: Path) -> Iterator[Path]:
    """`path`, or when it is a folder, a ZIP of it that is gone at the end."""
    if not path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as scratch:
        packed = Path(scratch) / "folder.zip"
        _pack(path, packed)
        yield packed


def _pack(folder: Path, to: Path) -> None:
    """The same files give the same bytes: sorted, without times, without compression (weights do not shrink)."""
    with ZipFile(to, "x") as archive:
        for file in _needed(folder):
            member = ZipInfo(file.name)
            member.create_system, member.external_attr = 3, 0o100644 << 16
            member.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(member, "w") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    target.write(chunk)


def _needed(folder: Path) -> list[Path]:
    """The files of `folder` that may belong to its model."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    kinds = {file.suffix.lower() for file in files}
    if ".onnx" in kinds and ".safetensors" not in kinds:
        return files
    return [file for file in files if file.suffix in _OF_A_FOLDER]
