"""A program of torch.export, run step by step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.teachers.axes import in_batches
from distill.teachers.exported_graph import Named, Program, Where


class ExportedModule(nn.Module):
    """Rows [N, …] float32, prepared → one output of the program [N, …] float32. No gradient flows through it."""

    def __init__(self, program: Program, tensors: Mapping[str, Tensor], *, output: str, batch: int | None) -> None:
        super().__init__()
        self._program, self._output, self._batch = program, output, batch
        for name, tensor in program.weights.items():
            # Names of a graph are no names of buffers: they may have dots.
            self.register_buffer(_key(name), tensors[tensor], persistent=False)
        self._last = _last_uses(program, output)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The chosen output."""
        return in_batches(x, self._batch, self._run)

    def _run(self, rows: Tensor) -> Tensor:
        program = self._program
        values: dict[str, Any] = {name: self.get_buffer(_key(name)) for name in program.weights}
        values[program.rows] = _as(rows, program.dtype)
        for number, step in enumerate(program.steps):
            arguments = {name: _filled(value, values, rows.device) for name, value in step.arguments.items()}
            given = step.call(*arguments.values()) if step.positional else step.call(**arguments)
            _keep(step.results, given, values)
            for name in self._last.get(number, ()):
                values.pop(name, None)
        found: Tensor = values[self._output]
        found = found.float()
        return found.flatten(1) if found.dim() > 2 and found.shape[2:].numel() == 1 else found


def _key(name: str) -> str:
    return "w_" + name.replace(".", "__")


def _as(rows: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return rows.to(dtype)
    bounds = torch.iinfo(dtype)
    return rows.round().clamp(max(bounds.min, -(2**31)), min(bounds.max, 2**31 - 128)).to(dtype)


def _filled(value: Any, values: Mapping[str, Any], device: torch.device) -> Any:
    if isinstance(value, Named):
        return values[value.name]
    if isinstance(value, Where):
        return device
    return [_filled(part, values, device) for part in value] if isinstance(value, list) else value


def _keep(results: tuple[str | tuple[str, ...] | None, ...], given: Any, values: dict[str, Any]) -> None:
    """Several results are a tuple, a result that is a list is one of them, and an assertion has none."""
    if not results:
        return
    parts = given if len(results) > 1 else [given]
    for name, part in zip(results, parts, strict=True):
        if isinstance(name, tuple):
            values.update(zip(name, part, strict=True))
        elif name is not None:
            values[name] = part


def _last_uses(program: Program, output: str) -> dict[int, list[str]]:
    """What is not needed any more after each step: a deep network's layers do not all stay in memory."""
    last: dict[str, int] = {}
    for number, step in enumerate(program.steps):
        for name in _mentioned(list(step.arguments.values())):
            last[name] = number
    freed: dict[int, list[str]] = {}
    for name, number in last.items():
        if name != output and name not in program.weights:
            freed.setdefault(number, []).append(name)
    return freed


def _mentioned(values: list[Any]) -> list[str]:
    names: list[str] = []
    for value in values:
        if isinstance(value, Named):
            names.append(value.name)
        elif isinstance(value, list):
            names += _mentioned(value)
    return names
