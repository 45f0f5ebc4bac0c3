"""An uploaded program of torch.export."""

import shutil
from functools import partial
from pathlib import Path
from typing import Literal

from distill.teachers import tensors
from distill.teachers.axes import fixed_size, row_of
from distill.teachers.draft import Draft, settled
from distill.teachers.exported_archive import Exported, unpacked
from distill.teachers.exported_graph import Program, program
from distill.teachers.exported_net import ExportedModule
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted, too_large
from stillhouse.spec.teachers import ExportedNet, Preprocessing, TeacherOptions

_SOFTMAX = ("torch.ops.aten.softmax.int", "torch.ops.aten._softmax.default")
_SAME = ("alias", "clone", "detach", "flatten", "reshape", "squeeze", "to", "_to_copy", "view", "contiguous")


def read(path: Path, options: TeacherOptions, limits: Limits) -> Draft:
    """The program in `path`. Raises InvalidData or TooLarge."""
    exported, steps = _checked(path, limits)
    # Infinity may be the constant of a mask, in a buffer: what comes out is looked at later.
    tensors.check_finite(exported.tensors, infinity=True)
    _check_output(steps)
    net = ExportedNet.model_validate({"dtype": str(steps.dtype).removeprefix("torch."), "batch": steps.dims[0]})
    shape, layout = row_of(steps.dims, options)
    own = Preprocessing(layout=layout, size=fixed_size(shape))
    gives: Literal["logits", "probabilities"] = options.outputs if options.outputs != "auto" else _gives(steps)
    notes = []
    if options.preprocessing.scale is None and options.preprocessing.mean is None:
        notes.append("No preprocessing is stated: the program gets the raw values of the dataset.")
    return Draft(
        network=net,
        module=_module(exported, steps, net),
        write=partial(_copy, path),
        shape=shape,
        preprocessing=settled(options.preprocessing, own),
        parameters=exported.numbers,
        gives=gives,
        notes=notes,
    )


def _copy(path: Path, to: Path) -> None:
    shutil.copyfile(path, to)


def loaded(path: Path, net: ExportedNet, limits: Limits) -> ExportedModule:
    """A stored program, checked again. Raises InvalidData or TooLarge."""
    exported, steps = _checked(path, limits)
    _check_output(steps)
    return _module(exported, steps, net)


def _checked(path: Path, limits: Limits) -> tuple[Exported, Program]:
    exported = unpacked(path, limits)
    if exported.numbers > limits.max_teacher_parameters:
        detail = f"The program has more than the limit of {limits.max_teacher_parameters:,} numbers in its weights."
        raise too_large("/file", "too_many_parameters", detail, "Upload a smaller teacher.")
    steps = program(exported.graph)
    if lacking := [name for name in steps.weights.values() if name not in exported.tensors]:
        detail = f"The program uses the tensor {quoted(lacking[0])}, and the archive does not have it."
        raise invalid(pointer("tensors", lacking[0]), "missing_tensors", detail, "Save the program anew.")
    return exported, steps


def _module(exported: Exported, steps: Program, net: ExportedNet) -> ExportedModule:
    return ExportedModule(steps, exported.tensors, output=steps.outputs[0], batch=net.batch).eval()


def _check_output(steps: Program) -> None:
    if len(steps.outputs) != 1:
        detail = f"The program gives {len(steps.outputs)} tensors; one is needed, a number for each class."
        raise invalid("/file", "unclear_output", detail, "Export a module that returns its logits alone.")


def _gives(steps: Program) -> Literal["logits", "probabilities"]:
    makers = {name: step for step in steps.steps for result in step.results for name in _single(result)}
    name = steps.outputs[0]
    while (step := makers.get(name)) is not None:
        if step.target in _SOFTMAX:
            return "probabilities"
        first = next(iter(step.arguments.values()), None)
        if not step.target.startswith("torch.ops.aten.") or step.target.split(".")[3] not in _SAME:
            break
        name = getattr(first, "name", "")
    return "logits"


def _single(result: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (result,) if isinstance(result, str) else ()
