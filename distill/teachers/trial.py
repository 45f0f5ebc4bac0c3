"""A teacher is tried on random rows before it is kept: what is wrong with it is said to its owner, not to a job."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill.teachers.networks import LIBRARY_ERRORS
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.refusing import invalid
from stillhouse.spec.teachers import ForeignConfig

Network = Callable[[Tensor], Any]

ROWS = 3
_USUAL_SIDE = 64
_CHANNELS = 3
_LONGEST = 200
_MOST_NUMBERS = 50_000_000


def sample(config: ForeignConfig) -> Tensor:
    """Random rows [3, …] as a dataset for this teacher could hold: bytes, or numbers about its own mean.

    Raises InvalidData for rows of a size that no dataset has.
    """
    draw = torch.Generator().manual_seed(0)
    preparing = config.preprocessing
    if len(config.shape) == 1:
        rows = torch.randn(_of_a_size_there_is(config.shape[0] or 1), generator=draw)
        mean, std = torch.tensor(preparing.mean or (0.0,)), torch.tensor(preparing.std or (1.0,))
        scale = 255.0 if preparing.scale == "dataset" else preparing.scale
        return (rows * std + mean) * scale
    sides = preparing.size or tuple(side or _USUAL_SIDE for side in config.shape[1:])
    shape = _of_a_size_there_is(config.shape[0] or _CHANNELS, *sides)
    return torch.randint(0, 256, shape, generator=draw).float()


def _of_a_size_there_is(*row: int) -> tuple[int, ...]:
    """The shape of the rows. Raises InvalidData when one alone would fill the memory: files say what they like."""
    if math.prod(row) > _MOST_NUMBERS:
        shape = "×".join(map(str, row))
        detail = f"A row of its input has {shape} numbers, and no dataset here more than {_MOST_NUMBERS:,}."
        raise _unusable("wrong_inputs", detail, "Export it for rows of the size of your data.")
    return ROWS, *row


def own_sample(config: ModelConfig) -> Tensor:
    """Random rows for a model of this service, about the mean of the data it was made on."""
    draw = torch.Generator().manual_seed(0)
    shape = config.facts.shape
    per = (-1, 1, 1) if len(shape) == 3 else (-1,)
    mean, std = torch.tensor(config.mean).view(per), torch.tensor(config.std).view(per)
    return torch.randn(ROWS, *shape, generator=draw) * std + mean


def outcome(teacher: Network, rows: Tensor) -> Tensor:
    """What `teacher` gives for `rows`: [rows, classes] of a finite number each, the same when asked again.

    `teacher` is the network behind its preprocessing, before probabilities become logits. Raises InvalidData.
    """
    given = _run(teacher, rows)
    if not isinstance(given, Tensor):
        kinds = type(given).__name__
        raise _unusable("wrong_outputs", f"It gives a {kinds} and not one tensor of classes.")
    if given.dim() != 2 or len(given) != len(rows) or given.shape[1] < 2:
        shape = "×".join(map(str, given.shape)) or "a single number"
        detail = f"For {len(rows)} rows it gives {shape}, where rows × classes is needed, two classes or more."
        raise _unusable("wrong_outputs", detail)
    if not given.isfinite().all():
        hint = "State the preprocessing it was trained with, and check the weights."
        raise _unusable("outputs_not_finite", "For random rows its outputs are NaN or infinite.", hint)
    if not torch.equal(given, _run(teacher, rows)):
        hint = "Put the network into eval mode before it is exported."
        raise _unusable("random_outputs", "For the same rows it gives other outputs each time.", hint)
    return given


def rows_alone(teacher: Network, rows: Tensor, together: Tensor) -> bool:
    """Whether each row gets the outputs it would get in other company. Raises InvalidData for outputs of another shape,
    as of a network whose outputs are classes × rows and which was tried on as many rows as it has classes.
    """
    given = [_run(teacher, row[None]) for row in rows]
    if any(one.shape != together[:1].shape for one in given):
        shapes = ["×".join(map(str, shape)) for shape in (given[0].shape, together[:1].shape)]
        raise _unusable("wrong_outputs", f"For one row it gives {shapes[0]}, where {shapes[1]} is needed.")
    alone = torch.cat(given)
    return torch.allclose(alone, together, rtol=1e-2, atol=1e-3 * float(together.abs().max()))


def are_probabilities(given: Tensor) -> bool:
    """Whether no output is negative and those of each row sum to 1: logits of random rows never do."""
    return not bool((given < 0).any()) and torch.allclose(given.sum(1), torch.ones(len(given)), atol=1e-2)


@torch.no_grad()
def _run(teacher: Network, rows: Tensor) -> Any:
    try:
        return teacher(rows)
    except LIBRARY_ERRORS as error:
        if "alloc" in str(error) or "not enough memory" in str(error):
            raise MemoryError from None
        shape = "×".join(map(str, rows.shape))
        detail = f"It fails on random rows of {shape}: {_first_line(error)}."
        hint = "State the shape of its rows and the preprocessing, above all the size of its images."
        raise _unusable("failed_on_rows", detail, hint) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:_LONGEST]


def _unusable(code: str, detail: str, hint: str | None = None) -> Exception:
    return invalid("/file", code, f"The network cannot teach. {detail}", hint)
