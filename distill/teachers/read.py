"""One uploaded teacher, from bytes to its stored file: the page to read first."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from distill.teachers import checkpoint, exported, huggingface, onnx_folder, onnx_graph, own, trial
from distill.teachers.draft import OPTIONS, Draft, check_preprocessing
from distill.teachers.package import unpacked
from distill.teachers.sniff import check_declared, sniff
from distill.teachers.teacher import Teacher
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.refusing import invalid
from stillhouse.spec.teachers import CheckedTeacher, ForeignConfig, IntakeRequest, TeacherFormat, TeacherOptions

_FOR_CHECKPOINTS = ("architecture", "match")
_DO_NOT_APPLY: dict[TeacherFormat, tuple[str, ...]] = {
    "checkpoint": ("outputs",),
    "huggingface": (*_FOR_CHECKPOINTS, "outputs", "shape"),
    "onnx": _FOR_CHECKPOINTS,
    "torch-export": _FOR_CHECKPOINTS,
    "stillhouse": (),  # its reader takes none at all
}


def read(request: IntakeRequest) -> CheckedTeacher:
    """Read, check, try and store one upload.

    Raises InvalidData, TooLarge or UnsupportedMedia with a pointer for everything that is wrong, OSError when the disk
    fails, MemoryError at the limit. The output appears whole or not at all.
    """
    path, options = Path(request.source), request.options
    found = sniff(path, request.limits)
    with tempfile.TemporaryDirectory() as folder:
        if found == "folder":
            package = unpacked(path, Path(folder), request.limits)
            if own.is_own(package.config):
                check_declared(options.format, "stillhouse")
                network, config = own.read(package, options, request.limits)
                trial.outcome(network, trial.own_sample(config))
                own.write(package, Path(request.partial))
                return _stored(request, "stillhouse", config, [])
            _check_options("huggingface", options)
            return _finished(request, "huggingface", huggingface.read(package, options, request.limits))
        if found == "onnx":
            _check_options("onnx", options)
            return _finished(request, "onnx", onnx_graph.read(path.read_bytes(), options, request.limits))
        if found == "onnx-folder":
            _check_options("onnx", options)
            data, notes = onnx_folder.merged(path, Path(folder), request.limits)
            return _finished(request, "onnx", onnx_graph.read(data, options, request.limits), notes)
        if found == "torch-export":
            _check_options("torch-export", options)
            return _finished(request, "torch-export", exported.read(path, options, request.limits))
        _check_options("checkpoint", options)
        draft = checkpoint.read(path, options, request.limits, pickled=found == "pickled")
        return _finished(request, "checkpoint", draft)


def _check_options(found: TeacherFormat, options: TeacherOptions) -> None:
    check_declared(options.format, found)
    defaults = TeacherOptions()
    for name in _DO_NOT_APPLY[found]:
        if getattr(options, name) != getattr(defaults, name):
            detail = f"{name} does nothing for a teacher of format {found}."
            raise invalid(f"{OPTIONS}/{name}", "option_does_not_apply", detail, "Leave it out.")
    if found in ("checkpoint", "huggingface") and options.preprocessing.layout is not None:
        detail = f"layout does nothing for a teacher of format {found}, which always takes nchw."
        raise invalid(f"{OPTIONS}/preprocessing/layout", "option_does_not_apply", detail, "Leave it out.")


def _finished(request: IntakeRequest, found: TeacherFormat, draft: Draft, notes: Sequence[str] = ()) -> CheckedTeacher:
    check_preprocessing(draft.preprocessing, draft.shape)
    config = ForeignConfig(
        network=draft.network,
        task="image-classification" if len(draft.shape) == 3 else "tabular-classification",
        shape=draft.shape,
        outputs=2,  # until it was tried
        gives=draft.gives,
        classes=request.options.classes or draft.classes,
        preprocessing=draft.preprocessing,
        parameters=draft.parameters,
    )
    config, tried = _tried(draft.module, config, request.options)
    if config.classes is not None and len(config.classes) != config.outputs:
        where = f"{OPTIONS}/classes" if request.options.classes else "/file"
        detail = f"The teacher tells {config.outputs} classes apart, and {len(config.classes)} are named."
        raise invalid(where, "wrong_classes", detail, "Name each of its outputs, in order.")
    draft.write(Path(request.partial))
    return _stored(request, found, config, [*notes, *draft.notes, *tried])


def _tried(network: nn.Module, config: ForeignConfig, options: TeacherOptions) -> tuple[ForeignConfig, list[str]]:
    """The config with what only a trial tells: how many classes, and whether they are probabilities; and notes."""
    teacher, rows = Teacher(network, config, white=255.0), trial.sample(config)
    given = trial.outcome(teacher.raw, rows)
    gives, notes = config.gives, []
    if config.network.kind in ("onnx", "torch-export") and options.outputs == "auto":
        if trial.are_probabilities(given):
            gives = "probabilities"
        notes.append(f"The outputs are taken for {gives}.")
    if gives == "probabilities" and not trial.are_probabilities(given):
        detail = "The outputs are taken for probabilities, and for random rows they do not sum to 1."
        raise invalid(f"{OPTIONS}/outputs", "not_probabilities", detail, "Set outputs to logits.")
    if not trial.rows_alone(teacher.raw, rows, given):
        notes.append("What it says of a row depends on the other rows of the batch.")
    return config.model_copy(update={"outputs": given.shape[1], "gives": gives}), notes


def _stored(
    request: IntakeRequest, found: TeacherFormat, config: ModelConfig | ForeignConfig, notes: list[str]
) -> CheckedTeacher:
    partial = Path(request.partial)
    with partial.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = partial.stat().st_size
    partial.replace(request.output)
    return CheckedTeacher(format=found, config=config, bytes=size, sha256=sha256, notes=notes)
